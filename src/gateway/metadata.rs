//! Registrations (RFC 7591) and their updates (RFC 7592): the metadata of a client on its way to the authorization server,
//! and what that says it registered.

use super::fold::other_spelling;
use super::kind::UpstreamKind;
use super::object;
use crate::escape::shown;
use crate::scope;
use crate::strict_json::StrictJson;

/// Largest body in bytes.
pub const MAX_METADATA_BYTES: usize = 256 * 1024;

/// The members that are read. Servers that fold names (Go's `encoding/json` does) take the last of all spellings.
const MEMBERS: [&str; 14] = [
    "scope",
    "client_id",
    "client_name",
    "software_id",
    "software_version",
    "software_statement",
    "redirect_uris",
    "grant_types",
    "application_type",
    "registration_client_uri",
    "registration_access_token",
    "client_secret",
    "response_types",
    "token_endpoint_auth_method",
];

/// Why a registration is refused: `invalid_client_metadata`, and `unapproved_software_statement` for a statement
/// (RFC 7591 section 3.2.2).
#[derive(Debug, thiserror::Error)]
pub enum MetadataRefusal {
    /// More than [`MAX_METADATA_BYTES`].
    #[error("the client metadata have more than {MAX_METADATA_BYTES} bytes")]
    TooLong,
    /// Not strict JSON.
    #[error("the client metadata are not JSON: {0}")]
    Json(#[from] crate::strict_json::StrictJsonError),
    /// Another JSON value.
    #[error("the client metadata are not a JSON object")]
    NotAnObject,
    /// A name that some servers take for another.
    #[error("member `{}` is another spelling of `{name}`", shown(.spelling))]
    Spelling {
        /// As received.
        spelling: String,
        /// What is taken for it.
        name: &'static str,
    },
    /// A member of another type.
    #[error("member `{name}` is not {expected}")]
    Type {
        /// Its name.
        name: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// A software statement that cannot be read, or that has a scope: it would count before the one that was decided
    /// (RFC 7591 section 2.3).
    #[error("the software statement has a scope, or cannot be read")]
    Statement,
}

impl MetadataRefusal {
    /// The error code for the client.
    #[must_use]
    pub const fn error(&self) -> &'static str {
        match self {
            Self::Statement => "unapproved_software_statement",
            _ => "invalid_client_metadata",
        }
    }
}

/// What a client says of itself. Empty where it says nothing.
#[derive(Clone, Debug, Default, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClientMetadata {
    /// `client_name`.
    pub client_name: String,
    /// `software_id`.
    pub software_id: String,
    /// `software_version`.
    pub software_version: String,
    /// `redirect_uris`.
    pub redirect_uris: Vec<String>,
    /// `grant_types`.
    pub grant_types: Vec<String>,
    /// `application_type`.
    pub application_type: String,
}

impl ClientMetadata {
    /// What an object of client metadata (RFC 7591 section 2) says.
    ///
    /// # Errors
    /// If a member has another type.
    pub fn read(json: &StrictJson) -> Result<Self, MetadataRefusal> {
        Ok(Self {
            client_name: text(json, "client_name")?.unwrap_or_default(),
            software_id: text(json, "software_id")?.unwrap_or_default(),
            software_version: text(json, "software_version")?.unwrap_or_default(),
            redirect_uris: texts(json, "redirect_uris")?,
            grant_types: texts(json, "grant_types")?,
            application_type: text(json, "application_type")?.unwrap_or_default(),
        })
    }
}

/// A registration as sent by a client.
#[derive(Clone, Debug)]
pub struct RegistrationBody {
    json: StrictJson,
    /// `scope`, `None` where it is not there or `null`.
    pub scope: Option<String>,
    /// `client_id`, which only an update has.
    pub client_id: Option<String>,
    /// What it says of itself.
    pub client: ClientMetadata,
}

impl RegistrationBody {
    /// Reads a body.
    ///
    /// # Errors
    /// The first [`MetadataRefusal`] that holds.
    pub fn read(body: &[u8]) -> Result<Self, MetadataRefusal> {
        if body.len() > MAX_METADATA_BYTES {
            return Err(MetadataRefusal::TooLong);
        }
        let json = StrictJson::read(body)?;
        if json.members().is_none() {
            return Err(MetadataRefusal::NotAnObject);
        }
        if let Some((spelling, name)) = other_spelling(&json, &MEMBERS) {
            return Err(MetadataRefusal::Spelling { spelling: spelling.to_owned(), name });
        }
        if let Some(statement) = text(&json, "software_statement")? {
            let payload = object::payload(&statement).map_err(|_| MetadataRefusal::Statement)?;
            // An empty or null scope is one too: it says none.
            let has_scope =
                payload.members().is_some_and(|members| members.iter().any(|(name, _)| name == "scope"));
            if has_scope || other_spelling(&payload, &["scope"]).is_some() {
                return Err(MetadataRefusal::Statement);
            }
        }
        let client = ClientMetadata::read(&json)?;
        Ok(Self { scope: text(&json, "scope")?, client_id: text(&json, "client_id")?, client, json })
    }

    /// The body with the scope that was decided, written anew: nothing of the bytes of the client is left.
    #[must_use]
    pub fn with_scope(&self, scope: &str) -> Vec<u8> {
        let mut json = self.json.clone();
        json.set("scope", Some(scope.into()));
        json.write().into_bytes()
    }
}

/// Against what the scope in an answer of the authorization server counts.
#[derive(Clone, Copy, Debug)]
pub enum Sent<'a> {
    /// A registration or an update with this scope: only what was sent can have been registered.
    Scope(&'a str),
    /// A read (RFC 7592 section 2.1): what the server has counts, but for what the gateway added to it there.
    Nothing {
        /// The registered scope so far; `None` for a client that is not known.
        known: Option<&'a str>,
        /// What was added at the server for authorize requests, which is not registered.
        added: &'a str,
    },
}

