//! Authorize, PAR, device and CIBA requests: parameters in a query or in an `application/x-www-form-urlencoded` body
//! (RFC 6749 appendix B).
//!
//! Parsers differ in which of two equal names they take, in whether `;` separates, in what they decode and how often, and in
//! names that they fold. A request in which that matters for a parameter that a decision depends on is refused; then only the
//! pair of the scope changes, and it is written as all of them read it.

use std::borrow::Cow;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use memchr::{memchr_iter, memchr2, memchr3};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};

use super::fold::fold_name;
use super::path::has_whole_encodings;
use crate::escape::shown;
use crate::short_list::ShortList;

/// Most pairs in one query or body. Frameworks stop at 1,000 and more, and ignore the rest.
pub const MAX_PAIRS: usize = 256;

/// Largest query or body in bytes.
pub const MAX_FORM_BYTES: usize = 256 * 1024;

/// What a decision depends on. Each at most once, but for `resource` (RFC 8707 section 2).
const NAMES: [&str; 14] = [
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
    // HTML section 4.10.21.7: the encoding of the others.
    "_charset_",
    // Frameworks that let a form say its method: a POST that is something else.
    "_method",
];

/// Unreserved characters (RFC 3986 section 2.3) stand for themselves.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Why a form is refused; `invalid_request` in each case.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FormRefusal {
    /// More than [`MAX_FORM_BYTES`].
    #[error("the parameters have more than {MAX_FORM_BYTES} bytes")]
    TooLong,
    /// More than [`MAX_PAIRS`].
    #[error("there are more than {MAX_PAIRS} parameters")]
    TooMany,
    /// RFC 6749 section 3.1: parameters must not be included more than once.
    #[error("parameter `{name}` is there more than once")]
    Duplicate {
        /// Its name.
        name: &'static str,
    },
    /// A name that some parsers take for another.
    #[error("parameter `{}` is another spelling of `{name}`", shown(.spelling))]
    Spelling {
        /// What is taken for it.
        name: &'static str,
        /// As received, decoded once.
        spelling: String,
    },
    /// A `;`, which some parsers take for a separator, around a name that matters or in its value.
    #[error("`;` next to parameter `{name}` must be percent-encoded")]
    Separator {
        /// The name.
        name: &'static str,
    },
    /// A value with half a percent-encoding, or one of what is not UTF-8 or a control character.
    #[error("the value of parameter `{name}` is malformed")]
    Value {
        /// The name.
        name: &'static str,
    },
    /// `_charset_` or `_method`.
    #[error("parameter `{name}` is not accepted")]
    NotAccepted {
        /// The name.
        name: &'static str,
    },
    /// In the query of a POST, where some servers read it and others do not.
    #[error("parameter `{name}` belongs into the body")]
    InQuery {
        /// The name.
        name: &'static str,
    },
    /// A control character outside of the values that matter.
    #[error("there is a control character among the parameters")]
    Control,
    /// Not a form in UTF-8.
    #[error("the content type is not `application/x-www-form-urlencoded` in UTF-8")]
    ContentType,
    /// Credentials that cannot be read, or that name another client than the parameters.
    #[error("the credentials are malformed or of another client")]
    Credentials,
}

/// What an authorize, PAR, device or CIBA request says, decoded. `None` where a parameter is not there.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct OAuthRequest {
    /// As sent; `Some("")` where it is there and empty.
    pub scope: Option<String>,
    /// `client_id`.
    pub client_id: Option<String>,
    /// `redirect_uri`.
    pub redirect_uri: Option<String>,
    /// `response_type`.
    pub response_type: Option<String>,
    /// `response_mode`.
    pub response_mode: Option<String>,
    /// `state`.
    pub state: Option<String>,
    /// Each `resource` (RFC 8707 section 2), in order; empty ones are left out.
    pub resources: Vec<String>,
    /// `request`: a request object (RFC 9101).
    pub request: Option<String>,
    /// `request_uri`.
    pub request_uri: Option<String>,
    /// `client_assertion` (RFC 7521 section 4.2).
    pub client_assertion: Option<String>,
    /// `login_verifier` of Ory Hydra.
    pub login_verifier: Option<String>,
    /// `consent_verifier` of Ory Hydra.
    pub consent_verifier: Option<String>,
}

