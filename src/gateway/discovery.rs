//! Discovery documents (RFC 8414, OpenID Connect Discovery 1.0): where the endpoints are, whether clients will believe what
//! they read, and the document that they get.

use super::endpoint::{EndpointError, EndpointFlag, EndpointName, endpoint_path};
use super::kind::UpstreamKind;
use crate::escape::shown;
use crate::strict_json::{StrictJson, StrictJsonError};

/// Largest document in bytes.
pub const MAX_DOCUMENT_BYTES: usize = 1024 * 1024;

/// What a document is read against.
#[derive(Clone, Copy, Debug)]
pub struct DiscoveryRules<'a> {
    /// The preset.
    pub kind: UpstreamKind,
    /// The URL that clients see, without a trailing slash.
    pub public_url: &'a str,
    /// The URL of the upstream, without a trailing slash.
    pub upstream: &'a str,
    /// The issuer path: `""`, or one that begins with `/` and does not end with it.
    pub issuer_path: &'a str,
    /// What the operator said.
    pub flags: &'a [EndpointFlag],
    /// Whether URLs of the upstream become public ones.
    pub rewrite: bool,
    /// Whether request objects are refused, so that the document says so.
    pub refuses_request_objects: bool,
}

/// A document that was understood.
#[derive(Clone, Debug)]
pub struct DiscoveryDocument {
    json: StrictJson,
    /// The issuer as the upstream names it.
    pub issuer: String,
    /// The paths of the endpoints that are known, from the document, a flag or the preset.
    pub endpoints: Vec<(EndpointName, String)>,
    /// Whether the upstream puts `iss` into its authorization responses (RFC 9207).
    pub sends_iss: bool,
    /// Whether ID tokens name an issuer that is not the one of the document that clients get.
    pub is_rewritten: bool,
}

/// Why a document cannot be used. The text says what to configure, and where.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// More than [`MAX_DOCUMENT_BYTES`].
    #[error("the discovery document has more than {MAX_DOCUMENT_BYTES} bytes")]
    TooLong,
    /// Not strict JSON.
    #[error("the discovery document is not JSON: {0}")]
    Json(#[from] StrictJsonError),
    /// Without an issuer.
    #[error("the discovery document has no `issuer`")]
    NoIssuer,
    /// Another issuer than clients will ask for.
    #[error(
        "the upstream says that its issuer is `{}`, but clients will know it as `{}`: {}",
        shown(.found), shown(.wanted), remedy(*.kind, .wanted)
    )]
    Issuer {
        /// What it says.
        found: String,
        /// The public URL and the issuer path.
        wanted: String,
        /// Which remedy to name.
        kind: UpstreamKind,
    },
    /// An endpoint outside of the public URL.
    #[error(
        "the upstream says that its `{member}` is `{}`, which is not below `{}`: {}",
        shown(.found), shown(.public_url), remedy(*.kind, .public_url)
    )]
    Outside {
        /// The member.
        member: String,
        /// What it says.
        found: String,
        /// Where it should be.
        public_url: String,
        /// Which remedy to name.
        kind: UpstreamKind,
    },
    /// An endpoint whose path no request could have.
    #[error("the upstream says that its `{member}` is `{}`: {why}", shown(.found))]
    Path {
        /// The member.
        member: String,
        /// What it says.
        found: String,
        /// What is wrong with it.
        why: EndpointError,
    },
    /// An endpoint that the document has elsewhere than the flag.
    #[error(
        "`--endpoint {name}={}` is not what the discovery document says, `{}`: remove the flag, or correct one of them",
        shown(.flag), shown(.found)
    )]
    Differs {
        /// The endpoint.
        name: EndpointName,
        /// What the operator said.
        flag: String,
        /// What the document says.
        found: String,
    },
    /// No authorization endpoint.
    #[error(
        "the discovery document has no `authorization_endpoint`: configure one at the upstream, or say \
         `--endpoint authorization=/PATH`"
    )]
    NoAuthorization,
}

fn remedy(kind: UpstreamKind, url: &str) -> String {
    let url = shown(url);
    match kind {
        UpstreamKind::Hydra => format!(
            "set `urls.self.issuer` of Hydra to `{url}`, and `webfinger.oidc_discovery.client_registration_url` to \
             `{url}/oauth2/register`"
        ),
        UpstreamKind::Keycloak => {
            let hostname = url.split("/realms/").next().unwrap_or_default();
            format!("start Keycloak with `--hostname={hostname}`")
        }
        UpstreamKind::Generic => {
            format!("set the issuer, or the external URL, of the upstream so that it is `{url}`")
        }
    }
}

