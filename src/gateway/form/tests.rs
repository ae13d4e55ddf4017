use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use proptest::prelude::*;

use super::*;

#[track_caller]
fn check(form: &str, expected: Result<OAuthRequest<'_>, FormRefusal>) {
    assert_eq!(OAuthRequest::read(form.as_bytes()), expected, "{form:?}");
}

fn text(text: &str) -> Option<Cow<'_, str>> {
    Some(text.into())
}

#[test]
fn parameters_are_decoded() {
    check("", Ok(OAuthRequest::default()));
    check("&&x=1&x=2&=&a;b=c", Ok(OAuthRequest::default()));
    check("scope", Ok(OAuthRequest { scope: text(""), ..Default::default() }));
    check(
        "client_id=a%2Bb&scope=x+y%20z&redirect_uri=https%3A%2F%2Fa&state=%0A=&resource=r&resource=&resource=s&request_uri=u",
        Ok(OAuthRequest {
            client_id: text("a+b"),
            scope: text("x y z"),
            redirect_uri: text("https://a"),
            state: text("\n="),
            resources: vec!["r".into(), "s".into()],
            request_uri: text("u"),
            ..Default::default()
        }),
    );
}

#[test]
fn a_name_is_told_as_it_is_read() {
    for name in [
        "scope",
        "client_id",
        "redirect_uri",
        "response_type",
        "response_mode",
        "state",
        "resource",
        "request",
        "request_uri",
        "client_assertion",
        "login_verifier",
        "consent_verifier",
        "_charset_",
        "_method",
    ] {
        assert_eq!(FormName::of(name.as_bytes()).map(FormName::as_str), Some(name));
    }
}

#[test]
fn only_what_is_decoded_is_copied() {
    let form = b"scope=x&client_id=a%2Bb&state=y%20z&resource=r";
    let OAuthRequest { scope, client_id, state, resources, .. } = OAuthRequest::read(form).unwrap();
    assert!(matches!((scope, client_id), (Some(Cow::Borrowed("x")), Some(Cow::Owned(_)))));
    assert!(matches!((state, &*resources), (Some(Cow::Owned(_)), [Cow::Borrowed("r")])));
}

#[test]
fn what_parsers_read_differently_is_refused() {
    use FormRefusal::{Control, Duplicate, NotAccepted, Separator, Spelling, TooLong, TooMany, Value};
    for name in ["scope", "client_id", "redirect_uri", "request_uri", "state", "login_verifier", "request"] {
        check(&format!("{name}=&x=1&{name}=a"), Err(Duplicate { name }));
        check(&format!("{name}&{name}"), Err(Duplicate { name }));
    }
    for (raw, spelling) in [
        ("s%63ope", "scope"),
        ("Scope", "Scope"),
        ("scope%00", "scope\0"),
        ("scope[]", "scope[]"),
        ("+scope", " scope"),
        ("scope%20", "scope "),
        ("%73%63%6f%70%65", "scope"),
        ("?scope", "?scope"),
        ("%EF%BB%BFscope", "\u{feff}scope"),
        ("%C5%BFcope", "\u{17f}cope"),
        ("scope%5B0%5D", "scope[0]"),
    ] {
        let form = format!("a=b&{raw}=x");
        let found = OAuthRequest::read(form.as_bytes());
        assert!(matches!(&found, Err(Spelling { name: "scope", .. })), "{raw} {spelling} {found:?}");
    }
    assert!(matches!(OAuthRequest::read(b"s%2563ope=x"), Err(Spelling { name: "scope", .. })));
    assert!(matches!(OAuthRequest::read(b"client.id=x"), Err(Spelling { name: "client_id", .. })));
    check("a=b;scope=x", Err(Separator { name: "scope" }));
    check("scope=a;b", Err(Separator { name: "scope" }));
    check("client_id=a;redirect_uri=b", Err(Separator { name: "client_id" }));
    check("a=b;c=d", Ok(OAuthRequest::default()));
    check("scope=a%3Bb", Ok(OAuthRequest { scope: text("a;b"), ..Default::default() }));
    for value in ["%", "%4", "%zz", "%ff", "%c0%af", "a%00", "\u{e9}"] {
        check(&format!("scope={value}"), Err(Value { name: "scope" }));
        check(&format!("resource={value}"), Err(Value { name: "resource" }));
        check(&format!("other={value}"), Ok(OAuthRequest::default()));
    }
    check("_charset_=utf-7", Err(NotAccepted { name: "_charset_" }));
    check("_method=PUT", Err(NotAccepted { name: "_method" }));
    check("a=b\0&scope=x", Err(Control));
    check("a=b\r\nscope=x", Err(Control));
    check(&"a&".repeat(MAX_PAIRS), Err(TooMany));
    check(&"a".repeat(MAX_FORM_BYTES + 1), Err(TooLong));
}

