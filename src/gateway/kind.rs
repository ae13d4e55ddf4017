//! What is known of the authorization servers that are named by `--upstream-kind`.

use std::fmt;
use std::str::FromStr;

use super::endpoint::EndpointName;
use super::fold::fold;

/// Which authorization server stands behind a gateway. Each but `generic` is a preset.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum UpstreamKind {
    /// Any: all is taken from its discovery document and from flags.
    #[default]
    Generic,
    /// Ory Hydra.
    Hydra,
    /// Keycloak, one realm for each issuer path.
    Keycloak,
}

/// The text names no kind.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{}` is not `generic`, `hydra` or `keycloak`", crate::escape::shown(.0))]
pub struct UnknownKind(String);

impl UpstreamKind {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Generic, Self::Hydra, Self::Keycloak];

    /// The word of the flag.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Generic => "generic",
            Self::Hydra => "hydra",
            Self::Keycloak => "keycloak",
        }
    }

    /// The paths of an endpoint below an issuer path, whether discovery has it or not; the first is the one that a client
    /// would be told.
    #[must_use]
    pub const fn paths(self, endpoint: EndpointName) -> &'static [&'static str] {
        use EndpointName::{
            Authorization, Backchannel, DeviceAuthorization, PushedAuthorization, Registration,
        };
        match (self, endpoint) {
            (Self::Generic, _) | (Self::Hydra, PushedAuthorization | Backchannel) => &[],
            (Self::Hydra, Registration) => &["/oauth2/register"],
            (Self::Hydra, Authorization) => &["/oauth2/auth"],
            (Self::Hydra, DeviceAuthorization) => &["/oauth2/device/auth"],
            (Self::Keycloak, Registration) => &["/clients-registrations/openid-connect"],
            // The pages for a new user and a lost password begin a login, with the same parameters.
            (Self::Keycloak, Authorization) => &[
                "/protocol/openid-connect/auth",
                "/protocol/openid-connect/registrations",
                "/protocol/openid-connect/forgot-credentials",
            ],
            (Self::Keycloak, PushedAuthorization) => &["/protocol/openid-connect/ext/par/request"],
            (Self::Keycloak, DeviceAuthorization) => &["/protocol/openid-connect/auth/device"],
            (Self::Keycloak, Backchannel) => &["/protocol/openid-connect/ext/ciba/auth"],
        }
    }

    /// Returns `true` for a path behind which clients can be registered or changed unseen, or which belongs to another issuer.
    /// `folded` is the path decoded and in lower case, `issuers` are the issuer paths.
    pub(super) fn is_sibling_door(self, path: &str, folded: &str, issuers: &[String]) -> bool {
        match self {
            Self::Generic => false,
            // The admin API is on a port of its own; a proxy between may have joined the two.
            Self::Hydra => is_reached(folded, "/admin"),
            Self::Keycloak => issuers.iter().any(|issuer| {
                let base = fold(issuer.rsplit_once("/realms/").map_or("", |(base, _)| base));
                let registrations = fold(&format!("{issuer}/clients-registrations"));
                is_reached(folded, &format!("{base}/admin"))
                    // Names of realms are case-sensitive.
                    || is_reached(folded, &format!("{base}/realms"))
                        && !issuers.iter().any(|issuer| is_below(path, issuer))
                    || is_reached(folded, &registrations)
                        && !is_below(folded, &format!("{registrations}/openid-connect"))
                    || is_reached(folded, &fold(&format!("{issuer}/clients-managements")))
            }),
        }
    }
}

/// Returns `true` for a path itself and what is below it.
fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// As [`is_below`], for a path that a server may know by a name with an ending too.
fn is_reached(path: &str, door: &str) -> bool {
    is_below(path, door) || path.strip_prefix(door).is_some_and(|rest| rest.starts_with('.'))
}

impl fmt::Display for UpstreamKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for UpstreamKind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| UnknownKind(text.to_owned()))
    }
}
