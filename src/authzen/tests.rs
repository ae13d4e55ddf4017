use serde_json::json;

use super::response::{TupleDecision, metadata, write};
use super::*;

fn many(body: &serde_json::Value) -> Result<EvaluationRequest, EvaluationError> {
    EvaluationRequest::read_many(body.to_string().as_bytes())
}

fn tuple(action: &str, resource_type: &str) -> Tuple {
    Tuple {
        action: action.to_owned(),
        resource_type: resource_type.to_owned(),
        target: "https://a".to_owned(),
        client_id: String::new(),
        token_id: String::new(),
    }
}

#[test]
fn entities_of_an_evaluation_replace_their_defaults_as_a_whole() {
    let body = json!({
        "subject": {"type": "user", "id": "u", "properties": {"department": "Sales"}},
        "resource": {"type": "audience", "id": "https://a"},
        "context": {"client_id": "c", "jti": "t", "acr": 7},
        "future": {"nested": [1]},
        "evaluations": [
            {"action": {"name": "issue:access_token:authorization_code"}},
            {"action": {"name": "read", "properties": {}}, "resource": {"type": "protected_resource", "id": "https://b"}},
            {"action": {"name": "read"}, "context": {"jti": 1}, "subject": {"type": "client", "id": "svc"}},
        ],
        "options": {"another": "value"},
    });
    let read = many(&body).unwrap();
    assert_eq!((read.semantic, read.is_single), (EvaluationsSemantic::ExecuteAll, false));
    let tuples: Vec<_> = read.tuples.into_iter().map(Result::unwrap).collect();
    assert_eq!(tuples[0].client_id, "c");
    assert_eq!(tuples[0].token_id, "t");
    assert_eq!((&*tuples[1].target, &*tuples[1].resource_type), ("https://b", "protected_resource"));
    assert_eq!((&*tuples[2].client_id, &*tuples[2].token_id), ("svc", ""), "the context is another one");
    assert_eq!(tuples[2].target, "https://a");
}