#[test]
fn only_the_scope_pair_changes() {
    #[track_caller]
    fn check(form: &str, scope: &str, expected: &str) {
        let written = with_scope(form.as_bytes(), scope);
        assert_eq!(String::from_utf8_lossy(&written), expected, "{form:?}");
    }
    check("a=%7e&scope=x+y&b", "x", "a=%7e&scope=x&b");
    check("scope", "x y", "scope=x%20y");
    check("", "x", "scope=x");
    check("&a=1&", "x", "scope=x&&a=1&");
    check("a=1", "mcp:read*;+%&=", "scope=mcp%3Aread%2A%3B%2B%25%26%3D&a=1");
    check("scope=a=b&c", "", "scope=&c");
    check("a&scope=mcp:read%20x&b", "mcp:read x", "a&scope=mcp:read%20x&b");
    check("a&scope=mcp:read+x&b", "mcp:read x", "a&scope=mcp%3Aread%20x&b");
    check("scope&c", "", "scope&c");
}

#[test]
fn a_login_of_hydra_is_continued_by_exactly_one_verifier() {
    #[track_caller]
    fn check(form: &str, expected: bool) {
        assert_eq!(OAuthRequest::read(form.as_bytes()).unwrap().continues_login(), expected, "{form}");
    }
    check("login_verifier=a", true);
    check("scope=x&consent_verifier=a.b-c", true);
    check("", false);
    check("login_verifier=", false);
    check("login_verifier=%20", false);
    check("login_verifier=%C2%A0", false);
    check("login_verifier=a&consent_verifier=", false);
    check("login_verifier=a&consent_verifier=b", false);
}