impl OAuthRequest {
    /// Reads a query or a body.
    ///
    /// # Errors
    /// The first [`FormRefusal`] that holds.
    pub fn read(form: &[u8]) -> Result<Self, FormRefusal> {
        let mut read = Self::default();
        for pair in pairs(form)? {
            let (name, value) = pair?;
            let place = match name {
                "scope" => &mut read.scope,
                "client_id" => &mut read.client_id,
                "redirect_uri" => &mut read.redirect_uri,
                "response_type" => &mut read.response_type,
                "response_mode" => &mut read.response_mode,
                "state" => &mut read.state,
                "request" => &mut read.request,
                "request_uri" => &mut read.request_uri,
                "client_assertion" => &mut read.client_assertion,
                "login_verifier" => &mut read.login_verifier,
                "consent_verifier" => &mut read.consent_verifier,
                "resource" => {
                    // RFC 6749 section 3.1: a parameter without a value counts as omitted.
                    if !value.is_empty() {
                        read.resources.push(value);
                    }
                    continue;
                }
                "_charset_" | "_method" => return Err(FormRefusal::NotAccepted { name }),
                _ => continue,
            };
            *place = Some(value);
        }
        Ok(read)
    }

    /// Returns `true` if Ory Hydra would continue a login of its own with this request, and would not begin one: exactly one
    /// of `login_verifier` and `consent_verifier`, with a value.
    ///
    /// Hydra reads the scope of such a request again, so one that was changed on its way through the browser is a new question:
    /// it passes unasked only if a decision grants exactly that scope.
    #[must_use]
    pub fn continues_login(&self) -> bool {
        match (&self.login_verifier, &self.consent_verifier) {
            (Some(verifier), None) | (None, Some(verifier)) => {
                // Hydra trims it, and takes an empty one for none.
                !verifier.is_empty() && verifier.bytes().all(|byte| byte.is_ascii_graphic())
            }
            _ => false,
        }
    }

    /// The client: `client_id`, or else the name in the `Authorization` header (RFC 6749 section 2.3.1), or else the subject
    /// of the assertion (RFC 7523 section 3). `None` where none of them is there.
    ///
    /// # Errors
    /// If two of them are not the same, or if one is malformed.
    pub fn client(&self, authorization: Option<&[u8]>) -> Result<Option<String>, FormRefusal> {
        let named = self.client_id.clone().filter(|id| !id.is_empty());
        let basic = authorization.and_then(basic_credentials).map(basic_name).transpose()?;
        let asserted = match self.client_assertion.as_deref() {
            Some(assertion) => Some(super::object::subject(assertion).ok_or(FormRefusal::Credentials)?),
            None => None,
        };
        let mut known: Option<String> = None;
        for name in [named, basic, asserted].into_iter().flatten() {
            if known.as_ref().is_some_and(|known| *known != name) {
                return Err(FormRefusal::Credentials);
            }
            known = Some(name);
        }
        Ok(known)
    }
}

/// The client that the query of its configuration endpoint names (RFC 7592 leaves the form of that URI to the server, and some
/// have `?client_id=`); `None` if it names none.
///
/// # Errors
/// If another parameter that a decision depends on is in it, or the client more than once or in another spelling.
pub fn client_of_query(query: &[u8]) -> Result<Option<String>, FormRefusal> {
    let mut client = None;
    for pair in pairs(query)? {
        match pair? {
            ("client_id", id) => client = Some(id).filter(|id| !id.is_empty()),
            ("", _) => {}
            (name, _) => return Err(FormRefusal::InQuery { name }),
        }
    }
    Ok(client)
}

