//! Lines fit the published schema; the check is structural and knows the keywords that the schema uses.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;
use uuid::Uuid;

use super::super::chain::{Content, GENESIS_HASH, Head, Row};
use super::super::testing::{denial, expansion};
use super::super::*;
use super::*;

fn schema() -> Value {
    serde_json::from_str(include_str!("../../../docs/reference/audit-event.schema.json")).unwrap()
}

/// Says where a value does not fit a schema.
fn misfit(root: &Value, schema: &Value, value: &Value, at: &str) -> Option<String> {
    if let Some(Value::String(reference)) = schema.get("$ref") {
        let target = root.pointer(reference.strip_prefix('#').unwrap()).unwrap();
        if let Some(misfit) = misfit(root, target, value, at) {
            return Some(misfit);
        }
    }
    for (keyword, rule) in schema.as_object().unwrap() {
        let fits = match keyword.as_str() {
            "$ref" | "$schema" | "$id" | "$defs" | "title" | "description" | "format" | "contentEncoding" => {
                true
            }
            "type" => match rule.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "integer" => value.is_u64(),
                "boolean" => value.is_boolean(),
                other => panic!("type `{other}`"),
            },
            "enum" => rule.as_array().unwrap().contains(value),
            "required" => {
                rule.as_array().unwrap().iter().all(|name| value.get(name.as_str().unwrap()).is_some())
            }
            "additionalProperties" => {
                let known = schema["properties"].as_object().unwrap();
                value.as_object().unwrap().keys().all(|name| known.contains_key(name))
            }
            "properties" => {
                for (name, rule) in rule.as_object().unwrap() {
                    if let Some(member) = value.get(name)
                        && let Some(misfit) = misfit(root, rule, member, &format!("{at}/{name}"))
                    {
                        return Some(misfit);
                    }
                }
                true
            }
            "items" => {
                for item in value.as_array().unwrap() {
                    if let Some(misfit) = misfit(root, rule, item, &format!("{at}/*")) {
                        return Some(misfit);
                    }
                }
                true
            }
            "oneOf" => {
                let fitting = rule.as_array().unwrap().iter();
                fitting.filter(|rule| misfit(root, rule, value, at).is_none()).count() == 1
            }
            "minLength" => value.as_str().unwrap().len() as u64 >= rule.as_u64().unwrap(),
            "maxLength" => value.as_str().unwrap().len() as u64 <= rule.as_u64().unwrap(),
            "pattern" => {
                assert_eq!(rule, "^[0-9]+$");
                value.as_str().unwrap().bytes().all(|byte| byte.is_ascii_digit())
            }
            other => panic!("keyword `{other}` is not checked"),
        };
        if !fits {
            return Some(format!("{at}: {keyword} {rule} does not hold for {value}"));
        }
    }
    None
}

#[track_caller]
fn assert_fits(line: &str) -> Value {
    assert!(!line.contains('\n'), "{line}");
    let value: Value = serde_json::from_str(line).unwrap();
    let schema = schema();
    if let Value::Object(members) = &value
        && !members.contains_key("gap")
        && let Some(misfit) = misfit(&schema, &schema["$defs"]["event"], &value, "")
    {
        panic!("{misfit}");
    }
    assert_eq!(misfit(&schema, &schema, &value, ""), None);
    value
}

fn record(content: &mut Content) -> Record {
    let hash = content.seal(Head { sequence: 41, hash: GENESIS_HASH });
    let row = Row { sequence: 42, latest_time: 0, content: content.bytes().to_vec(), hash };
    row.check(LOG_ID, &GENESIS_HASH).unwrap()
}

const LOG_ID: Uuid = Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);

fn event_record(event: &AuditEvent) -> Record {
    record(&mut Content::event(LOG_ID, event))
}

