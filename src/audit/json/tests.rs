//! Lines fit the published schema; the check is structural and knows the keywords that the schema uses.

use std::time::UNIX_EPOCH;

use serde_json::Value;
use uuid::Uuid;

use super::super::record::gap as new_gap;
use super::super::testing::{denial, expansion};
use super::super::*;
use super::*;
use crate::proto::v1::{
    AuditEvent, AuditEventKind, Client, ClientSource, LogOpened, PolicyChange, Reason, RefusedScope,
    TokenGrant,
};

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
            "$ref" | "$schema" | "$id" | "$defs" | "title" | "description" | "format" => true,
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
            "additionalProperties" if rule.is_object() => {
                value.as_object().unwrap().values().all(|member| misfit(root, rule, member, at).is_none())
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
                let text = value.as_str().unwrap();
                match rule.as_str().unwrap() {
                    "^[0-9]+$" => text.bytes().all(|byte| byte.is_ascii_digit()),
                    "^[0-9a-f]*$" => text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')),
                    other => panic!("pattern `{other}` is not checked"),
                }
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

fn placed(mut body: Body) -> Body {
    let after = Tip { head: Head { sequence: 41, hash: GENESIS_HASH }, latest_time: 0 };
    let (tip, _) = body.seal(Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff), after);
    Record::new(body, GENESIS_HASH, tip.head.hash).body
}

fn line_of(event: AuditEvent) -> String {
    line(&placed(Body::Event(Box::new(event)))).unwrap()
}

#[test]
fn every_kind_of_line_fits_the_schema() {
    let mut change = new_event(AuditEventKind::PolicyChange, SystemTime::now());
    change.policy_change = Some(PolicyChange {
        accepted: true,
        previous_digest: "sha256:00".to_owned(),
        finding_count: 2,
        changes: vec!["audience `a` removed".to_owned()],
        change_count: 1,
        widening_count: 0,
    });
    let mut refused = denial("c");
    refused.reason = Reason::Unsupported.into();
    refused.refused = (1..=Reason::ClientTooLarge as i32)
        .map(|reason| RefusedScope { scope: "s".to_owned(), reason, message: String::new() })
        .collect();
    let mut claims = expansion("c");
    claims.client = Some(Client {
        client_name: "\u{1b}[31m\"evil\"\n\u{2028}\0".to_owned(),
        source: ClientSource::Cimd.into(),
        redirect_uris: vec!["http://[::1]/cb".to_owned()],
        ..Client::default()
    });
    let mut token = denial("c");
    token.granted_scope = Some(String::new());
    let tokens = (0..=TokenGrant::TokenExchange as i32).map(|grant| AuditEvent { grant, ..token.clone() });
    tokens.for_each(|token| _ = assert_fits(&line_of(token)));
    let mut opened = new_event(AuditEventKind::LogOpened, SystemTime::now());
    opened.log_opened = Some(LogOpened { previous_hash: vec![7; 32], ..LogOpened::default() });
    for event in [change, refused, claims, opened, new_event(AuditEventKind::Denial, UNIX_EPOCH)] {
        assert_fits(&line_of(event));
    }
    for reason in GapReason::ALL {
        let gap = new_gap(reason, 3, UNIX_EPOCH, SystemTime::now());
        assert_fits(&line(&placed(Body::Gap(gap))).unwrap());
    }
    let log_id = Uuid::nil().to_string();
    let value = assert_fits(&gap_line(&retention_gap(log_id, 5, 9, SystemTime::now())).unwrap());
    assert_eq!(value["gap"]["count"], "5");
    assert_eq!(value["gap"]["sequence"], "9");
}

#[test]
fn check_of_the_schema_sees_what_does_not_fit() {
    let schema = schema();
    let good: Value = serde_json::from_str(&line_of(expansion("c"))).unwrap();
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
    event.client = Some(Client { client_name: name.clone(), ..Client::default() });
    let line = line_of(event);
    assert!(line.bytes().all(|byte| byte >= 0x20), "{line}");
    let value: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(value["client"]["clientName"], Value::String(name));
}

#[test]
fn three_states_of_a_scope_can_be_told_apart() {
    let requested = |scope: Option<&str>| {
        let mut event = expansion("c");
        event.requested_scope = scope.map(str::to_owned);
        let value: Value = serde_json::from_str(&line_of(event)).unwrap();
        value.get("requestedScope").cloned()
    };
    assert_eq!(requested(None), None);
    assert_eq!(requested(Some("")), Some("".into()));
    assert_eq!(requested(Some(" a  b ")), Some(" a  b ".into()));
}