/// Refuses a query of a POST that has something that belongs into its body.
///
/// # Errors
/// If a parameter that a decision depends on is in it, in whatever spelling.
pub fn check_query_of_post(query: &[u8]) -> Result<(), FormRefusal> {
    for pair in pairs(query)? {
        let (name, _) = pair?;
        if !name.is_empty() {
            return Err(FormRefusal::InQuery { name });
        }
    }
    Ok(())
}

/// The query or body with this scope. It must be one that [`OAuthRequest::read`] takes. Nothing but the bytes of the scope
/// pair is changed, and those not if every parser reads the scope in them; where there is none it comes first, before anything that
/// a parser might stop at.
#[must_use]
pub fn with_scope<'f>(form: &'f [u8], scope: &str) -> Cow<'f, [u8]> {
    let mut at = 0;
    let mut pieces = form.split(|byte| *byte == b'&').map(|piece| {
        let begin = at;
        at += piece.len() + 1;
        (begin, piece)
    });
    let said = pieces.find(|(_, piece)| raw_name(piece) == b"scope");
    if said.is_some_and(|(_, piece)| says_plainly(piece, scope)) {
        return Cow::Borrowed(form);
    }
    let pair = format!("scope={}", utf8_percent_encode(scope, ENCODED)).into_bytes();
    Cow::Owned(match said {
        Some((begin, piece)) => {
            let (before, rest) = form.split_at(begin);
            [before, &pair, rest.get(piece.len()..).unwrap_or_default()].concat()
        }
        None if form.is_empty() => pair,
        None => [&pair, form].join(&b'&'),
    })
}

/// Returns `true` if all parsers read this value in a pair: a `+` is a space to some alone.
fn says_plainly(pair: &[u8], scope: &str) -> bool {
    let raw =
        pair.iter().position(|byte| *byte == b'=').and_then(|at| pair.get(at + 1..)).unwrap_or_default();
    match memchr2(b'+', b'%', raw) {
        None => raw == scope.as_bytes(),
        Some(_) => !raw.contains(&b'+') && value(raw).is_some_and(|said| said == scope),
    }
}

/// Checks the content type of a body at an endpoint where a scope is decided.
///
/// # Errors
/// [`FormRefusal::ContentType`] for any other media type, another charset, or a parameter that is not known.
pub fn check_content_type(value: &[u8]) -> Result<(), FormRefusal> {
    let value = std::str::from_utf8(value).map_err(|_| FormRefusal::ContentType)?;
    let mut parts = value.split(';').map(str::trim);
    let is_form =
        parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/x-www-form-urlencoded"));
    let is_utf8 = |part: &str| {
        part.split_once('=').is_some_and(|(name, charset)| {
            name.eq_ignore_ascii_case("charset") && charset.trim_matches('"').eq_ignore_ascii_case("utf-8")
        })
    };
    if is_form && parts.all(is_utf8) { Ok(()) } else { Err(FormRefusal::ContentType) }
}

/// The pairs that matter, with their values decoded; `("", "")` for each other one.
fn pairs(
    form: &[u8],
) -> Result<impl Iterator<Item = Result<(&'static str, String), FormRefusal>>, FormRefusal> {
    if form.len() > MAX_FORM_BYTES {
        return Err(FormRefusal::TooLong);
    }
    // Parsers of C strings stop at a NUL, and a line break ends what some of them read. Without an early end, so that it is done for
    // many bytes at once.
    if form.iter().fold(false, |found, byte| found | byte.is_ascii_control()) {
        return Err(FormRefusal::Control);
    }
    if memchr_iter(b'&', form).count() >= MAX_PAIRS {
        return Err(FormRefusal::TooMany);
    }
    let mut seen: ShortList<&'static str, 8> = ShortList::new();
    Ok(form.split(|byte| *byte == b'&').map(move |piece| {
        let Some(name) = name_of(piece)? else { return Ok(("", String::new())) };
        if name != "resource" && seen.contains(&name) {
            return Err(FormRefusal::Duplicate { name });
        }
        seen.push(name);
        let raw = piece.get(name.len() + 1..).unwrap_or_default();
        Ok((name, value(raw).ok_or(FormRefusal::Value { name })?))
    }))
}

