//! Which endpoint a request is for.

use std::fmt;

use percent_encoding::percent_decode_str;

use super::fold::fold;
use super::form::client_of_query;
use super::kind::UpstreamKind;
use super::path::{CanonicalTarget, PathRefusal};
use crate::escape::shown;

/// An endpoint at which a scope is decided.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum EndpointName {
    /// Dynamic registration (RFC 7591).
    Registration,
    /// The authorization endpoint (RFC 6749 section 3.1).
    Authorization,
    /// Pushed authorization requests (RFC 9126).
    PushedAuthorization,
    /// Device authorization (RFC 8628).
    DeviceAuthorization,
    /// Client-initiated backchannel authentication (OpenID Connect CIBA Core 1.0).
    Backchannel,
}

impl EndpointName {
    /// Each of them.
    pub const ALL: [Self; 5] = [
        Self::Registration,
        Self::Authorization,
        Self::PushedAuthorization,
        Self::DeviceAuthorization,
        Self::Backchannel,
    ];

    /// The word of the flag; with `_endpoint` it is the member of a discovery document (RFC 8414 section 2).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Registration => "registration",
            Self::Authorization => "authorization",
            Self::PushedAuthorization => "pushed_authorization_request",
            Self::DeviceAuthorization => "device_authorization",
            Self::Backchannel => "backchannel_authentication",
        }
    }

    /// The member of a discovery document.
    #[must_use]
    pub fn member(self) -> String {
        format!("{}_endpoint", self.as_str())
    }
}

impl fmt::Display for EndpointName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// An endpoint that an operator named: `registration=/oauth2/register`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EndpointFlag {
    /// Which one.
    pub name: EndpointName,
    /// Its path: canonical, without a trailing slash, not `/`.
    pub path: String,
}

/// Why a text names no endpoint.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EndpointError {
    /// No `=`.
    #[error("`{}` is not NAME=/PATH", shown(.0))]
    Form(String),
    /// Another name.
    #[error(
        "`{}` is not `registration`, `authorization`, `pushed_authorization_request`, `device_authorization` or \
         `backchannel_authentication`",
        shown(.0)
    )]
    Name(String),
    /// A path that no request could have.
    #[error("path `{}`: {why}", shown(.path))]
    Path {
        /// As given.
        path: String,
        /// What is wrong with it.
        why: PathRefusal,
    },
    /// `/`, or something that ends with one.
    #[error("path `{}` ends with `/`", shown(.0))]
    TrailingSlash(String),
    /// A query.
    #[error("path `{}` has a query", shown(.0))]
    HasQuery(String),
}

impl std::str::FromStr for EndpointFlag {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let (name, path) = text.split_once('=').ok_or_else(|| EndpointError::Form(text.to_owned()))?;
        let name = EndpointName::ALL
            .into_iter()
            .find(|known| known.as_str() == name)
            .ok_or_else(|| EndpointError::Name(name.to_owned()))?;
        Ok(Self { name, path: endpoint_path(path)?.to_owned() })
    }
}

/// Checks the path of an endpoint.
///
/// # Errors
/// If it is not one that a request could have, has a query, or ends with a slash.
pub fn endpoint_path(path: &str) -> Result<&str, EndpointError> {
    let target = CanonicalTarget::parse(path.as_bytes())
        .map_err(|why| EndpointError::Path { path: path.to_owned(), why })?;
    if target.query().is_some() {
        return Err(EndpointError::HasQuery(path.to_owned()));
    }
    if path.ends_with('/') {
        return Err(EndpointError::TrailingSlash(path.to_owned()));
    }
    Ok(path)
}

/// Checks an issuer path: `""`, or the path of an endpoint.
///
/// # Errors
/// As [`endpoint_path`].
pub fn issuer_path(path: &str) -> Result<&str, EndpointError> {
    match path {
        "" | "/" => Ok(""),
        _ => endpoint_path(path),
    }
}

/// Where a request goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum GatewayRoute {
    /// To an endpoint of an issuer, by its 0-based place.
    Endpoint(EndpointName, usize),
    /// To one registered client (RFC 7592), by the 0-based place of its issuer and its id, decoded: the path of the endpoint ends
    /// with it, or its query has it as `client_id`.
    ClientConfiguration(usize, String),
    /// The gateway answers it: the discovery document of an issuer, by its 0-based place.
    Discovery(usize),
    /// To the upstream, unasked and unchanged.
    Other,
    /// Nowhere.
    Refused(PathRefusal),
}

