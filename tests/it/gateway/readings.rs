//! Whatever request is sent, what the strictest and the laxest of upstreams read as its scope is within the decision.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use percent_encoding::percent_decode;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use scopeward::server::gateway::settings::RequestObjects;
use scopeward::strict_json::StrictJson;
use serde_json::Value;

use super::upstream::{Seen, Upstream};
use super::{Gateway, post};

/// What the client `c1` holds under the policy: what it registers below, and the baseline. All others hold nothing.
const HELD: [&str; 3] = ["openid", "offline_access", "mcp:read"];
/// What a registration may have: what is supported and not forbidden.
const REGISTRABLE: [&str; 5] = ["openid", "offline_access", "mcp:read", "mcp:write", "root"];

/// How one server might read a form.
#[derive(Clone, Copy, Debug)]
struct FormReader {
    separates_at_semicolon: bool,
    takes_last: bool,
    ignores_case: bool,
    plus_is_space: bool,
    trims: bool,
    /// How often names are decoded.
    decodes: usize,
}

impl FormReader {
    fn all() -> impl Iterator<Item = Self> {
        (0..96).map(|bits| Self {
            separates_at_semicolon: bits & 1 != 0,
            takes_last: bits & 2 != 0,
            ignores_case: bits & 4 != 0,
            plus_is_space: bits & 8 != 0,
            trims: bits & 16 != 0,
            decodes: bits / 32,
        })
    }

    fn read(self, form: &[u8], wanted: &str) -> Option<String> {
        let is_separator = |byte: &u8| *byte == b'&' || self.separates_at_semicolon && *byte == b';';
        let mut values = form.split(is_separator).filter_map(|piece| {
            let (name, value) = match piece.iter().position(|byte| *byte == b'=') {
                Some(at) => (&piece[..at], &piece[at + 1..]),
                None => (piece, &[][..]),
            };
            let mut name = name.to_vec();
            for _ in 0..self.decodes {
                name = self.decode(&name);
            }
            if self.trims {
                name = name.trim_ascii().to_vec();
            }
            if self.ignores_case {
                name.make_ascii_lowercase();
            }
            (name == wanted.as_bytes()).then(|| String::from_utf8_lossy(&self.decode(value)).into_owned())
        });
        if self.takes_last { values.next_back() } else { values.next() }
    }

    fn decode(self, raw: &[u8]) -> Vec<u8> {
        let space = |byte: &u8| if *byte == b'+' && self.plus_is_space { b' ' } else { *byte };
        percent_decode(&raw.iter().map(space).collect::<Vec<_>>()).collect()
    }
}

fn tokens(scope: &str) -> Vec<&str> {
    let mut tokens: Vec<&str> = scope.split(' ').collect();
    tokens.sort_unstable();
    tokens
}

/// Every reader reads the same scope in a form that arrived, and it is within what the client holds.
fn check_form(seen: &Seen) -> Result<(), TestCaseError> {
    let query = seen.target.split_once('?').map_or("", |(_, query)| query).as_bytes();
    // Servers read the query, the body, or both, in either order.
    let forms = match seen.method.as_str() {
        "POST" => {
            let both = [&seen.body, &b"&"[..], query].concat();
            let other = [query, b"&", &seen.body].concat();
            vec![seen.body.clone(), both, other]
        }
        _ => vec![query.to_vec()],
    };
    let strictest = FormReader::all().next().unwrap().read(&forms[0], "scope");
    // What was pushed through the gateway was decided then, and needs no scope next to it.
    let is_pushed = |uri: &str| uri == "urn:par:1";
    let readers = || forms.iter().flat_map(|form| FormReader::all().map(move |reader| (reader, form)));
    if readers().all(|(reader, form)| reader.read(form, "request_uri").is_some_and(|uri| is_pushed(&uri)))
        && readers().all(|(reader, form)| reader.read(form, "scope").is_none())
    {
        return Ok(());
    }
    prop_assert!(strictest.is_some(), "a request without a scope arrived: {:?}", seen);
    let scope = strictest.unwrap();
    for token in tokens(&scope) {
        prop_assert!(HELD.contains(&token), "`{}` in {:?}", token, seen);
    }
    for form in &forms {
        for reader in FormReader::all() {
            let read = reader.read(form, "scope");
            prop_assert_eq!(read.as_deref(), Some(scope.as_str()), "{:?} {:?}", reader, seen);
            // A request object counts before what is next to it.
            if let Some(object) = reader.read(form, "request").filter(|object| !object.is_empty()) {
                check_object(&object, &scope)?;
            }
            let foreign = reader.read(form, "request_uri").filter(|uri| !uri.is_empty() && !is_pushed(uri));
            prop_assert_eq!(foreign, None, "{:?}", seen);
        }
    }
    Ok(())
}