#[test]
fn a_client_is_named_by_one_of_three_or_by_all_alike() {
    #[track_caller]
    fn check(form: &str, basic: Option<&str>, expected: Result<Option<&str>, FormRefusal>) {
        let header = basic.map(|basic| format!("bAsIc {}", BASE64_STANDARD.encode(basic)));
        let client =
            OAuthRequest::read(form.as_bytes()).unwrap().client(header.as_deref().map(str::as_bytes));
        assert_eq!(client, expected.map(|client| client.map(Cow::from)), "{form} {basic:?}");
    }
    let assertion = |payload: &str| {
        let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        format!("client_assertion={}.{}.x", part("{}"), part(payload))
    };
    let refused = Err(FormRefusal::Credentials);
    check("", None, Ok(None));
    check("client_id=", None, Ok(None));
    check("client_id=a", None, Ok(Some("a")));
    check("", Some("a%3Ab:secret"), Ok(Some("a:b")));
    check("client_id=a", Some("a:"), Ok(Some("a")));
    check("client_id=a", Some("b:"), refused.clone());
    check("", Some("a"), refused.clone());
    check("", Some(":x"), refused.clone());
    check("", Some("a%:x"), refused.clone());
    check(&assertion(r#"{"sub":"a"}"#), None, Ok(Some("a")));
    check(&assertion(r#"{"sub":"a"}"#), Some("b:x"), refused.clone());
    check(&assertion(r#"{"iss":"a"}"#), None, refused.clone());
    check("client_assertion=x", None, refused.clone());
    let request = OAuthRequest::default();
    assert_eq!(request.client(Some(b"Bearer x")), Ok(None));
    assert_eq!(request.client(Some(b"Basic !")), Err(FormRefusal::Credentials));
}

#[test]
fn bodies_are_forms_in_utf_8() {
    #[track_caller]
    fn check(value: &str, expected: bool) {
        assert_eq!(check_content_type(value.as_bytes()).is_ok(), expected, "{value:?}");
    }
    check("application/x-www-form-urlencoded", true);
    check("Application/X-WWW-Form-Urlencoded; charset=UTF-8", true);
    check("application/x-www-form-urlencoded;charset=\"utf-8\"", true);
    for value in [
        "",
        "multipart/form-data; boundary=x",
        "application/json",
        "application/x-www-form-urlencoded; charset=utf-16",
        "application/x-www-form-urlencoded; charset=ibm037",
        "application/x-www-form-urlencoded, text/plain",
        "application/x-www-form-urlencoded; boundary=x",
        "application/x-www-form-urlencoded;",
    ] {
        check(value, false);
    }
}

#[test]
fn the_query_of_a_post_has_nothing_that_counts() {
    check_query_of_post(b"tenant=a&x").unwrap();
    check_query_of_post(b"").unwrap();
    for query in ["scope=a", "client_id=a", "resource=r", "x&request=a"] {
        assert!(matches!(check_query_of_post(query.as_bytes()), Err(FormRefusal::InQuery { .. })), "{query}");
    }
    assert!(matches!(check_query_of_post(b"Scope=a"), Err(FormRefusal::Spelling { .. })));
}

/// How one server might read the scope of a form.
#[derive(Clone, Copy, Debug)]
struct Reader {
    separates_at_semicolon: bool,
    takes_last: bool,
    ignores_case: bool,
    /// How often names are decoded.
    decodes: usize,
    plus_is_space: bool,
    trims: bool,
}

impl Reader {
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

    fn scope(self, form: &[u8]) -> Option<Vec<u8>> {
        let is_separator = |byte: &u8| *byte == b'&' || self.separates_at_semicolon && *byte == b';';
        let mut pairs = form.split(is_separator).filter_map(|piece| {
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
            (name == b"scope").then(|| self.decode(value))
        });
        if self.takes_last { pairs.next_back() } else { pairs.next() }
    }

    fn decode(self, raw: &[u8]) -> Vec<u8> {
        let spaced: Vec<u8> =
            raw.iter().map(|byte| if *byte == b'+' && self.plus_is_space { b' ' } else { *byte }).collect();
        percent_decode(&spaced).collect()
    }
}

/// Pieces that make trouble, in any order and number, and any bytes.
fn forms() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![
            "scope=admin", "scope=", "scope", "scope=a+b", "scope=a%20b", "client_id=c", "client_id=d", "redirect_uri=https%3A%2F%2Fa",
            "s%63ope=admin", "Scope=admin", "SCOPE=admin", "scope%20=admin", "+scope=admin", "s%2563ope=admin", "a=b;scope=admin",
            ";scope=admin", "scope=a;scope=admin", "state=x", "resource=r", "x=%zz", "%=1", "=", "scope=%zz", "scope[]=admin",
            "\u{feff}scope=admin", "x=scope=admin", "scope=admin%00", "scope\0=admin", "login_verifier=", "_method=GET",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..12),
        1 => "[scopeSCOPE%0-9a-f+;=&. ]{0,16}".prop_map(String::into_bytes),
    ];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.join(&b'&'))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn what_is_looked_at_once_is_what_a_close_look_reads(form in forms()) {
        // A pair that is nobody's business, with what makes each pair be looked at closely.
        let closely = [&form, &b"x=;%78"[..]].join(&b'&');
        prop_assert_eq!(OAuthRequest::read(&form), OAuthRequest::read(&closely));
    }

    #[test]
    fn every_reader_reads_the_decided_scope_and_nothing_else_changes(form in forms(), scope in "[a-c:*;+%&=]{1,4}( [a-c.]{1,3}){0,2}") {
        let Ok(before) = OAuthRequest::read(&form) else { return Ok(()) };
        let written = with_scope(&form, &scope);
        for reader in Reader::all() {
            let read = reader.scope(&written);
            prop_assert_eq!(read.as_deref(), Some(scope.as_bytes()), "{:?}", reader);
        }
        let others = |form: &[u8]| -> Vec<Vec<u8>> {
            let pieces = form.split(|byte| *byte == b'&').filter(|piece| split_pair(piece).0 != b"scope");
            pieces.map(<[u8]>::to_vec).collect()
        };
        // An empty query has one empty piece.
        if !form.is_empty() {
            prop_assert_eq!(others(&written), others(&form));
        }
        let after = OAuthRequest::read(&written).unwrap();
        prop_assert_eq!(after, OAuthRequest { scope: Some(scope.into()), ..before });
    }
}
