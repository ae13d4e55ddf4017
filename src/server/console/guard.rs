//! Who may ask the console, and what browsers may do with its answers.
//!
//! The admin endpoint asks nobody who they are, so what protects the console from pages of other sites in an operator's browser
//! is here. No answer has a header of CORS, so no other site may read one. A site whose name is made to lead to this address (DNS
//! rebinding) is refused by the Host that it asks for; one that only sends a request, by what browsers say of its origin.

use std::net::IpAddr;

use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderMap, ORIGIN, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use http::uri::Authority;
use http::{HeaderName, HeaderValue, Request, StatusCode};

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Refusal {
    /// It does not say which host it is for, or says it twice.
    #[error("the request needs one Host")]
    NoHost,
    /// It is for a name that may lead anywhere.
    #[error("the console is served under an IP address or localhost, not under the Host of this request")]
    OtherHost,
    /// A page of another site sent it.
    #[error("the console answers its own page, and no page of another site")]
    OtherSite,
}

impl Refusal {
    pub(super) const fn code(self) -> StatusCode {
        match self {
            Self::NoHost => StatusCode::BAD_REQUEST,
            Self::OtherHost => StatusCode::MISDIRECTED_REQUEST,
            Self::OtherSite => StatusCode::FORBIDDEN,
        }
    }
}

/// Refuses what another site may have sent.
///
/// A name can be made to lead to any address, an IP address cannot, and `localhost` never leaves the machine (RFC 6761 section
/// 6.3). What browsers say of the origin (Fetch Metadata) counts where they say it, which they do not over plaintext to other
/// machines.
///
/// # Errors
/// Why it is refused.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), Refusal> {
    let headers = request.headers();
    let host = one(headers, HOST)?.ok_or(Refusal::NoHost)?;
    let is_other = |authority: &Authority| authority.as_str() != host;
    if !is_own(host) || request.uri().authority().is_some_and(is_other) {
        return Err(Refusal::OtherHost);
    }
    if let Some(origin) = one(headers, ORIGIN)? {
        let own = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        if own != Some(host) {
            return Err(Refusal::OtherSite);
        }
    }
    let said = |name| one(headers, HeaderName::from_static(name)).map(Option::unwrap_or_default);
    // A link on another site may open the page, in a tab of its own.
    let is_opened = || {
        let is_page = matches!(request.uri().path(), "/console" | "/console/");
        Ok(is_page && said("sec-fetch-mode")? == "navigate" && said("sec-fetch-dest")? == "document")
    };
    match said("sec-fetch-site")? {
        "" | "same-origin" | "none" => Ok(()),
        _ if is_opened()? => Ok(()),
        _ => Err(Refusal::OtherSite),
    }
}

/// The value of a header that may be there once.
fn one(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, Refusal> {
    let mut values = headers.get_all(&name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| Refusal::OtherSite),
        (Some(_), Some(_)) => Err(if name == HOST { Refusal::NoHost } else { Refusal::OtherSite }),
    }
}

fn is_own(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    if host.contains('@') {
        return false;
    }
    let name = authority.host();
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    address.parse::<IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost")
}

/// Adds what browsers must be told about every answer of the console.
pub(super) fn protect(headers: &mut HeaderMap) {
    for (name, value) in PROTECTION {
        headers.insert(name.clone(), HeaderValue::from_static(value));
    }
}

/// Scripts and styles are files of the console alone, nothing is inline, and scripts cannot write markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const PROTECTION: [(HeaderName, &str); 9] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (X_FRAME_OPTIONS, "DENY"),
    (CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-embedder-policy"), "require-corp"),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn checked(path: &str, headers: &[(&str, &str)], expected: Result<(), Refusal>) {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        assert_eq!(check(&request.body(()).unwrap()), expected, "{path} {headers:?}");
    }

    #[test]
    fn only_addresses_and_localhost_are_hosts() {
        for own in ["127.0.0.1:50552", "10.1.2.3", "[::1]:50552", "localhost", "LOCALHOST:1", "[fe80::1]"] {
            checked("/console", &[("host", own)], Ok(()));
        }
        let others = [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:50552",
            "user@127.0.0.1",
            "localhost.",
            "",
            "0x7f.1",
            "[::1",
            "a b",
            "127.1",
        ];
        for other in others {
            checked("/console", &[("host", other)], Err(Refusal::OtherHost));
        }
        checked("/console", &[], Err(Refusal::NoHost));
        checked("/console", &[("host", "localhost"), ("host", "evil.example")], Err(Refusal::NoHost));
        checked("http://evil.example/console", &[("host", "localhost")], Err(Refusal::OtherHost));
        checked("http://localhost/console", &[("host", "localhost")], Ok(()));
    }

    #[test]
    fn other_sites_may_open_the_page_and_nothing_else() {
        let host = ("host", "localhost:1");
        for origin in ["http://localhost:1", "https://localhost:1"] {
            checked("/console/api/live", &[host, ("origin", origin)], Ok(()));
        }
        for origin in
            ["null", "http://evil.example", "http://localhost:2", "http://localhost:1/", "localhost:1", ""]
        {
            checked("/console/api/live", &[host, ("origin", origin)], Err(Refusal::OtherSite));
        }
        let fetched = |path: &str, site: &'static str, mode, dest, expected| {
            let headers =
                [host, ("sec-fetch-site", site), ("sec-fetch-mode", mode), ("sec-fetch-dest", dest)];
            checked(path, &headers, expected);
        };
        for site in ["same-origin", "none"] {
            fetched("/console/api/live", site, "cors", "empty", Ok(()));
        }
        for site in ["cross-site", "same-site", "what"] {
            fetched("/console", site, "navigate", "document", Ok(()));
            fetched("/console", site, "navigate", "iframe", Err(Refusal::OtherSite));
            fetched("/console", site, "no-cors", "script", Err(Refusal::OtherSite));
            fetched("/console/main.js", site, "no-cors", "script", Err(Refusal::OtherSite));
            fetched("/console/api/status", site, "navigate", "document", Err(Refusal::OtherSite));
        }
    }
}