impl DiscoveryDocument {
    /// Reads a document.
    ///
    /// # Errors
    /// If clients would not believe it, or if it leads them past the gateway.
    pub fn read(rules: &DiscoveryRules<'_>, document: &[u8]) -> Result<Self, DiscoveryError> {
        if document.len() > MAX_DOCUMENT_BYTES {
            return Err(DiscoveryError::TooLong);
        }
        let mut json = StrictJson::read(document)?;
        let issuer =
            json.get("issuer").and_then(StrictJson::as_str).ok_or(DiscoveryError::NoIssuer)?.to_owned();
        let wanted = format!("{}{}", rules.public_url, rules.issuer_path);
        let mut is_rewritten = false;
        if !is_same_issuer(&issuer, &wanted) {
            if !rules.rewrite {
                return Err(DiscoveryError::Issuer { found: issuer, wanted, kind: rules.kind });
            }
            is_rewritten = true;
            // The issuer may have another host than the upstream is reached by, and its URLs follow it.
            let base = issuer.trim_end_matches('/');
            let base = base.strip_suffix(rules.issuer_path).unwrap_or(base).to_owned();
            rewrite(&mut json, &[&base, rules.upstream], rules.public_url);
            json.set("issuer", Some(wanted.as_str().into()));
        }
        let mut endpoints = Vec::new();
        for name in EndpointName::ALL {
            let said = said_path(rules, &json, name)?;
            let flag = rules.flags.iter().find(|flag| flag.name == name).map(|flag| flag.path.clone());
            let path = match (said, flag) {
                (Some(found), Some(flag)) if found != flag => {
                    return Err(DiscoveryError::Differs { name, flag, found });
                }
                (Some(path), _) => Some(path),
                (None, Some(path)) => {
                    json.set(&name.member(), Some(format!("{}{path}", rules.public_url).as_str().into()));
                    Some(path)
                }
                // Hydra does not say where clients register unless it is told to.
                (None, None) if rules.kind == UpstreamKind::Hydra && name == EndpointName::Registration => {
                    let path =
                        rules.kind.paths(name).first().map(|path| format!("{}{path}", rules.issuer_path));
                    if let Some(path) = &path {
                        json.set(&name.member(), Some(format!("{}{path}", rules.public_url).as_str().into()));
                    }
                    path
                }
                (None, None) => None,
            };
            endpoints.extend(path.map(|path| (name, path)));
        }
        if !endpoints.iter().any(|(name, _)| *name == EndpointName::Authorization) {
            return Err(DiscoveryError::NoAuthorization);
        }
        // They lead to other hosts, or say in a signature what is changed here.
        json.set("mtls_endpoint_aliases", None);
        json.set("signed_metadata", None);
        if rules.refuses_request_objects {
            for member in ["request_parameter_supported", "request_uri_parameter_supported"] {
                json.set(member, Some(StrictJson::Bool(false)));
            }
        }
        let sends_iss =
            json.get("authorization_response_iss_parameter_supported") == Some(&StrictJson::Bool(true));
        Ok(Self { json, issuer, endpoints, sends_iss, is_rewritten })
    }

    /// The document for clients: only these scopes are advertised, since clients register all that are.
    #[must_use]
    pub fn advertising<'s>(&self, scopes: impl IntoIterator<Item = &'s str>) -> String {
        let mut json = self.json.clone();
        let scopes = scopes.into_iter().map(StrictJson::from).collect();
        json.set("scopes_supported", Some(StrictJson::Array(scopes)));
        json.write()
    }
}

/// Issuers are compared byte for byte (RFC 8414 section 3.3), but for the `/` of one without a path.
fn is_same_issuer(found: &str, wanted: &str) -> bool {
    let bare = |issuer: &str| {
        let has_no_path = issuer.split_once("://").is_some_and(|(_, rest)| rest.matches('/').count() == 1);
        issuer.strip_suffix('/').filter(|_| has_no_path).unwrap_or(issuer).to_owned()
    };
    bare(found) == bare(wanted)
}