fn check_object(object: &str, granted: &str) -> Result<(), TestCaseError> {
    let parts: Vec<&str> = object.split('.').collect();
    prop_assert_eq!(parts.len(), 3, "no encrypted object passes: {}", object);
    let payload = BASE64_URL_SAFE_NO_PAD.decode(parts[1]).unwrap();
    for scope in scopes_of_json(&payload) {
        prop_assert_eq!(tokens(&scope), tokens(granted), "{}", String::from_utf8_lossy(&payload));
    }
    prop_assert!(!scopes_of_json(&payload).is_empty());
    Ok(())
}

/// The scopes that servers read in JSON: those of all members that fold to the name, each of equal ones.
fn scopes_of_json(text: &[u8]) -> Vec<String> {
    // Of equal members `serde_json` shows the last, and other parsers the first.
    if StrictJson::read(text).is_err() {
        return vec!["several".to_owned()];
    }
    let value: Value = serde_json::from_slice(text).unwrap();
    let members = value.as_object().unwrap().iter();
    members
        .filter(|(name, _)| name.to_uppercase().trim() == "SCOPE")
        .map(|(_, value)| value.as_str().unwrap_or("not a string").to_owned())
        .collect()
}

fn check_registration(seen: &Seen) -> Result<(), TestCaseError> {
    let scopes = scopes_of_json(&seen.body);
    prop_assert_eq!(scopes.len(), 1, "{:?}", seen.text());
    for token in tokens(&scopes[0]) {
        prop_assert!(REGISTRABLE.contains(&token), "`{}` in {:?}", token, seen.text());
    }
    Ok(())
}

fn object(header: &str, payload: &str) -> String {
    let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    format!("request={}.{}.c2ln", part(header), part(payload))
}

