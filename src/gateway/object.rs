//! Request objects (RFC 9101, OpenID Connect Core 1.0 section 6): parameters of an authorize request inside of a JWT.
//!
//! Such an object cannot be written again without its key, so it passes only if it says exactly what a decision grants. Its
//! signature is for the authorization server to check; here it is read as if it were valid.

use std::borrow::Cow;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::fold::other_spelling;
use super::form::OAuthRequest;
use crate::scope;
use crate::strict_json::StrictJson;

/// The members that are read.
const MEMBERS: [&str; 12] = [
    "scope",
    "client_id",
    "redirect_uri",
    "response_type",
    "response_mode",
    "state",
    "resource",
    "request",
    "request_uri",
    "login_verifier",
    "consent_verifier",
    "sub",
];

/// Why a request object is refused; `invalid_request_object` in each case.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ObjectRefusal {
    /// Not three parts, each base64url without padding: an encrypted one, or none at all.
    #[error("the request object is not a JWT that can be read here")]
    Unreadable,
    /// A header or payload that is not strict JSON, or that has a member in another spelling or of another type.
    #[error("the {0} of the request object is malformed")]
    Malformed(&'static str),
    /// A header that changes how the payload is read.
    #[error("header `{0}` of the request object is not accepted")]
    Header(&'static str),
    /// An object in an object (RFC 9101 section 4).
    #[error("the request object has a `{0}`")]
    Nested(&'static str),
    /// It has no scope, so that some servers take the one of the query and others none.
    #[error("the request object has no scope")]
    NoScope,
    /// A parameter that is not the same inside and outside of it.
    #[error("`{0}` is not the same in the request object and next to it")]
    Differs(&'static str),
    /// The decision grants another scope.
    #[error("the scope of the request object is not what is granted")]
    Scope,
}

/// The request that an object in it makes: what is in the object counts, and what is there twice must be the same.
///
/// The scope is that of the object; the one next to it does not count and is to be replaced by what is granted.
///
/// # Errors
/// If the object cannot be read, or is read differently by servers in common use.
pub fn effective<'f>(request: &OAuthRequest<'f>) -> Result<OAuthRequest<'f>, ObjectRefusal> {
    let object = request.request.as_deref().unwrap_or_default();
    let payload = payload(object)?;
    for name in ["request", "request_uri", "login_verifier", "consent_verifier"] {
        if payload.get(name).is_some() {
            return Err(ObjectRefusal::Nested(name));
        }
    }
    let mut effective = request.clone();
    effective.scope = Some(text(&payload, "scope")?.ok_or(ObjectRefusal::NoScope)?.into());
    for (name, outer) in [
        ("client_id", &mut effective.client_id),
        ("redirect_uri", &mut effective.redirect_uri),
        ("response_type", &mut effective.response_type),
        ("response_mode", &mut effective.response_mode),
        ("state", &mut effective.state),
    ] {
        let Some(inner) = text(&payload, name)? else { continue };
        if outer.as_ref().is_some_and(|outer| **outer != inner) {
            return Err(ObjectRefusal::Differs(name));
        }
        *outer = Some(inner.into());
    }
    let malformed = ObjectRefusal::Malformed("payload");
    let inner: Vec<Cow<'f, str>> = match payload.get("resource") {
        None => Vec::new(),
        Some(StrictJson::Array(entries)) => entries
            .iter()
            .map(|entry| entry.as_str().map(|entry| entry.to_owned().into()))
            .collect::<Option<_>>()
            .ok_or(malformed)?,
        Some(value) => vec![value.as_str().ok_or(malformed)?.to_owned().into()],
    };
    if !inner.is_empty() {
        if !effective.resources.is_empty() && effective.resources != inner {
            return Err(ObjectRefusal::Differs("resource"));
        }
        effective.resources = inner;
    }
    Ok(effective)
}

/// Checks that an object may pass: its scope has the tokens of the granted one, each once, in whatever order.
///
/// # Errors
/// [`ObjectRefusal::Scope`] if it has not.
pub fn check_granted(asked: &str, granted: &str) -> Result<(), ObjectRefusal> {
    let sorted = |scope| {
        let mut tokens: Vec<&str> = scope::tokens(scope).collect();
        tokens.sort_unstable();
        tokens
    };
    if sorted(asked) == sorted(granted) { Ok(()) } else { Err(ObjectRefusal::Scope) }
}

/// The subject of a JWT; `None` if it has none, or cannot be read.
pub(super) fn subject(jwt: &str) -> Option<String> {
    text(&payload(jwt).ok()?, "sub").ok()?.filter(|subject| !subject.is_empty())
}

/// The payload of a JWT in the compact form (RFC 7515 section 7.1), signed or not.
pub(super) fn payload(jwt: &str) -> Result<StrictJson, ObjectRefusal> {
    let mut parts = jwt.split('.');
    let (Some(header), Some(payload), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(ObjectRefusal::Unreadable);
    };
    let header = part(header, "header")?;
    // `b64` (RFC 7797) and `zip` change the payload, `enc` is of an encrypted one, and `crit` names what is not known here.
    for name in ["crit", "b64", "zip", "enc"] {
        if header.get(name).is_some() {
            return Err(ObjectRefusal::Header(name));
        }
    }
    if header
        .get("cty")
        .is_some_and(|inner| inner.as_str().is_none_or(|inner| !inner.eq_ignore_ascii_case("json")))
    {
        return Err(ObjectRefusal::Header("cty"));
    }
    let payload = part(payload, "payload")?;
    if other_spelling(&payload, &MEMBERS).is_some() {
        return Err(ObjectRefusal::Malformed("payload"));
    }
    Ok(payload)
}