/// The path of an endpoint in the document.
fn said_path(
    rules: &DiscoveryRules<'_>,
    json: &StrictJson,
    name: EndpointName,
) -> Result<Option<String>, DiscoveryError> {
    let member = name.member();
    let Some(value) = json.get(&member) else { return Ok(None) };
    let found = value.as_str().unwrap_or_default();
    let outside = || DiscoveryError::Outside {
        member: member.clone(),
        found: found.to_owned(),
        public_url: rules.public_url.to_owned(),
        kind: rules.kind,
    };
    let path =
        found.strip_prefix(rules.public_url).filter(|path| path.starts_with('/')).ok_or_else(outside)?;
    // RFC 6749 section 3.1: the URI of an endpoint may have a query.
    let path = path.split('?').next().unwrap_or_default();
    endpoint_path(path).map_err(|why| DiscoveryError::Path {
        member: member.clone(),
        found: found.to_owned(),
        why,
    })?;
    Ok(Some(path.to_owned()))
}

/// Gives each text that begins with one of the bases the public one.
fn rewrite(json: &mut StrictJson, bases: &[&str], public_url: &str) {
    match json {
        StrictJson::Text(text) => {
            let below = bases.iter().find_map(|base| {
                text.strip_prefix(base).filter(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
            });
            if let Some(rest) = below {
                *text = format!("{public_url}{rest}");
            }
        }
        StrictJson::Array(values) => values.iter_mut().for_each(|value| rewrite(value, bases, public_url)),
        StrictJson::Object(members) => {
            members.iter_mut().for_each(|(_, value)| rewrite(value, bases, public_url));
        }
        StrictJson::Null | StrictJson::Bool(_) | StrictJson::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(kind: UpstreamKind) -> DiscoveryRules<'static> {
        DiscoveryRules {
            kind,
            public_url: "https://gw",
            upstream: "http://up:4444",
            issuer_path: "",
            flags: &[],
            rewrite: false,
            refuses_request_objects: false,
        }
    }

    /// The endpoints, and the document for clients.
    type Found<'a> = (&'a [(EndpointName, &'a str)], &'a str);

    /// What is found, or the sentence.
    #[track_caller]
    fn check(rules: &DiscoveryRules<'_>, document: &str, expected: Result<Found<'_>, &str>) {
        let read = DiscoveryDocument::read(rules, document.as_bytes());
        let read =
            read.map_err(|why| why.to_string()).map(|read| (read.endpoints.clone(), read.advertising(["a"])));
        match (read, expected) {
            (Ok((endpoints, text)), Ok((expected, document))) => {
                let endpoints: Vec<_> = endpoints.iter().map(|(name, path)| (*name, path.as_str())).collect();
                assert_eq!((&*endpoints, &*text), (expected, document));
            }
            (read, expected) => {
                assert_eq!(read.map(|_| ()), expected.map(|_| ()).map_err(str::to_owned), "{document}");
            }
        }
    }

    use EndpointName::{Authorization, PushedAuthorization, Registration};

    #[test]
    fn endpoints_are_found_and_the_document_is_made_true() {
        check(
            &rules(UpstreamKind::Generic),
            r#"{"issuer":"https://gw/","authorization_endpoint":"https://gw/a?t=1","registration_endpoint":"https://gw/r",
                "scopes_supported":["x"],"mtls_endpoint_aliases":{"token_endpoint":"https://m/t"},"signed_metadata":"x"}"#,
            Ok((
                &[(Registration, "/r"), (Authorization, "/a")],
                r#"{"issuer":"https://gw/","authorization_endpoint":"https://gw/a?t=1","registration_endpoint":"https://gw/r","scopes_supported":["a"]}"#,
            )),
        );
        let refusing = DiscoveryRules { refuses_request_objects: true, ..rules(UpstreamKind::Hydra) };
        check(
            &refusing,
            r#"{"issuer":"https://gw","authorization_endpoint":"https://gw/oauth2/auth"}"#,
            Ok((
                &[(Registration, "/oauth2/register"), (Authorization, "/oauth2/auth")],
                r#"{"issuer":"https://gw","authorization_endpoint":"https://gw/oauth2/auth","registration_endpoint":"https://gw/oauth2/register","request_parameter_supported":false,"request_uri_parameter_supported":false,"scopes_supported":["a"]}"#,
            )),
        );
        let flags = [EndpointFlag { name: PushedAuthorization, path: "/par".into() }];
        check(
            &DiscoveryRules { flags: &flags, issuer_path: "/t", ..rules(UpstreamKind::Generic) },
            r#"{"issuer":"https://gw/t","authorization_endpoint":"https://gw/t/a"}"#,
            Ok((
                &[(Authorization, "/t/a"), (PushedAuthorization, "/par")],
                r#"{"issuer":"https://gw/t","authorization_endpoint":"https://gw/t/a","pushed_authorization_request_endpoint":"https://gw/par","scopes_supported":["a"]}"#,
            )),
        );
    }

    #[test]
    fn a_stopgap_rewrites_the_urls_of_the_upstream() {
        let rules = DiscoveryRules { rewrite: true, issuer_path: "/t", ..rules(UpstreamKind::Generic) };
        let document = r#"{"issuer":"http://name/t","authorization_endpoint":"http://name/t/a","jwks_uri":"http://up:4444/t/k","x":["http://other/","http://named/"]}"#;
        check(
            &rules,
            document,
            Ok((
                &[(Authorization, "/t/a")],
                r#"{"issuer":"https://gw/t","authorization_endpoint":"https://gw/t/a","jwks_uri":"https://gw/t/k","x":["http://other/","http://named/"],"scopes_supported":["a"]}"#,
            )),
        );
        let read = DiscoveryDocument::read(&rules, document.as_bytes()).unwrap();
        assert!(read.is_rewritten && read.issuer == "http://name/t");
    }

    #[test]
    fn what_clients_would_not_believe_says_what_to_configure() {
        let generic = rules(UpstreamKind::Generic);
        check(
            &generic,
            r#"{"issuer":"http://up:4444","authorization_endpoint":"http://up:4444/a"}"#,
            Err(
                "the upstream says that its issuer is `http://up:4444`, but clients will know it as `https://gw`: set the issuer, or the external URL, of the upstream so that it is `https://gw`",
            ),
        );
        check(
            &rules(UpstreamKind::Hydra),
            r#"{"issuer":"https://gw/x"}"#,
            Err(
                "the upstream says that its issuer is `https://gw/x`, but clients will know it as `https://gw`: set `urls.self.issuer` of Hydra to `https://gw`, and `webfinger.oidc_discovery.client_registration_url` to `https://gw/oauth2/register`",
            ),
        );
        check(
            &DiscoveryRules { issuer_path: "/realms/t", ..rules(UpstreamKind::Keycloak) },
            r#"{"issuer":"http://localhost/realms/t"}"#,
            Err(
                "the upstream says that its issuer is `http://localhost/realms/t`, but clients will know it as `https://gw/realms/t`: start Keycloak with `--hostname=https://gw`",
            ),
        );
        let flags = [EndpointFlag { name: Authorization, path: "/b".into() }];
        check(
            &DiscoveryRules { flags: &flags, ..generic },
            r#"{"issuer":"https://gw","authorization_endpoint":"https://gw/a"}"#,
            Err(
                "`--endpoint authorization=/b` is not what the discovery document says, `/a`: remove the flag, or correct one of them",
            ),
        );
        check(
            &generic,
            r#"{"issuer":"https://gw","authorization_endpoint":"https://gw.evil/a"}"#,
            Err(
                "the upstream says that its `authorization_endpoint` is `https://gw.evil/a`, which is not below `https://gw`: set the issuer, or the external URL, of the upstream so that it is `https://gw`",
            ),
        );
        check(
            &generic,
            r#"{"issuer":"https://gw","authorization_endpoint":"https://gw/a/../b"}"#,
            Err(
                "the upstream says that its `authorization_endpoint` is `https://gw/a/../b`: path `/a/../b`: the path has a dot segment",
            ),
        );
        check(
            &generic,
            r#"{"issuer":"https://gw"}"#,
            Err(
                "the discovery document has no `authorization_endpoint`: configure one at the upstream, or say `--endpoint authorization=/PATH`",
            ),
        );
        check(&generic, "{}", Err("the discovery document has no `issuer`"));
        check(&generic, r#"{"issuer":1}"#, Err("the discovery document has no `issuer`"));
        check(
            &generic,
            r#"{"issuer":"https://gw","issuer":"https://gw"}"#,
            Err("the discovery document is not JSON: duplicate member `issuer` at line 1 column 31"),
        );
    }
}