/// The endpoints of all issuers.
#[derive(Clone, Debug)]
pub struct EndpointTable {
    kind: UpstreamKind,
    issuers: Vec<String>,
    known: Vec<KnownPath>,
}

#[derive(Clone, Debug)]
struct KnownPath {
    path: String,
    folded: String,
    route: GatewayRoute,
}

impl EndpointTable {
    /// The table of a gateway with these issuer paths, in order (see [`issuer_path`]), before any endpoint of them is known but
    /// those of the preset.
    #[must_use]
    pub fn new(kind: UpstreamKind, issuers: &[String]) -> Self {
        let mut table = Self { kind, issuers: issuers.to_vec(), known: Vec::new() };
        for (place, issuer) in issuers.iter().enumerate() {
            for name in EndpointName::ALL {
                for path in kind.paths(name) {
                    table.add(name, place, &format!("{issuer}{path}"));
                }
            }
            for path in discovery_paths(issuer) {
                table.insert(path, GatewayRoute::Discovery(place));
            }
        }
        table
    }

    /// Adds an endpoint of an issuer by its path (see [`endpoint_path`]).
    pub fn add(&mut self, name: EndpointName, issuer: usize, path: &str) {
        self.insert(path.to_owned(), GatewayRoute::Endpoint(name, issuer));
    }

    fn insert(&mut self, path: String, route: GatewayRoute) {
        if !self.known.iter().any(|known| known.path == path) {
            let decoded = percent_decode_str(&path).decode_utf8_lossy();
            let folded = fold(&decoded);
            self.known.push(KnownPath { folded, path, route });
        }
    }

    /// The path of the first endpoint of this name that an issuer has.
    #[must_use]
    pub fn path(&self, name: EndpointName, issuer: usize) -> Option<&str> {
        let wanted = GatewayRoute::Endpoint(name, issuer);
        self.known.iter().find(|known| known.route == wanted).map(|known| known.path.as_str())
    }

    /// Where a request goes.
    #[must_use]
    pub fn route(&self, target: &CanonicalTarget<'_>) -> GatewayRoute {
        let (path, folded) = (target.path(), target.folded());
        if self.kind.is_sibling_door(path, folded, &self.issuers) {
            return GatewayRoute::Refused(PathRefusal::SiblingDoor);
        }
        if let Some(known) = self.known.iter().find(|known| known.path == path) {
            if let GatewayRoute::Endpoint(EndpointName::Registration, issuer) = known.route
                && let Some(query) = target.query()
                && let Ok(Some(id)) = client_of_query(query.as_bytes())
            {
                return GatewayRoute::ClientConfiguration(issuer, id);
            }
            return known.route.clone();
        }
        for known in &self.known {
            let Some(rest) = folded.strip_prefix(known.folded.as_str()) else { continue };
            // Frameworks take `/register/`, `/register.json` and `/register.` for `/register`.
            let is_same = rest.is_empty() || rest == "/" || rest.starts_with('.') && !rest.contains('/');
            if is_same {
                return GatewayRoute::Refused(PathRefusal::Spelling);
            }
            if let GatewayRoute::Endpoint(EndpointName::Registration, issuer) = known.route
                && rest.starts_with('/')
            {
                // RFC 7592 section 2: the URI of a client is most often the endpoint with its id behind.
                let id = path.strip_prefix(known.path.as_str()).and_then(|rest| rest.strip_prefix('/'));
                let is_plain = |id: &&str| !id.ends_with('/') && !id.contains(';');
                return id.filter(is_plain).map_or(GatewayRoute::Refused(PathRefusal::Spelling), |id| {
                    let id = percent_decode_str(id).decode_utf8_lossy().into_owned();
                    GatewayRoute::ClientConfiguration(issuer, id)
                });
            }
        }
        GatewayRoute::Other
    }
}

/// Where clients look for the document of an issuer path: behind it (OpenID Connect Discovery 1.0 section 4) and between host
/// and path (RFC 8414 section 3.1), each with both names.
fn discovery_paths(issuer: &str) -> impl Iterator<Item = String> {
    ["openid-configuration", "oauth-authorization-server"].into_iter().flat_map(move |name| {
        [format!("{issuer}/.well-known/{name}"), format!("/.well-known/{name}{issuer}")]
    })
}

#[cfg(test)]
mod tests;
