//! Answers of the gateway's own: errors of OAuth as JSON, pages for people, and where a browser may read them from.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use http::header::{
    ACCEPT, ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName,
    HeaderValue, LOCATION, REFERRER_POLICY, RETRY_AFTER, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{Response, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::body::{GatewayBody, empty, full};
use crate::escape;

/// An error of OAuth.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(super) struct OAuthProblem {
    #[serde(skip)]
    pub(super) status: StatusCode,
    pub(super) error: &'static str,
    /// Printable ASCII without `"` and `\` (RFC 6749 section 5.2).
    pub(super) error_description: String,
}

impl OAuthProblem {
    pub(super) fn new(status: StatusCode, error: &'static str, description: &str) -> Self {
        Self { status, error, error_description: escape::printable(description, MAX_DESCRIPTION_BYTES) }
    }

    pub(super) fn bad_request(error: &'static str, description: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error, description)
    }

    /// A question that could not be answered.
    pub(super) fn unavailable(description: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", description)
    }

    /// As JSON.
    pub(super) fn json(&self) -> Response<GatewayBody> {
        // A problem has a JSON form.
        let body = escape::json(self).unwrap_or_default();
        respond(self.status, "application/json", body)
    }

    /// As JSON to a program, and as a page to people.
    pub(super) fn page(&self, headers: &HeaderMap) -> Response<GatewayBody> {
        if wants_json(headers) {
            return self.json();
        }
        let Self { status, error, error_description } = self;
        // The description has no quotes; these are what is left of HTML.
        let text = error_description.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let body = format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{error}</title>\n\
             <h1>This sign-in cannot continue</h1>\n<p>{text}</p>\n<p><code>{error}</code></p>\n</html>\n"
        );
        let mut response = respond(*status, "text/html; charset=utf-8", body);
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
        );
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        response
    }

    /// As the parameters of an authorization response at a redirect URI (RFC 6749 section 4.1.2.1), with the issuer where the
    /// upstream names it (RFC 9207). `None` if the URI cannot be in a header.
    pub(super) fn redirect(
        &self,
        uri: &str,
        state: Option<&str>,
        issuer: Option<&str>,
    ) -> Option<Response<GatewayBody>> {
        let encoded = |text: &str| utf8_percent_encode(text, PARAMETER).to_string();
        let mut target = uri.to_owned();
        target.push(if uri.contains('?') { '&' } else { '?' });
        target.push_str(&format!(
            "error={}&error_description={}",
            encoded(self.error),
            encoded(&self.error_description)
        ));
        for (name, value) in [("state", state), ("iss", issuer)] {
            if let Some(value) = value {
                target.push_str(&format!("&{name}={}", encoded(value)));
            }
        }
        let mut response = Response::new(empty());
        *response.status_mut() = StatusCode::SEE_OTHER;
        response.headers_mut().insert(LOCATION, HeaderValue::try_from(target).ok()?);
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Some(response)
    }
}

/// A short text, for what has no error of OAuth.
pub(super) fn text(status: StatusCode, text: &str) -> Response<GatewayBody> {
    respond(status, "text/plain; charset=utf-8", format!("{}\n", escape::clean(text)))
}

/// As [`text`], on a connection that ends with it.
pub(super) fn last_text(status: StatusCode, message: &str) -> Response<GatewayBody> {
    let mut response = text(status, message);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// That there is no room, or no upstream, for now.
pub(super) fn busy(message: &str) -> Response<GatewayBody> {
    let mut response = text(StatusCode::SERVICE_UNAVAILABLE, message);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// That a method is not for this endpoint.
pub(super) fn method_not_allowed(allowed: &'static str) -> Response<GatewayBody> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "the method is not for this endpoint");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

/// An answer with a body.
pub(super) fn respond(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<bytes::Bytes>,
) -> Response<GatewayBody> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn wants_json(headers: &HeaderMap) -> bool {
    let accepts = |kind: &str| {
        headers.get_all(ACCEPT).iter().any(|value| String::from_utf8_lossy(value.as_bytes()).contains(kind))
    };
    accepts("application/json") && !accepts("text/html")
}

/// Which pages of other origins may read the answers of the upstream, as it said: errors of the gateway at the same path carry
/// the same headers, or a browser would hide them.
#[derive(Debug, Default)]
pub(super) struct CorsMemory {
    /// The newest last.
    seen: Mutex<VecDeque<SeenCors>>,
}

#[derive(Debug)]
struct SeenCors {
    path: Box<str>,
    /// Not there if every origin may.
    origin: Option<HeaderValue>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl CorsMemory {
    /// Notes an answer of the upstream to a request from a page of `origin`.
    pub(super) fn note(&self, path: &str, origin: &HeaderValue, response: &HeaderMap) {
        let Some(allowed) = response.get(ACCESS_CONTROL_ALLOW_ORIGIN) else { return };
        let origin = (allowed != "*").then(|| origin.clone());
        let carried = [
            ACCESS_CONTROL_ALLOW_ORIGIN,
            ACCESS_CONTROL_ALLOW_CREDENTIALS,
            ACCESS_CONTROL_EXPOSE_HEADERS,
            VARY,
        ];
        let headers = carried
            .into_iter()
            .filter_map(|name| Some((name.clone(), response.get(name)?.clone())))
            .collect();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|known| known.origin != origin || *known.path != *path);
        if seen.len() >= MAX_SEEN_ORIGINS {
            seen.pop_front();
        }
        seen.push_back(SeenCors { path: path.into(), origin, headers });
    }

    /// Adds what the upstream said for this path and origin.
    pub(super) fn apply(&self, path: &str, origin: &HeaderValue, response: &mut HeaderMap) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let is_for = |known: &&SeenCors| {
            *known.path == *path && known.origin.as_ref().is_none_or(|allowed| allowed == origin)
        };
        if let Some(known) = seen.iter().rev().find(is_for) {
            for (name, value) in &known.headers {
                response.insert(name.clone(), value.clone());
            }
        }
    }
}

/// As `decision` has it.
const MAX_DESCRIPTION_BYTES: usize = 512;
const MAX_SEEN_ORIGINS: usize = 256;
/// Unreserved characters (RFC 3986 section 2.3) stand for themselves.
const PARAMETER: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
