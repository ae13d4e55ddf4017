//! Authorize, PAR, device and CIBA requests: parameters in a query or in an `application/x-www-form-urlencoded` body
//! (RFC 6749 appendix B).
//!
//! Parsers differ in which of two equal names they take, in whether `;` separates, in what they decode and how often, and in
//! names that they fold. A request in which that matters for a parameter that a decision depends on is refused; then only the
//! pair of the scope changes, and it is written as all of them read it.

use std::borrow::Cow;
use std::{iter, str};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use memchr::{memchr, memchr_iter, memchr2, memchr3};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};

use super::fold::fold_name;
use super::path::has_whole_encodings;
use crate::escape::shown;

/// Most pairs in one query or body. Frameworks stop at 1,000 and more, and ignore the rest.
pub const MAX_PAIRS: usize = 256;

/// Largest query or body in bytes.
pub const MAX_FORM_BYTES: usize = 256 * 1024;

/// What a decision depends on. Each at most once, but for `resource` (RFC 8707 section 2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum FormName {
    Scope,
    ClientId,
    RedirectUri,
    ResponseType,
    ResponseMode,
    State,
    Resource,
    Request,
    RequestUri,
    ClientAssertion,
    LoginVerifier,
    ConsentVerifier,
    /// HTML section 4.10.21.7: the encoding of the others.
    Charset,
    /// Frameworks let a form say its method: a POST that is something else.
    Method,
}

impl FormName {
    /// The name that is spelled exactly so.
    fn of(raw: &[u8]) -> Option<Self> {
        Some(match raw {
            b"scope" => Self::Scope,
            b"client_id" => Self::ClientId,
            b"redirect_uri" => Self::RedirectUri,
            b"response_type" => Self::ResponseType,
            b"response_mode" => Self::ResponseMode,
            b"state" => Self::State,
            b"resource" => Self::Resource,
            b"request" => Self::Request,
            b"request_uri" => Self::RequestUri,
            b"client_assertion" => Self::ClientAssertion,
            b"login_verifier" => Self::LoginVerifier,
            b"consent_verifier" => Self::ConsentVerifier,
            b"_charset_" => Self::Charset,
            b"_method" => Self::Method,
            _ => return None,
        })
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Scope => "scope",
            Self::ClientId => "client_id",
            Self::RedirectUri => "redirect_uri",
            Self::ResponseType => "response_type",
            Self::ResponseMode => "response_mode",
            Self::State => "state",
            Self::Resource => "resource",
            Self::Request => "request",
            Self::RequestUri => "request_uri",
            Self::ClientAssertion => "client_assertion",
            Self::LoginVerifier => "login_verifier",
            Self::ConsentVerifier => "consent_verifier",
            Self::Charset => "_charset_",
            Self::Method => "_method",
        }
    }
}

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

/// What an authorize, PAR, device or CIBA request says, decoded; borrowed where nothing has to be. `None` where a parameter is not there.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct OAuthRequest<'f> {
    /// As sent; `Some("")` where it is there and empty.
    pub scope: Option<Cow<'f, str>>,
    /// `client_id`.
    pub client_id: Option<Cow<'f, str>>,
    /// `redirect_uri`.
    pub redirect_uri: Option<Cow<'f, str>>,
    /// `response_type`.
    pub response_type: Option<Cow<'f, str>>,
    /// `response_mode`.
    pub response_mode: Option<Cow<'f, str>>,
    /// `state`.
    pub state: Option<Cow<'f, str>>,
    /// Each `resource` (RFC 8707 section 2), in order; empty ones are left out.
    pub resources: Vec<Cow<'f, str>>,
    /// `request`: a request object (RFC 9101).
    pub request: Option<Cow<'f, str>>,
    /// `request_uri`.
    pub request_uri: Option<Cow<'f, str>>,
    /// `client_assertion` (RFC 7521 section 4.2).
    pub client_assertion: Option<Cow<'f, str>>,
    /// `login_verifier` of Ory Hydra.
    pub login_verifier: Option<Cow<'f, str>>,
    /// `consent_verifier` of Ory Hydra.
    pub consent_verifier: Option<Cow<'f, str>>,
}

