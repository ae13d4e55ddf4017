//! Requests that are refused before anything else is looked at, since programs in front of the server may have read them differently.

use http::header::{EXPECT, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Method, StatusCode, Version};

use super::raw_head::HeadFault;

/// Why a request is refused before anything else is looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(in crate::server) enum BadRequest {
    /// What hyper does not show.
    #[error(transparent)]
    Head(#[from] HeadFault),
    /// `CONNECT`, which would make a tunnel of this.
    #[error("CONNECT is not answered here")]
    Connect,
    /// Not the origin form (RFC 9112 section 3.2.1).
    #[error("the request target must be a path")]
    Target,
    /// `Host` and `:authority` differ, or there is none.
    #[error("there must be one authority")]
    Authority,
    /// Another transfer coding than `chunked`.
    #[error("the transfer coding is not supported")]
    TransferEncoding,
    /// Another expectation than `100-continue`.
    #[error("the expectation cannot be met")]
    Expectation,
}

impl BadRequest {
    /// How such a request is answered.
    pub(in crate::server) const fn status(self) -> StatusCode {
        match self {
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// Checks what concerns every request.
///
/// # Errors
/// The first rule that is broken.
pub(in crate::server) fn check(parts: &Parts, fault: Option<HeadFault>) -> Result<(), BadRequest> {
    if let Some(fault) = fault {
        return Err(fault.into());
    }
    if parts.method == Method::CONNECT {
        return Err(BadRequest::Connect);
    }
    let (uri, headers) = (&parts.uri, &parts.headers);
    if !uri.path().starts_with('/') {
        return Err(BadRequest::Target);
    }
    if parts.version == Version::HTTP_2 {
        // RFC 9113 section 8.3.1.
        let authority = uri.authority().ok_or(BadRequest::Authority)?;
        let mut hosts = headers.get_all(HOST).iter();
        if hosts.any(|host| !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes())) {
            return Err(BadRequest::Authority);
        }
    } else if uri.authority().is_some() || uri.scheme().is_some() {
        return Err(BadRequest::Target);
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if codings.any(|coding| !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked")) {
        return Err(BadRequest::TransferEncoding);
    }
    let mut expectations = headers.get_all(EXPECT).iter();
    if expectations.any(|expected| !expected.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(BadRequest::Expectation);
    }
    Ok(())
}