/// What an authorization server says it registered.
#[derive(Clone, Debug)]
pub struct RegistrationAnswer {
    /// `client_id`.
    pub client_id: String,
    /// What the client holds now: tokens with single spaces between, each once; may be empty.
    pub registered_scope: String,
    /// The server did not say which scope it registered, so none counts.
    pub says_no_scope: bool,
    /// What the server has of the client. Redirect URIs are the registered ones alone.
    pub client: ClientMetadata,
    /// The URI and token to change the client were removed, since the URI leads past the gateway.
    pub unmanaged: bool,
    /// The answer for the client.
    pub body: Vec<u8>,
}

/// Why an answer of an authorization server cannot be used: a `server_error`.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// It breaks the rules of a registration.
    #[error("the answer of the upstream to a registration: {0}")]
    Malformed(#[from] MetadataRefusal),
    /// It has no `client_id`.
    #[error("the answer of the upstream to a registration has no `client_id`")]
    NoClientId,
}

/// Reads the answer to a registration, an update or a read that succeeded.
///
/// `request` is what the client sent, if it sent something. `client_uri` turns the URI at which the server lets the client be
/// changed into the one for clients; `None` for one that leads past the gateway.
///
/// # Errors
/// If the answer is not strict JSON, has a member of another type, or no `client_id`.
pub fn read_answer(
    kind: UpstreamKind,
    sent: Sent<'_>,
    request: Option<&ClientMetadata>,
    client_uri: impl FnOnce(&str) -> Option<String>,
    body: &[u8],
) -> Result<RegistrationAnswer, AnswerError> {
    if body.len() > MAX_METADATA_BYTES {
        return Err(MetadataRefusal::TooLong.into());
    }
    let mut json = StrictJson::read(body).map_err(MetadataRefusal::from)?;
    if json.members().is_none() {
        return Err(MetadataRefusal::NotAnObject.into());
    }
    let client_id = text(&json, "client_id")?.filter(|id| !id.is_empty()).ok_or(AnswerError::NoClientId)?;
    let answered = text(&json, "scope")?;
    let says_no_scope = answered.is_none();
    let answered = answered.unwrap_or_default();
    let registered_scope = registered(kind, sent, &answered);
    let mut client = ClientMetadata::read(&json)?;
    if let Some(request) = request {
        // What a server does not repeat is as it was sent, since rules look at it at authorize too.
        for (answered, sent) in [
            (&mut client.client_name, &request.client_name),
            (&mut client.software_id, &request.software_id),
            (&mut client.software_version, &request.software_version),
            (&mut client.application_type, &request.application_type),
        ] {
            if answered.is_empty() {
                answered.clone_from(sent);
            }
        }
        if client.grant_types.is_empty() {
            client.grant_types.clone_from(&request.grant_types);
        }
    }
    if kind == UpstreamKind::Hydra
        && let StrictJson::Object(members) = &mut json
    {
        // ory/hydra#4116: clients refuse `"contacts": null` and `"client_uri": ""`.
        members.retain(|(name, value)| {
            name == "scope" || !matches!(value, StrictJson::Null) && value.as_str() != Some("")
        });
    }
    let uri = text(&json, "registration_client_uri")?;
    let uri_for_client = uri.as_deref().and_then(client_uri);
    let unmanaged = uri.is_some() && uri_for_client.is_none();
    json.set("registration_client_uri", uri_for_client.as_deref().map(StrictJson::from));
    if unmanaged {
        json.set("registration_access_token", None);
    }
    json.set("scope", Some(registered_scope.as_str().into()));
    let body = json.write().into_bytes();
    Ok(RegistrationAnswer { client_id, registered_scope, says_no_scope, client, unmanaged, body })
}

fn registered(kind: UpstreamKind, sent: Sent<'_>, answered: &str) -> String {
    let answered = scope::distinct_tokens(answered);
    // Keycloak registers `openid` and never says so.
    let is_silent = |token: &str| kind == UpstreamKind::Keycloak && token == "openid";
    let registered: Vec<&str> = match sent {
        Sent::Scope(sent) => scope::distinct_tokens(sent)
            .iter()
            .copied()
            .filter(|token| answered.contains(token) || is_silent(token))
            .collect(),
        Sent::Nothing { known, added } => {
            let known = scope::distinct_tokens(known.unwrap_or_default());
            let added = scope::distinct_tokens(added);
            let is_registered = |token: &&str| known.contains(token) || !added.contains(token);
            let silent = known.iter().copied().filter(|token| is_silent(token) && !answered.contains(token));
            silent.chain(answered.iter().copied().filter(is_registered)).collect()
        }
    };
    scope::join(&registered)
}

fn text(json: &StrictJson, name: &'static str) -> Result<Option<String>, MetadataRefusal> {
    let Some(value) = json.get(name) else { return Ok(None) };
    let text = value.as_str().ok_or(MetadataRefusal::Type { name, expected: "a string" })?;
    Ok(Some(text.to_owned()))
}

fn texts(json: &StrictJson, name: &'static str) -> Result<Vec<String>, MetadataRefusal> {
    const EXPECTED: &str = "an array of strings";
    match json.get(name) {
        None => Ok(Vec::new()),
        Some(StrictJson::Array(entries)) => entries
            .iter()
            .map(|entry| {
                entry.as_str().map(str::to_owned).ok_or(MetadataRefusal::Type { name, expected: EXPECTED })
            })
            .collect(),
        Some(_) => Err(MetadataRefusal::Type { name, expected: EXPECTED }),
    }
}

#[cfg(test)]
mod tests;