/// Pieces of a form that make trouble, in any number and order.
fn forms() -> impl Strategy<Value = String> {
    let mut pieces: Vec<String> = [
        "scope=openid",
        "scope=openid+mcp:read",
        "scope=mcp%3Aread%20openid",
        "scope=openid+admin",
        "scope=",
        "scope",
        "scope=mcp:write",
        "client_id=c1",
        "client_id=c1",
        "client_id=c1",
        "client_id=other",
        "s%63ope=admin",
        "Scope=admin",
        "+scope=admin",
        "s%2563ope=admin",
        "a=b;scope=admin",
        "scope=openid;scope=admin",
        "scope[]=admin",
        "scope%00=admin",
        "state=x%2by",
        "resource=https%3A%2F%2Fmcp.example.com",
        "resource=https%3A%2F%2Fother.example.com",
        "request_uri=https%3A%2F%2Fevil.example%2Fo",
        "request_uri=urn:par:1",
        "request=",
        "login_verifier=x",
        "redirect_uri=https%3A%2F%2Fclient.example%2Fcb",
        "_method=GET",
        "x=%zz",
        "scope=%zz",
        "response_type=code",
        "",
    ]
    .map(str::to_owned)
    .to_vec();
    pieces.extend([
        object("{}", r#"{"scope":"openid"}"#),
        object(r#"{"alg":"none"}"#, r#"{"scope":"openid mcp:read","client_id":"c1"}"#),
        object("{}", r#"{"scope":"openid","Scope":"admin"}"#),
        object("{}", r#"{"scope":"admin","scope":"openid"}"#),
        object("{}", r#"{"scope":"openid admin"}"#),
        object("{}", r#"{"client_id":"c1"}"#),
        object("{}", r#"{"scope":"openid","request_uri":"https://evil.example/o"}"#),
        object(r#"{"zip":"DEF"}"#, r#"{"scope":"openid"}"#),
        "request=a.b.c.d.e".to_owned(),
    ]);
    let any =
        prop::collection::vec(prop::sample::select(pieces.clone()), 1..6).prop_map(|pieces| pieces.join("&"));
    // Most that are drawn are refused, so others are nearly in order.
    let plain = (
        prop::sample::select(vec![
            "scope=openid".to_owned(),
            "scope=openid+mcp:read".to_owned(),
            "state=x%2by".to_owned(),
            object("{}", r#"{"scope":"openid"}"#),
            object(r#"{"alg":"none"}"#, r#"{"scope":"openid mcp:read offline_access","client_id":"c1"}"#),
        ]),
        prop::option::of(prop::sample::select(pieces)),
    );
    let plain = plain.prop_map(|(piece, other)| match other {
        Some(other) => format!("client_id=c1&{other}&{piece}"),
        None => format!("client_id=c1&{piece}"),
    });
    prop_oneof![any, plain]
}

fn bodies() -> impl Strategy<Value = String> {
    let members = prop::sample::select(vec![
        r#""scope":"openid""#,
        r#""scope":"openid mcp:read""#,
        r#""scope":"admin""#,
        r#""Scope":"admin""#,
        r#""\u0073cope":"admin""#,
        r#""scope":null"#,
        r#""scope":["admin"]"#,
        r#""ſcope":"admin""#,
        r#""client_id":"c1""#,
        r#""redirect_uris":["https://client.example/cb"]"#,
        r#""x":{"scope":"admin"}"#,
        r#""scope":"openid root""#,
    ]);
    let around = prop::sample::select(vec![
        ("{", "}"),
        ("{", "}"),
        ("{", "} {}"),
        ("[{", "}]"),
        ("\u{feff}{", "}"),
        ("", ""),
    ]);
    (prop::collection::vec(members, 0..4), around)
        .prop_map(|(members, (open, close))| format!("{open}{}{close}", members.join(",")))
}

/// A whole request.
fn requests() -> impl Strategy<Value = String> {
    const FORM: &str = "application/x-www-form-urlencoded";
    let get = |target: String| format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let endpoints = || prop::sample::select(vec!["/authorize", "/par", "/device", "/bc"]);
    let spelling = prop::sample::select(vec![
        "/authorize",
        "/authorize",
        "/authorize",
        "/%61uthorize",
        "//authorize",
        "/authorize/",
        "/x/../authorize",
    ]);
    prop_oneof![
        3 => (spelling, forms()).prop_map(move |(path, form)| get(format!("{path}?{form}"))),
        3 => (endpoints(), forms()).prop_map(|(path, form)| post(path, FORM, &form)),
        1 => (endpoints(), forms(), forms()).prop_map(|(path, query, form)| post(&format!("{path}?{query}"), FORM, &form)),
        2 => bodies().prop_map(|body| post("/register", "application/json", &body)),
        1 => bodies().prop_map(|body| post("/register/c1", "application/json", &body).replacen("POST", "PUT", 1)),
        1 => forms().prop_map(|form| post("/register", FORM, &form)),
    ]
}

#[test]
fn every_reading_of_what_arrives_is_within_the_decision() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let upstream = runtime.block_on(Upstream::start());
    let start = Gateway::start_with(upstream.addr, |gateway| gateway.request_objects = RequestObjects::Match);
    let gateway = runtime.block_on(start).unwrap();
    let register = r#"{"scope":"openid mcp:read","redirect_uris":["https://client.example/cb"]}"#;
    let mut arrived = [0; 3];
    let mut cases = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(cases()) });
    // What updates change is put back before each case.
    let put = post("/register/c1", "application/json", register).replacen("POST", "PUT", 1);
    assert_eq!(runtime.block_on(gateway.register(register)).json()["client_id"], "c1");
    upstream.take();
    let counted = std::cell::RefCell::new(&mut arrived);
    cases
        .run(&requests(), |request| {
            let answer = runtime.block_on(gateway.send(&request));
            prop_assert!((200..500).contains(&answer.status), "{} {:?}", request, answer);
            let mut counted = counted.borrow_mut();
            for seen in upstream.take() {
                if seen.path().starts_with("/register") {
                    check_registration(&seen)?;
                    counted[0] += 1;
                } else {
                    check_form(&seen)?;
                    counted[1] += 1;
                    counted[2] += usize::from(request.contains("request=ey"));
                }
            }
            if request.starts_with("PUT") && answer.status < 300 {
                let answer = runtime.block_on(gateway.send(&put));
                assert_eq!(answer.status, 201, "{answer:?}");
                upstream.take();
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    println!("{arrived:?} registrations, logins, and of these with an object arrived");
    assert!(arrived.iter().all(|count| *count > 0), "{arrived:?}: some of each pass");
    runtime.block_on(gateway.stop());
}

/// `TEST_GATEWAY_CASES` draws as many, others each time.
fn cases() -> u32 {
    std::env::var("TEST_GATEWAY_CASES").map_or(600, |cases| cases.parse().unwrap())
}