#[test]
fn without_evaluations_a_request_is_a_single_one() {
    let whole = json!({"subject": {"type": "user", "id": "u"}, "action": {"name": "a"}, "resource": {"type": "audience", "id": "t"}});
    let mut empty = whole.clone();
    empty["evaluations"] = json!([]);
    empty["options"] = json!({"evaluations_semantic": "deny_on_first_deny"});
    for body in [&whole, &empty] {
        let read = many(body).unwrap();
        assert!(read.is_single && read.tuples.len() == 1 && read.tuples[0].is_ok());
        assert_eq!(write(&[TupleDecision::permitted()], read.is_single), r#"{"decision":true}"#);
    }
    // The Access Evaluation API knows no array.
    let mut with_array = whole;
    with_array["evaluations"] = json!(7);
    assert!(EvaluationRequest::read_one(with_array.to_string().as_bytes()).unwrap().is_single);
    assert!(many(&with_array).is_err());
}

#[test]
fn what_is_wrong_with_a_request_is_named() {
    #[track_caller]
    fn check(body: &str, expected: &str) {
        let error = EvaluationRequest::read_many(body.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{body}: {error}");
    }
    let whole = r#""subject":{"type":"u","id":"i"},"action":{"name":"n"},"resource":{"type":"t","id":"r"}"#;
    let without = |part: &str, instead: &str| format!("{{{}}}", whole.replace(part, instead));
    check("", "EOF");
    check("[]", "must be a JSON object");
    check("{\"a\":1,\"a\":2}", "duplicate member `a`");
    check(&format!("{{\"x\":{}{}}}", "[".repeat(200), "]".repeat(200)), "recursion limit");
    check(&without(r#""subject":{"type":"u","id":"i"},"#, ""), "`subject` is missing");
    check(&without(r#""action":{"name":"n"},"#, ""), "`action` is missing");
    check(&without(r#","resource":{"type":"t","id":"r"}"#, ""), "`resource` is missing");
    check(&without(r#""type":"u","#, ""), "`subject.type` is missing");
    check(&without(r#","id":"i""#, ""), "`subject.id` is missing");
    check(&without(r#""name":"n""#, ""), "`action.name` is missing");
    check(&without(r#""type":"t","#, ""), "`resource.type` is missing");
    check(&without(r#","id":"r""#, ""), "`resource.id` is missing");
    check(&without(r#"{"type":"u","id":"i"}"#, "\"alice\""), "`subject` must be an object");
    check(&without(r#""name":"n""#, "\"name\":123"), "`action.name` must be a string");
    check(&without(r#""name":"n""#, "\"name\":null"), "`action.name` is missing");
    check(
        &without(r#""name":"n""#, r#""name":"n","properties":[]"#),
        "`action.properties` must be an object",
    );
    check(&format!("{{{whole},\"context\":1}}"), "`context` must be an object");
    check(&format!("{{{whole},\"evaluations\":{{}}}}"), "`evaluations` must be an array");
    check(&format!("{{{whole},\"evaluations\":[1]}}"), "`evaluations[0]` must be an object");
    check(&format!("{{{whole},\"options\":[]}}"), "`options` must be an object");
    check(&format!("{{{whole},\"options\":{{\"evaluations_semantic\":1}}}}"), "must be a string");
    check(&format!("{{{whole},\"options\":{{\"evaluations_semantic\":\"all\"}}}}"), "`all`; it must be");
    let too_many = vec!["{}"; MAX_EVALUATIONS + 1].join(",");
    check(&format!("{{{whole},\"evaluations\":[{too_many}]}}"), "has 513 entries, the limit is 512");
    // A default that is not whole is wrong, whether or not it is used.
    check(
        &format!("{{\"subject\":{{\"id\":\"i\"}},\"evaluations\":[{{{whole}}}]}}"),
        "`subject.type` is missing",
    );
}

#[test]
fn what_is_wrong_inside_of_one_evaluation_is_its_own_denial() {
    let body = json!({
        "subject": {"type": "user", "id": "u"},
        "resource": {"type": "audience", "id": "https://a"},
        "evaluations": [{}, {"action": {"name": 1}}, {"action": {"name": "a"}}],
    });
    let read = many(&body).unwrap();
    let decisions: Vec<_> = read
        .tuples
        .iter()
        .map(|tuple| match tuple {
            Ok(_) => TupleDecision::permitted(),
            Err(error) => TupleDecision::malformed(error),
        })
        .collect();
    let written: serde_json::Value = serde_json::from_str(&write(&decisions, false)).unwrap();
    let error =
        |message: &str| json!({"decision": false, "context": {"error": {"status": 400, "message": message}}});
    assert_eq!(
        written,
        json!({"evaluations": [
            error("`evaluations[0].action` is missing"),
            error("`evaluations[1].action.name` must be a string"),
            {"decision": true},
        ]})
    );
}

#[test]
fn tuples_are_told_apart_by_the_resource_and_the_reserved_prefix() {
    use v1::TokenGrant::{ClientCredentials, JwtBearer, Refresh, TokenExchange};
    #[track_caller]
    fn check(action: &str, resource_type: &str, expected: TupleMeaning<'_>) {
        assert_eq!(tuple(action, resource_type).meaning(), expected, "{action} at {resource_type}");
    }
    for (grant, expected) in [
        ("authorization_code", GateGrant::Authorized),
        ("device_code", GateGrant::Authorized),
        ("client_credentials", GateGrant::Token(ClientCredentials)),
        ("refresh_token", GateGrant::Token(Refresh)),
        ("token_exchange", GateGrant::Token(TokenExchange)),
        ("jwt_bearer", GateGrant::Token(JwtBearer)),
        ("saml2_bearer", GateGrant::Token(JwtBearer)),
    ] {
        for token_type in TOKEN_TYPES {
            check(&format!("issue:{token_type}:{grant}"), "audience", TupleMeaning::Gate(expected));
        }
    }
    for nobody_registered in [
        "issue:",
        "issue:access_token",
        "issue:access_token:",
        "issue:access_token:password",
        "issue:nothing:refresh_token",
        "issue:access_token:refresh_token:more",
        "issue:Access_Token:refresh_token",
    ] {
        let denied = TupleMeaning::Unknown("the action is not a registered gate");
        check(nobody_registered, "audience", denied);
        check(nobody_registered, "protected_resource", TupleMeaning::Scope(nobody_registered));
    }
    check("files.read", "audience", TupleMeaning::Scope("files.read"));
    check("files.read", "protected_resource", TupleMeaning::Scope("files.read"));
    for not_one in ["", " ", "a b", " a", "a "] {
        check(not_one, "audience", TupleMeaning::Unknown("the action is not one scope"));
    }
    let unknown = "the policy knows resources of the types audience and protected_resource";
    check("read:contacts", "customer_information", TupleMeaning::Unknown(unknown));
    let without_id = Tuple { target: String::new(), ..tuple("a", "audience") };
    assert_eq!(without_id.meaning(), TupleMeaning::Unknown("the resource has no id"));
}

#[test]
fn a_question_vouches_for_the_scope_that_it_asks_about_and_no_other() {
    let asked = Tuple { client_id: "c".to_owned(), ..tuple("a", "audience") };
    let refresh = GateGrant::Token(v1::TokenGrant::Refresh);
    let TupleQuestion::Token(token) = asked.question(Some("a"), refresh, "j") else { panic!("a token") };
    assert_eq!((token.scope.as_deref(), token.granted_scope.as_deref()), (Some("a"), Some("a")));
    assert_eq!((token.grant(), &*token.correlation_id), (v1::TokenGrant::Refresh, "j"));
    assert_eq!((token.registered_scope, token.client.unwrap().client_id), (None, "c".to_owned()));
    let TupleQuestion::Authorize(authorize) =
        tuple("a", "audience").question(Some("a"), GateGrant::Authorized, "")
    else {
        panic!("an authorize request")
    };
    assert_eq!((authorize.scope.as_deref(), authorize.registered_scope.as_deref()), (Some("a"), Some("a")));
    assert_eq!((authorize.client, authorize.audiences), (None, vec!["https://a".to_owned()]));
    // Of a gate, nothing can come.
    let TupleQuestion::Token(gate) = asked.question(None, refresh, "") else { panic!("a token") };
    assert_eq!((gate.scope, gate.granted_scope.as_deref()), (None, Some("")));
}

#[test]
fn the_grant_of_a_scope_is_that_of_the_gate_of_its_target() {
    let at =
        |action: &str, target: &str| Ok(Tuple { target: target.to_owned(), ..tuple(action, "audience") });
    let refresh = GateGrant::Token(v1::TokenGrant::Refresh);
    let tuples = [
        Err(EvaluationError::NotAnObject),
        at("issue:access_token:refresh_token", "a"),
        at("issue:access_token:authorization_code", "b"),
        at("read", "a"),
    ];
    let gates = gates(&tuples);
    assert_eq!(gates, [("a", refresh), ("b", GateGrant::Authorized)]);
    assert_eq!(grant_of(&gates, "a"), refresh);
    assert_eq!(grant_of(&gates, "b"), GateGrant::Authorized);
    assert_eq!(grant_of(&gates, "behind"), refresh);
    assert_eq!(grant_of(&[], "a"), GateGrant::Authorized);
}

#[test]
fn a_permit_is_what_was_asked_about_and_has_no_context() {
    let allowed = |scope: &str| v1::CheckTokenScopesResponse {
        decision: v1::Decision::Allow.into(),
        scope: scope.to_owned(),
        ..Default::default()
    };
    let of = |scope, answer: &v1::CheckTokenScopesResponse| TupleDecision::answered(scope, answer.into());
    assert_eq!(write(&[of(Some("a"), &allowed("b a"))], true), r#"{"decision":true}"#);
    for answer in [allowed("b"), allowed("ab"), v1::CheckTokenScopesResponse { decision: 0, ..allowed("a") }]
    {
        assert!(!of(Some("a"), &answer).is_permitted, "{answer:?}");
    }
    assert!(!of(None, &allowed("a")).is_permitted, "a gate was not asked about a scope");
    let denied = v1::CheckTokenScopesResponse {
        decision: v1::Decision::Deny.into(),
        reason: v1::Reason::NothingGranted.into(),
        decision_id: "d".to_owned(),
        refused: vec![v1::RefusedScope {
            scope: "a".to_owned(),
            reason: v1::Reason::Forbidden.into(),
            message: "m".to_owned(),
        }],
        ..Default::default()
    };
    let written = write(&[of(Some("a"), &denied)], true);
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&written).unwrap(),
        json!({"decision": false, "context": {"reason": "FORBIDDEN", "reason_admin": {"403": "m"}, "decision_id": "d"}})
    );
}

#[test]
fn short_circuits_end_with_what_they_look_for() {
    use EvaluationsSemantic::{DenyOnFirstDeny, ExecuteAll, PermitOnFirstPermit};
    for (semantic, on_permit, on_deny) in
        [(ExecuteAll, false, false), (DenyOnFirstDeny, false, true), (PermitOnFirstPermit, true, false)]
    {
        assert_eq!((semantic.ends_with(true), semantic.ends_with(false)), (on_permit, on_deny));
    }
}

#[test]
fn a_correlation_id_is_the_first_that_can_be_one() {
    let long = "x".repeat(129);
    assert_eq!(correlation_id(&["", "a\u{7}", &long, "token-7", "request-7"]), "token-7");
    assert_eq!(correlation_id(&["", "ü"]), "");
}

#[test]
fn metadata_names_the_endpoints_and_the_profile() {
    let read: serde_json::Value = serde_json::from_str(&metadata("https://pdp.example.com")).unwrap();
    assert_eq!(
        read,
        json!({
            "policy_decision_point": "https://pdp.example.com",
            "access_evaluation_endpoint": "https://pdp.example.com/access/v1/evaluation",
            "access_evaluations_endpoint": "https://pdp.example.com/access/v1/evaluations",
            "capabilities": ["urn:openid:authzen:capability:token-issuance"],
        })
    );
}
