//! What the operator can set of a gateway, as plain data.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use http::Uri;
use http::uri::{Authority, Scheme};
use ipnet::IpNet;

use super::upstream_admin::UpstreamAdminSettings;
use crate::escape::shown;
use crate::gateway::endpoint::EndpointFlag;
use crate::gateway::kind::UpstreamKind;

/// What the operator can set of a gateway.
#[derive(Clone, Debug)]
pub struct GatewaySettings {
    /// Where the authorization server is.
    pub upstream: BaseUrl,
    /// Who issues its certificate. Needed for an upstream over TLS.
    pub upstream_ca_file: Option<PathBuf>,
    /// How long it may take to begin its answer, and between two parts of it. Default 30 s.
    pub upstream_timeout: Duration,
    /// What clients see. Default: the address of a loopback listener.
    pub public_url: Option<BaseUrl>,
    /// What the authorization server is. Default: any.
    pub kind: UpstreamKind,
    /// The path of each issuer; `""` for one without. Default that one.
    pub issuer_paths: Vec<String>,
    /// Endpoints that discovery does not name.
    pub endpoints: Vec<EndpointFlag>,
    /// How a denial at the authorization endpoint reaches the client. Default by kind.
    pub on_deny: Option<OnDeny>,
    /// What becomes of request objects. Default: they are refused.
    pub request_objects: RequestObjects,
    /// Whether URLs of the upstream in its discovery document are replaced. Default false.
    pub rewrite_discovery: bool,
    /// Who may say where a request comes from. Default nobody.
    pub trusted_proxies: Vec<IpNet>,
    /// Where clients are looked up and changed at the upstream. Default nowhere.
    pub upstream_admin: Option<UpstreamAdminSettings>,
    /// How many registered clients are remembered. Default 100,000.
    pub max_clients: u64,
    /// How often the discovery documents are read. Default 30 s.
    pub discovery_interval: Duration,
}

impl GatewaySettings {
    /// The defaults, for an upstream.
    #[must_use]
    pub fn new(upstream: BaseUrl) -> Self {
        Self {
            upstream,
            upstream_ca_file: None,
            upstream_timeout: Duration::from_secs(30),
            public_url: None,
            kind: UpstreamKind::Generic,
            issuer_paths: vec![String::new()],
            endpoints: Vec::new(),
            on_deny: None,
            request_objects: RequestObjects::Refuse,
            rewrite_discovery: false,
            trusted_proxies: Vec::new(),
            upstream_admin: None,
            max_clients: 100_000,
            discovery_interval: Duration::from_secs(30),
        }
    }

    /// How a denial reaches the client.
    #[must_use]
    pub fn on_deny(&self) -> OnDeny {
        self.on_deny.unwrap_or(match self.kind {
            UpstreamKind::Generic => OnDeny::Page,
            UpstreamKind::Hydra | UpstreamKind::Keycloak => OnDeny::Upstream,
        })
    }
}

/// How a denial at the authorization endpoint reaches the client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OnDeny {
    /// The upstream says it, since it gets a scope that it refuses.
    Upstream,
    /// The gateway redirects to a registered URI.
    Redirect,
    /// The gateway shows a page.
    Page,
}

/// What becomes of request objects (RFC 9101).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RequestObjects {
    /// They are refused.
    Refuse,
    /// One passes whose scope is exactly what is granted.
    Match,
}

/// A URL of a scheme, a host and maybe a port. Printed as it was written, without a slash at its end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BaseUrl {
    scheme: Scheme,
    authority: Authority,
}

/// A text is no such URL.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BaseUrlError {
    /// Something else.
    #[error("`{}` is not `http://HOST:PORT` or `https://HOST:PORT`", shown(.0))]
    Form(String),
    /// It has a path.
    #[error("`{}` has a path; say paths with `--issuer-path`", shown(.0))]
    Path(String),
}

impl BaseUrl {
    /// A URL over plaintext.
    ///
    /// # Errors
    /// If it is no authority.
    pub fn http(authority: &str) -> Result<Self, BaseUrlError> {
        format!("http://{authority}").parse()
    }

    /// `http` or `https`.
    #[must_use]
    pub const fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// Host and port.
    #[must_use]
    pub const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Returns `true` if it is over TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// The port, by scheme if none is written.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.authority.port_u16().unwrap_or(if self.is_tls() { 443 } else { 80 })
    }
}

impl FromStr for BaseUrl {
    type Err = BaseUrlError;

    fn from_str(text: &str) -> Result<Self, BaseUrlError> {
        let form = || BaseUrlError::Form(text.to_owned());
        let uri = Uri::from_str(text).map_err(|_| form())?;
        let (path, parts) = (uri.path().to_owned(), uri.into_parts());
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else { return Err(form()) };
        let is_http = scheme == Scheme::HTTP || scheme == Scheme::HTTPS;
        let has_port = !authority.as_str().ends_with(':') && authority.port_u16() != Some(0);
        let plain = !authority.as_str().contains('@') && !authority.host().is_empty() && has_port;
        if !is_http || !plain || text.contains(['?', '#']) {
            return Err(form());
        }
        if !matches!(&*path, "" | "/") {
            return Err(BaseUrlError::Path(text.to_owned()));
        }
        Ok(Self { scheme, authority })
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://{}", self.scheme, self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_is_a_scheme_and_an_authority() {
        #[track_caller]
        fn check(text: &str, expected: Result<&str, &str>) {
            let read = BaseUrl::from_str(text).map(|url| url.to_string()).map_err(|error| error.to_string());
            assert_eq!(read.as_deref().map_err(String::as_str), expected, "{text:?}");
        }
        check("http://127.0.0.1:4444", Ok("http://127.0.0.1:4444"));
        check("https://auth.example.com/", Ok("https://auth.example.com"));
        check("http://[::1]:1", Ok("http://[::1]:1"));
        check("https://a/b", Err("`https://a/b` has a path; say paths with `--issuer-path`"));
        for text in [
            "",
            "a",
            "a:1",
            "/a",
            "ftp://a",
            "http://",
            "http://u@a",
            "http://a:",
            "http://a:0",
            "http://a/?b",
            "http://a#b",
        ] {
            check(text, Err(&format!("`{text}` is not `http://HOST:PORT` or `https://HOST:PORT`")));
        }
    }
}