fn part(text: &str, what: &'static str) -> Result<StrictJson, ObjectRefusal> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| ObjectRefusal::Unreadable)?;
    let read = StrictJson::read(&bytes).map_err(|_| ObjectRefusal::Malformed(what))?;
    if read.members().is_none() {
        return Err(ObjectRefusal::Malformed(what));
    }
    Ok(read)
}

fn text(payload: &StrictJson, name: &str) -> Result<Option<String>, ObjectRefusal> {
    match payload.get(name) {
        None => Ok(None),
        Some(value) => Ok(Some(value.as_str().ok_or(ObjectRefusal::Malformed("payload"))?.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(header: &str, payload: &str) -> String {
        let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.c2ln", part(header), part(payload))
    }

    #[track_caller]
    fn check(form: &str, header: &str, payload: &str, expected: Result<OAuthRequest<'_>, ObjectRefusal>) {
        let request = jwt(header, payload);
        let form = format!("{form}&request={request}");
        let read = OAuthRequest::read(form.as_bytes()).unwrap();
        let expected = expected.map(|expected| OAuthRequest { request: Some(request.into()), ..expected });
        assert_eq!(effective(&read), expected, "{form} {header} {payload}");
    }

    #[test]
    fn what_is_in_the_object_counts() {
        let text = |text: &'static str| Some(text.into());
        let base = OAuthRequest { scope: text("a b"), client_id: text("c"), ..Default::default() };
        check("client_id=c&scope=z", "{}", r#"{"scope":"a b"}"#, Ok(base.clone()));
        check(
            "client_id=c",
            r#"{"alg":"none"}"#,
            r#"{"scope":"a b","client_id":"c","iss":"x"}"#,
            Ok(base.clone()),
        );
        let full = OAuthRequest {
            redirect_uri: text("https://a/cb"),
            state: text("s"),
            resources: vec!["https://r".into()],
            ..base
        };
        let payload = r#"{"scope":"a b","redirect_uri":"https://a/cb","state":"s","resource":"https://r"}"#;
        check("client_id=c", r#"{"alg":"RS256","typ":"oauth-authz-req+jwt"}"#, payload, Ok(full.clone()));
        check("client_id=c&state=s&resource=https://r", "{}", payload, Ok(full));
    }

    #[test]
    fn what_servers_read_differently_is_refused() {
        use ObjectRefusal::{Differs, Header, Malformed, Nested, NoScope, Unreadable};
        let fails = |form: &str, payload: &str, expected| check(form, "{}", payload, Err(expected));
        fails("client_id=c&scope=a", r#"{"client_id":"c"}"#, NoScope);
        fails("", r#"{"scope":null}"#, NoScope);
        fails("", r#"{"scope":["a"]}"#, Malformed("payload"));
        fails("", r#"{"Scope":"b","scope":"a"}"#, Malformed("payload"));
        fails("", r#"{"scope":"b","scope":"a"}"#, Malformed("payload"));
        fails("", r#""a""#, Malformed("payload"));
        fails("client_id=c", r#"{"scope":"a","client_id":"d"}"#, Differs("client_id"));
        fails(
            "redirect_uri=https://a",
            r#"{"scope":"a","redirect_uri":"https://b"}"#,
            Differs("redirect_uri"),
        );
        fails(
            "resource=https://a",
            r#"{"scope":"a","resource":["https://a","https://b"]}"#,
            Differs("resource"),
        );
        fails("", r#"{"scope":"a","request":"x"}"#, Nested("request"));
        fails("", r#"{"scope":"a","request_uri":"x"}"#, Nested("request_uri"));
        for name in ["crit", "b64", "zip", "enc", "cty"] {
            check("", &format!(r#"{{"{name}":"JWT"}}"#), r#"{"scope":"a"}"#, Err(Header(name)));
        }
        check("", "[]", r#"{"scope":"a"}"#, Err(Malformed("header")));
        for object in ["", "a", "a.b", "a.b.c.d.e", "e30=.e30=.x", "e30.e30", "e30.e3 0.x", "e31.e30.x"] {
            let request = OAuthRequest { request: Some(object.into()), ..Default::default() };
            assert_eq!(effective(&request), Err(Unreadable), "{object:?}");
        }
    }

    #[test]
    fn only_exactly_what_is_granted_passes() {
        #[track_caller]
        fn check(asked: &str, granted: &str, expected: bool) {
            assert_eq!(check_granted(asked, granted).is_ok(), expected, "{asked:?} {granted:?}");
        }
        check("a b", "b a", true);
        check(" a  b", "a b", true);
        check("a b", "a", false);
        check("a", "a b", false);
        check("a a", "a", false);
        check("", "", true);
        check("A", "a", false);
    }
}