impl<'f> OAuthRequest<'f> {
    /// Reads a query or a body.
    ///
    /// # Errors
    /// The first [`FormRefusal`] that holds.
    pub fn read(form: &'f [u8]) -> Result<Self, FormRefusal> {
        let mut read = Self::default();
        for pair in pairs(form)? {
            let (name, value) = pair?;
            let place = match name {
                FormName::Scope => &mut read.scope,
                FormName::ClientId => &mut read.client_id,
                FormName::RedirectUri => &mut read.redirect_uri,
                FormName::ResponseType => &mut read.response_type,
                FormName::ResponseMode => &mut read.response_mode,
                FormName::State => &mut read.state,
                FormName::Request => &mut read.request,
                FormName::RequestUri => &mut read.request_uri,
                FormName::ClientAssertion => &mut read.client_assertion,
                FormName::LoginVerifier => &mut read.login_verifier,
                FormName::ConsentVerifier => &mut read.consent_verifier,
                FormName::Resource => {
                    // RFC 6749 section 3.1: a parameter without a value counts as omitted.
                    if !value.is_empty() {
                        read.resources.push(value);
                    }
                    continue;
                }
                FormName::Charset | FormName::Method => {
                    return Err(FormRefusal::NotAccepted { name: name.as_str() });
                }
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
    pub fn client(&self, authorization: Option<&[u8]>) -> Result<Option<Cow<'f, str>>, FormRefusal> {
        let named = self.client_id.clone().filter(|id| !id.is_empty());
        let basic = authorization.and_then(basic_credentials).map(basic_name).transpose()?;
        let asserted = match self.client_assertion.as_deref() {
            Some(assertion) => Some(super::object::subject(assertion).ok_or(FormRefusal::Credentials)?),
            None => None,
        };
        let mut known = named;
        for name in [basic, asserted].into_iter().flatten() {
            if known.as_ref().is_some_and(|known| **known != name) {
                return Err(FormRefusal::Credentials);
            }
            known = Some(name.into());
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
            (FormName::ClientId, id) => client = Some(id.into_owned()).filter(|id| !id.is_empty()),
            (name, _) => return Err(FormRefusal::InQuery { name: name.as_str() }),
        }
    }
    Ok(client)
}

/// Refuses a query of a POST that has something that belongs into its body.
///
/// # Errors
/// If a parameter that a decision depends on is in it, in whatever spelling.
pub fn check_query_of_post(query: &[u8]) -> Result<(), FormRefusal> {
    match pairs(query)?.next().transpose()? {
        Some((name, _)) => Err(FormRefusal::InQuery { name: name.as_str() }),
        None => Ok(()),
    }
}

/// The query or body with this scope. It must be one that [`OAuthRequest::read`] takes. Nothing but the bytes of the scope
/// pair is changed, and those not if every parser reads the scope in them; where there is none it comes first, before anything that
/// a parser might stop at.
#[must_use]
pub fn with_scope<'f>(form: &'f [u8], scope: &str) -> Cow<'f, [u8]> {
    let mut at = 0;
    let mut pieces = pieces(form).map(|piece| {
        let begin = at;
        at += piece.len() + 1;
        (begin, piece)
    });
    let said = pieces.find(|(_, piece)| matches!(piece.strip_prefix(b"scope"), Some([] | [b'=', ..])));
    if said.is_some_and(|(_, piece)| says_plainly(split_pair(piece).1, scope)) {
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

/// Returns `true` if all parsers read this scope in a value: a `+` is a space to some alone.
fn says_plainly(raw: &[u8], scope: &str) -> bool {
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

/// The pairs that matter, with their values decoded.
fn pairs(
    form: &[u8],
) -> Result<impl Iterator<Item = Result<(FormName, Cow<'_, str>), FormRefusal>>, FormRefusal> {
    if form.len() > MAX_FORM_BYTES {
        return Err(FormRefusal::TooLong);
    }
    let FormBytes { has_control, has_semicolon, is_plain } = FormBytes::of(form);
    // Parsers of C strings stop at a NUL, and a line break ends what some of them read.
    if has_control {
        return Err(FormRefusal::Control);
    }
    if form.len() >= MAX_PAIRS && memchr_iter(b'&', form).count() >= MAX_PAIRS {
        return Err(FormRefusal::TooMany);
    }
    let mut seen = 0_u16;
    let read = move |piece| {
        let Some((name, raw)) = name_of(piece, has_semicolon)? else { return Ok(None) };
        let bit = 1 << name as u16;
        if name != FormName::Resource && seen & bit != 0 {
            return Err(FormRefusal::Duplicate { name: name.as_str() });
        }
        seen |= bit;
        let read = if is_plain { str::from_utf8(raw).ok().map(Cow::Borrowed) } else { value(raw) };
        read.map(|value| Some((name, value))).ok_or(FormRefusal::Value { name: name.as_str() })
    };
    Ok(pieces(form).map(read).filter_map(Result::transpose))
}

/// What there is among the bytes of a form.
#[derive(Clone, Copy, Debug)]
struct FormBytes {
    has_control: bool,
    has_semicolon: bool,
    /// All of them are ASCII, and none stands for another one.
    is_plain: bool,
}

impl FormBytes {
    fn of(form: &[u8]) -> Self {
        let (mut has_control, mut has_semicolon, mut is_plain) = (false, false, true);
        // Without an early end, so that it is done for many bytes at once.
        for byte in form {
            has_control |= byte.is_ascii_control();
            has_semicolon |= *byte == b';';
            is_plain &= byte.is_ascii() & (*byte != b'%') & (*byte != b'+');
        }
        Self { has_control, has_semicolon, is_plain }
    }
}

/// What is between the `&` of a form; one empty piece in an empty one.
fn pieces(form: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(form);
    iter::from_fn(move || {
        let text = rest?;
        let (piece, after) = text.split_at(memchr(b'&', text).unwrap_or(text.len()));
        rest = after.get(1..);
        Some(piece)
    })
}

/// The name and the value of a piece, as they are.
fn split_pair(piece: &[u8]) -> (&[u8], &[u8]) {
    let end = piece.iter().position(|byte| *byte == b'=').unwrap_or(piece.len());
    let (name, value) = piece.split_at(end);
    (name, value.get(1..).unwrap_or_default())
}

/// The name of a piece if it is one that matters, spelled so, with what follows its `=`.
fn name_of(piece: &[u8], has_semicolon: bool) -> Result<Option<(FormName, &[u8])>, FormRefusal> {
    let (raw, value) = split_pair(piece);
    let exact = FormName::of(raw);
    // What parsers that separate at `;` see as pairs.
    let has_semicolon = has_semicolon && piece.contains(&b';');
    if let (Some(name), true) = (exact, has_semicolon) {
        return Err(FormRefusal::Separator { name: name.as_str() });
    }
    // A plain name is no spelling of another one.
    let is_plain = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
    if exact.is_some() || (!has_semicolon && raw.iter().all(is_plain)) {
        return Ok(exact.map(|name| (name, value)));
    }
    for part in piece.split(|byte| *byte == b';') {
        for (spelling, folded) in readings(split_pair(part).0) {
            if let Some(name) = FormName::of(folded.as_bytes()).map(FormName::as_str) {
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
fn value(raw: &[u8]) -> Option<Cow<'_, str>> {
    if !raw.is_ascii() {
        return None;
    }
    if memchr3(b'%', b'+', 0, raw).is_none() {
        return str::from_utf8(raw).ok().map(Cow::Borrowed);
    }
    if !has_whole_encodings(raw) {
        return None;
    }
    let text = String::from_utf8(decode(raw).into_owned()).ok()?;
    (!text.contains('\0')).then_some(Cow::Owned(text))
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
    Ok(name.into_owned())
}

#[cfg(test)]
mod tests;
