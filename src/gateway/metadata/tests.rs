use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

#[track_caller]
fn check(body: &str, expected: Result<(Option<&str>, &str), &str>) {
    let read = RegistrationBody::read(body.as_bytes());
    let read = read.map_err(|why| why.to_string());
    let read = read.map(|read| (read.scope.clone(), String::from_utf8(read.with_scope("x y")).unwrap()));
    let expected = expected.map(|(scope, body)| (scope.map(str::to_owned), body.to_owned()));
    assert_eq!(read, expected.map_err(str::to_owned), "{body}");
}

#[test]
fn a_body_is_written_anew() {
    check(
        r#" {"a":{"b":[1]},"scope":"z","c":null} "#,
        Ok((Some("z"), r#"{"a":{"b":[1]},"scope":"x y","c":null}"#)),
    );
    check(r#"{"client_name":"n"}"#, Ok((None, r#"{"client_name":"n","scope":"x y"}"#)));
    check(r#"{"scope":null}"#, Ok((None, r#"{"scope":"x y"}"#)));
    check(r#"{"\u0073cope":""}"#, Ok((Some(""), r#"{"scope":"x y"}"#)));
}

#[test]
fn what_servers_read_differently_is_refused() {
    check(
        r#"{"scope":"a","scope":"b"}"#,
        Err("the client metadata are not JSON: duplicate member `scope` at line 1 column 20"),
    );
    check(r#"{"Scope":"a"}"#, Err("member `Scope` is another spelling of `scope`"));
    check("{\"\u{17f}cope\":\"a\"}", Err("member `\u{17f}cope` is another spelling of `scope`"));
    check(r#"{"Redirect_URIs":[]}"#, Err("member `Redirect_URIs` is another spelling of `redirect_uris`"));
    check("{} x", Err("the client metadata are not JSON: trailing characters at line 1 column 4"));
    check("[]", Err("the client metadata are not a JSON object"));
    check("scope=a", Err("the client metadata are not JSON: expected value at line 1 column 1"));
    check(r#"{"scope":["a"]}"#, Err("member `scope` is not a string"));
    check(r#"{"redirect_uris":"a"}"#, Err("member `redirect_uris` is not an array of strings"));
    check(r#"{"grant_types":[1]}"#, Err("member `grant_types` is not an array of strings"));
    check(
        &format!(r#"{{"a":"{}"}}"#, "a".repeat(MAX_METADATA_BYTES)),
        Err("the client metadata have more than 262144 bytes"),
    );
    let statement = |payload: &str| {
        let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        format!(r#"{{"software_statement":"{}.{}.x"}}"#, part("{}"), part(payload))
    };
    let has_scope = Err("the software statement has a scope, or cannot be read");
    check(&statement(r#"{"scope":"a"}"#), has_scope);
    check(&statement(r#"{"Scope":null}"#), has_scope);
    check(r#"{"software_statement":"a.b.c.d.e"}"#, has_scope);
    let body = statement(r#"{"software_id":"a"}"#);
    assert!(RegistrationBody::read(body.as_bytes()).is_ok());
}

fn answer(kind: UpstreamKind, sent: Sent<'_>, body: &Value) -> Result<RegistrationAnswer, AnswerError> {
    let ours = |uri: &str| uri.strip_prefix("http://up").map(|path| format!("https://gw{path}"));
    let request = ClientMetadata {
        client_name: "name".into(),
        software_id: "id".into(),
        redirect_uris: vec!["https://unconfirmed".into()],
        ..Default::default()
    };
    read_answer(kind, sent, Some(&request), ours, body.to_string().as_bytes())
}

#[test]
fn what_was_sent_and_is_confirmed_is_registered() {
    #[track_caller]
    fn check(kind: UpstreamKind, sent: Sent<'_>, answered: &str, expected: &str) {
        let answer = answer(kind, sent, &json!({"client_id": "c", "scope": answered})).unwrap();
        assert_eq!(answer.registered_scope, expected, "{kind} {sent:?} {answered:?}");
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body, json!({"client_id": "c", "scope": expected}));
    }
    use UpstreamKind::{Generic, Hydra, Keycloak};
    check(Generic, Sent::Scope("a b"), "b a c", "a b");
    check(Generic, Sent::Scope("a b"), "b", "b");
    check(Generic, Sent::Scope("a b"), "", "");
    check(Generic, Sent::Scope("openid a"), "a", "a");
    check(Keycloak, Sent::Scope("openid a"), "a", "openid a");
    check(Keycloak, Sent::Scope("a"), "a openid", "a");
    check(Hydra, Sent::Scope("a a"), "a", "a");
    let read = |known, added| Sent::Nothing { known, added };
    check(Generic, read(None, ""), "a b", "a b");
    check(Generic, read(Some("a"), ""), "a b", "a b");
    // A step-up scope that the gateway added there is not registered.
    check(Generic, read(Some("a"), "s"), "a b s", "a b");
    check(Generic, read(Some("a s"), "s"), "a s", "a s");
    check(Generic, read(Some("a b"), ""), "a", "a");
    check(Keycloak, read(Some("openid a"), ""), "a", "openid a");
    check(Keycloak, read(None, ""), "a", "a");
}

#[test]
fn an_answer_says_who_the_client_is() {
    let full = json!({
        "client_id": "c", "scope": "a", "client_name": "N", "redirect_uris": ["https://a/cb"], "grant_types": ["authorization_code"],
        "registration_client_uri": "http://up/register/c", "registration_access_token": "t", "contacts": null, "client_uri": "",
    });
    let read = answer(UpstreamKind::Hydra, Sent::Scope("a"), &full).unwrap();
    assert_eq!(
        (read.client_id.as_str(), &read.client),
        (
            "c",
            &ClientMetadata {
                client_name: "N".into(),
                software_id: "id".into(),
                redirect_uris: vec!["https://a/cb".into()],
                grant_types: vec!["authorization_code".into()],
                ..Default::default()
            }
        )
    );
    let body: Value = serde_json::from_slice(&read.body).unwrap();
    assert_eq!(body["registration_client_uri"], "https://gw/register/c");
    assert_eq!((body.get("contacts"), body.get("client_uri")), (None, None), "ory/hydra#4116");
    let kept: Value =
        serde_json::from_slice(&answer(UpstreamKind::Generic, Sent::Scope("a"), &full).unwrap().body)
            .unwrap();
    assert_eq!((&kept["contacts"], &kept["client_uri"]), (&Value::Null, &json!("")));

    let elsewhere = json!({
        "client_id": "c", "scope": "a", "registration_client_uri": "http://elsewhere/c", "registration_access_token": "t",
    });
    let read = answer(UpstreamKind::Generic, Sent::Scope("a"), &elsewhere).unwrap();
    assert!(read.unmanaged && read.client.redirect_uris.is_empty());
    assert_eq!(serde_json::from_slice::<Value>(&read.body).unwrap(), json!({"client_id": "c", "scope": "a"}));

    let silent = answer(UpstreamKind::Generic, Sent::Scope("a"), &json!({"client_id": "c"})).unwrap();
    assert!(silent.says_no_scope && silent.registered_scope.is_empty());
}

#[test]
fn an_answer_without_a_client_is_an_error() {
    #[track_caller]
    fn check(body: &Value, expected: &str) {
        let error = answer(UpstreamKind::Generic, Sent::Scope("a"), body).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    let what = "the answer of the upstream to a registration";
    check(&json!({}), &format!("{what} has no `client_id`"));
    check(&json!({"client_id": ""}), &format!("{what} has no `client_id`"));
    check(&json!([]), &format!("{what}: the client metadata are not a JSON object"));
    check(&json!({"client_id": 1}), &format!("{what}: member `client_id` is not a string"));
    check(&json!({"client_id": "c", "scope": ["a"]}), &format!("{what}: member `scope` is not a string"));
}

/// What a server reads as the scope: any member that folds to the name, the first or the last of them.
fn laxest(body: &[u8]) -> Vec<String> {
    // serde_json takes the last of equal members; a search of the text finds each.
    let value: Value = serde_json::from_slice(body).unwrap();
    let members = value.as_object().unwrap();
    members
        .iter()
        .filter(|(name, _)| name.to_lowercase().trim() == "scope" || name.to_uppercase() == "SCOPE")
        .map(|(_, value)| value.as_str().unwrap().to_owned())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_reader_reads_the_decided_scope(
        members in prop::collection::vec(prop::sample::select(vec![
            r#""scope":"admin""#, r#""Scope":"admin""#, r#""SCOPE":"admin""#, r#""\u0073cope":"admin""#, r#""scope ":"admin""#, r#""scope":null"#,
            r#""client_name":"a""#, r#""x":{"scope":"y"}"#, r#""redirect_uris":["a"]"#, r#""scope":["admin"]"#, r#""ſcope":"admin""#, r#""scope\u0000":"admin""#,
        ]), 0..4),
        around in prop::sample::select(vec![("{", "}"), ("{", "}{}"), ("[{", "}]"), ("\u{feff}{", "}"), (" {", "} "), ("{", ",}"), ("{", "}\0")]),
    ) {
        let body = format!("{}{}{}", around.0, members.join(","), around.1);
        let Ok(read) = RegistrationBody::read(body.as_bytes()) else { return Ok(()) };
        let written = read.with_scope("x y");
        prop_assert_eq!(laxest(&written), ["x y"]);
        let text = String::from_utf8(written).unwrap();
        prop_assert_eq!(text.matches("\"scope\":\"x y\"").count(), 1);
        prop_assert!(!text.contains("admin"), "{}", text);
    }
}