#[test]
fn every_kind_of_line_fits_the_schema() {
    let mut change = AuditEvent::new(EventKind::PolicyChange, SystemTime::now());
    change.policy_change =
        Some(PolicyChange { accepted: true, previous_digest: "sha256:00".to_owned(), finding_count: 2 });
    let mut refused = denial("c");
    refused.reason = Some(Reason::Unsupported);
    refused.refused = Reason::ALL
        .iter()
        .map(|reason| RefusedScope { scope: "s".to_owned(), reason: *reason, message: String::new() })
        .collect();
    let mut claims = expansion("c");
    claims.claim(Client {
        client_name: "\u{1b}[31m\"evil\"\n\u{2028}\0".to_owned(),
        source: Some(ClientSource::Cimd),
        redirect_uris: vec!["http://[::1]/cb".to_owned()],
        ..Client::default()
    });
    for event in [&change, &refused, &claims, &AuditEvent::new(EventKind::Denial, UNIX_EPOCH)] {
        assert_fits(&line(&event_record(event)));
    }
    for reason in GapReason::ALL {
        let gap = Gap { count: 3, reason: *reason, first_time: UNIX_EPOCH, last_time: SystemTime::now() };
        assert_fits(&line(&record(&mut Content::gap(LOG_ID, &gap))));
    }
    let value = assert_fits(&retention_line(&LOG_ID.to_string(), 5, 9, SystemTime::now()));
    assert_eq!(value["gap"]["count"], "5");
    assert_eq!(value["gap"]["sequence"], "9");
}

#[test]
fn check_of_the_schema_sees_what_does_not_fit() {
    let schema = schema();
    let good: Value = serde_json::from_str(&line(&event_record(&expansion("c")))).unwrap();
    let mut bad = good.clone();
    bad["kind"] = "EXPANSION".into();
    assert!(misfit(&schema, &schema, &bad, "").is_some());
    let mut bad = good.clone();
    bad["unknown"] = 1.into();
    assert!(misfit(&schema, &schema, &bad, "").is_some());
    let mut bad = good;
    bad.as_object_mut().unwrap().remove("hash");
    assert!(misfit(&schema, &schema, &bad, "").is_some());
}

#[test]
fn control_characters_of_claims_are_escaped() {
    let mut event = expansion("c");
    let name = (0..32u8).map(char::from).collect::<String>() + "\"\\";
    event.claim(Client { client_name: name.clone(), ..Client::default() });
    let line = line(&event_record(&event));
    assert!(line.bytes().all(|byte| byte >= 0x20), "{line}");
    let value: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(value["client"]["clientName"], Value::String(name));
}

#[test]
fn three_states_of_a_scope_can_be_told_apart() {
    let requested = |scope: Option<&str>| {
        let mut event = expansion("c");
        event.requested_scope = scope.map(str::to_owned);
        let value: Value = serde_json::from_str(&line(&event_record(&event))).unwrap();
        value.get("requestedScope").cloned()
    };
    assert_eq!(requested(None), None);
    assert_eq!(requested(Some("")), Some("".into()));
    assert_eq!(requested(Some(" a  b ")), Some(" a  b ".into()));
}

#[test]
fn base64_pads_as_the_standard_says() {
    // RFC 4648 section 10.
    let cases = [
        ("", ""),
        ("f", "Zg=="),
        ("fo", "Zm8="),
        ("foo", "Zm9v"),
        ("foob", "Zm9vYg=="),
        ("foobar", "Zm9vYmFy"),
    ];
    for (plain, encoded) in cases {
        assert_eq!(base64(plain.as_bytes()), encoded);
    }
    assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
}

#[test]
fn times_are_written_with_as_many_digits_as_needed() {
    let at = |nanos: u64| timestamp(UNIX_EPOCH + Duration::from_nanos(nanos));
    assert_eq!(at(0), "1970-01-01T00:00:00Z");
    assert_eq!(at(951_782_400_500_000_000), "2000-02-29T00:00:00.500Z");
    assert_eq!(at(1_709_251_199_000_001_000), "2024-02-29T23:59:59.000001Z");
    assert_eq!(at(4_107_542_399_999_999_999), "2100-02-28T23:59:59.999999999Z");
    assert_eq!(timestamp(UNIX_EPOCH - Duration::from_secs(1)), "1969-12-31T23:59:59Z");
}