/// The name of a piece between two `&` if it is one of [`NAMES`], spelled so.
fn name_of(piece: &[u8]) -> Result<Option<&'static str>, FormRefusal> {
    let raw = raw_name(piece);
    let exact = NAMES.into_iter().find(|known| known.as_bytes() == raw);
    // What parsers that separate at `;` see as pairs.
    let has_semicolon = piece.contains(&b';');
    if let (Some(name), true) = (exact, has_semicolon) {
        return Err(FormRefusal::Separator { name });
    }
    // A plain name is no spelling of another one.
    let is_plain = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
    if exact.is_some() || (!has_semicolon && raw.iter().all(is_plain)) {
        return Ok(exact);
    }
    for part in piece.split(|byte| *byte == b';') {
        for (spelling, folded) in readings(raw_name(part)) {
            if let Some(name) = NAMES.into_iter().find(|known| *known == folded) {
                return Err(if has_semicolon && part.starts_with(name.as_bytes()) {
                    FormRefusal::Separator { name }
                } else {
                    FormRefusal::Spelling { name, spelling }
                });
            }
        }
    }
    Ok(None)
}

/// A name as parsers might read it: decoded again and again, and folded.
fn readings(raw: &[u8]) -> Vec<(String, String)> {
    let mut readings = Vec::new();
    let mut text: Vec<u8> = raw.to_vec();
    // Each round takes at least two bytes away, so it ends; more than a few rounds no parser makes.
    for _ in 0..4 {
        let lossy = String::from_utf8_lossy(&text).into_owned();
        let folded = fold_name(&lossy);
        readings.push((lossy, folded));
        let decoded = decode(&text).into_owned();
        if decoded == text {
            break;
        }
        text = decoded;
    }
    readings
}

fn raw_name(piece: &[u8]) -> &[u8] {
    piece.split(|byte| *byte == b'=').next().unwrap_or_default()
}

/// `+` is a space, `%XX` a byte; what is no encoding stays.
fn decode(raw: &[u8]) -> Cow<'_, [u8]> {
    if raw.contains(&b'+') {
        let spaced: Vec<u8> = raw.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
        Cow::Owned(percent_decode(&spaced).collect())
    } else {
        percent_decode(raw).into()
    }
}

/// A value that all parsers decode alike.
fn value(raw: &[u8]) -> Option<String> {
    if !raw.is_ascii() {
        return None;
    }
    if memchr3(b'%', b'+', 0, raw).is_none() {
        return String::from_utf8(raw.to_vec()).ok();
    }
    if !has_whole_encodings(raw) {
        return None;
    }
    let text = String::from_utf8(decode(raw).into_owned()).ok()?;
    (!text.contains('\0')).then_some(text)
}

/// What follows `Basic`.
fn basic_credentials(header: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = header.split_at_checked(6)?;
    scheme.eq_ignore_ascii_case(b"basic ").then(|| rest.trim_ascii())
}

/// The client id, which is form-encoded in it (RFC 6749 section 2.3.1); clients that do not encode it are read as well.
fn basic_name(credentials: &[u8]) -> Result<String, FormRefusal> {
    let decoded = BASE64_STANDARD.decode(credentials).map_err(|_| FormRefusal::Credentials)?;
    let name = decoded.split(|byte| *byte == b':').next().unwrap_or_default();
    let name = value(name).ok_or(FormRefusal::Credentials)?;
    if name.is_empty() || decoded.iter().all(|byte| *byte != b':') {
        return Err(FormRefusal::Credentials);
    }
    Ok(name)
}

#[cfg(test)]
mod tests;
