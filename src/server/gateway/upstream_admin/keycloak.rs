//! The admin API of Keycloak: `/admin/realms`, with a token of a service account that has `manage-clients`.
//!
//! Scopes are added as optional client scopes, one by one: Keycloak changes nothing else by that. `openid` is none of them, since
//! every client of OpenID Connect has it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use hashbrown::HashMap;
use http::{HeaderValue, Method, StatusCode};
use tokio::sync::Mutex;
use tokio::time::{Duration, Instant};

use super::{AdminBody, AdminError, AdminHttp, StoredClient, encoded, json_of, secret_header, unexpected};
use crate::gateway::metadata::ClientMetadata;
use crate::scope;
use crate::strict_json::StrictJson;

/// The admin API of a Keycloak.
#[derive(Debug)]
pub(super) struct KeycloakAdmin {
    http: AdminHttp,
    /// Of the service account, if it is not that of the clients.
    realm: Option<String>,
    /// By realm of the account.
    tokens: Mutex<HashMap<String, KeptToken>>,
    /// Ids of client scopes, by realm and name.
    scope_ids: Mutex<HashMap<(String, String), String>>,
}

#[derive(Clone, Debug)]
struct KeptToken {
    header: HeaderValue,
    until: Instant,
}

impl KeycloakAdmin {
    pub(super) fn new(http: AdminHttp, realm: Option<String>) -> Self {
        Self { http, realm, tokens: Mutex::default(), scope_ids: Mutex::default() }
    }

    /// A client of a realm; `None` if there is none.
    pub(super) async fn look_up(
        &self,
        realm: &str,
        client_id: &str,
    ) -> Result<Option<StoredClient>, AdminError> {
        const WHAT: &str = "a client";
        if client_id.is_empty() {
            return Ok(None);
        }
        let path = format!("/admin/realms/{}/clients?clientId={}", encoded(realm), encoded(client_id));
        let (status, body) = self.ask(realm, Method::GET, &path, WHAT).await?;
        if status != StatusCode::OK {
            return Err(unexpected(WHAT, status));
        }
        let invalid = |how: &str| AdminError::Answer { what: WHAT, how: how.to_owned() };
        let StrictJson::Array(found) = json_of(WHAT, &body)? else { return Err(invalid("it is no list")) };
        let is_it =
            |client: &&StrictJson| client.get("clientId").and_then(StrictJson::as_str) == Some(client_id);
        let Some(client) = found.iter().find(is_it) else { return Ok(None) };
        let handle = client.get("id").and_then(StrictJson::as_str).ok_or_else(|| invalid("it has no id"))?;
        let texts = |name: &str| -> Result<Vec<&str>, AdminError> {
            match client.get(name) {
                None => Ok(Vec::new()),
                Some(StrictJson::Array(entries)) => entries
                    .iter()
                    .map(|entry| {
                        entry.as_str().ok_or_else(|| invalid("a list has something else than strings"))
                    })
                    .collect(),
                Some(_) => Err(invalid("a list is none")),
            }
        };
        let mut scopes = vec![OPENID];
        scopes.extend(texts("defaultClientScopes")?);
        scopes.extend(texts("optionalClientScopes")?);
        let metadata = ClientMetadata {
            client_name: client.get("name").and_then(StrictJson::as_str).unwrap_or_default().to_owned(),
            redirect_uris: texts("redirectUris")?.into_iter().map(str::to_owned).collect(),
            ..ClientMetadata::default()
        };
        Ok(Some(StoredClient { handle: handle.to_owned(), scope: scope::join(&scopes), metadata }))
    }

    /// Gives a client of a realm more scopes.
    pub(super) async fn add(
        &self,
        realm: &str,
        stored: &StoredClient,
        scopes: &[&str],
    ) -> Result<(), AdminError> {
        const WHAT: &str = "a change of a client";
        for scope in scopes {
            let mut is_known_anew = false;
            loop {
                let id = self.scope_id(realm, scope, &mut is_known_anew).await?;
                let path = format!(
                    "/admin/realms/{}/clients/{}/optional-client-scopes/{}",
                    encoded(realm),
                    encoded(&stored.handle),
                    encoded(&id)
                );
                let (status, _) = self.ask(realm, Method::PUT, &path, WHAT).await?;
                match status {
                    StatusCode::NO_CONTENT | StatusCode::OK => break,
                    // It may have been deleted and made again, with another id.
                    StatusCode::NOT_FOUND if !is_known_anew => {
                        self.scope_ids.lock().await.clear();
                    }
                    _ => return Err(unexpected(WHAT, status)),
                }
            }
        }
        Ok(())
    }

    /// The id of a client scope. Sets `is_new` if it was asked for now.
    async fn scope_id(&self, realm: &str, scope: &str, is_new: &mut bool) -> Result<String, AdminError> {
        const WHAT: &str = "the client scopes of a realm";
        let key = (realm.to_owned(), scope.to_owned());
        let mut ids = self.scope_ids.lock().await;
        if let Some(id) = ids.get(&key) {
            return Ok(id.clone());
        }
        *is_new = true;
        let path = format!("/admin/realms/{}/client-scopes", encoded(realm));
        let (status, body) = self.ask(realm, Method::GET, &path, WHAT).await?;
        if status != StatusCode::OK {
            return Err(unexpected(WHAT, status));
        }
        let invalid = || AdminError::Answer { what: WHAT, how: "it is no list of them".to_owned() };
        let StrictJson::Array(found) = json_of(WHAT, &body)? else { return Err(invalid()) };
        ids.retain(|(of, _), _| of != realm);
        for entry in &found {
            let text = |name| entry.get(name).and_then(StrictJson::as_str);
            let (Some(id), Some(name)) = (text("id"), text("name")) else { return Err(invalid()) };
            ids.insert((realm.to_owned(), name.to_owned()), id.to_owned());
        }
        ids.get(&key)
            .cloned()
            .ok_or_else(|| AdminError::NoScope { realm: realm.to_owned(), scope: scope.to_owned() })
    }

    /// Asks, and once more with a new token where the kept one is refused: it may have been revoked.
    async fn ask(
        &self,
        realm: &str,
        method: Method,
        path: &str,
        what: &'static str,
    ) -> Result<(StatusCode, Bytes), AdminError> {
        let realm = self.realm.as_deref().unwrap_or(realm);
        let (token, is_new) = self.token(realm, None).await?;
        let (status, body) = self.http.send(method.clone(), path, Some(token.clone()), None).await?;
        let (status, body) = match status {
            StatusCode::UNAUTHORIZED if !is_new => {
                let (token, _) = self.token(realm, Some(&token)).await?;
                self.http.send(method, path, Some(token), None).await?
            }
            _ => (status, body),
        };
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(unexpected(what, status)),
            _ => Ok((status, body)),
        }
    }

    /// A token of the service account, and whether it is new; `refused` is not taken again.
    async fn token(
        &self,
        realm: &str,
        refused: Option<&HeaderValue>,
    ) -> Result<(HeaderValue, bool), AdminError> {
        const WHAT: &str = "a token for the service account";
        let mut tokens = self.tokens.lock().await;
        if let Some(kept) = tokens.get(realm)
            && Some(&kept.header) != refused
            && Instant::now() < kept.until
        {
            return Ok((kept.header.clone(), false));
        }
        tokens.remove(realm);
        let file = self.http.credentials_file.clone().unwrap_or_default();
        let unusable = |cause: &str| AdminError::Credentials { path: file.clone(), cause: cause.to_owned() };
        let credentials = self.http.credentials()?.ok_or_else(|| unusable("there is none"))?;
        let (id, secret) =
            credentials.split_once(':').ok_or_else(|| unusable("it is not CLIENT_ID:SECRET"))?;
        // RFC 6749 section 2.3.1.
        let basic = BASE64_STANDARD.encode(format!("{}:{}", encoded(id), encoded(secret)));
        let basic = secret_header(&format!("Basic {basic}"));
        let path = format!("/realms/{}/protocol/openid-connect/token", encoded(realm));
        let form: AdminBody =
            Some(("application/x-www-form-urlencoded", "grant_type=client_credentials".to_owned()));
        let (status, body) = self.http.send(Method::POST, &path, basic, form).await?;
        match status {
            StatusCode::OK => {}
            // RFC 6749 section 5.2: `invalid_client` and `unauthorized_client`.
            StatusCode::BAD_REQUEST => return Err(AdminError::Refused { what: WHAT, status }),
            _ => return Err(unexpected(WHAT, status)),
        }
        let json = json_of(WHAT, &body)?;
        let token = json.get("access_token").and_then(StrictJson::as_str).unwrap_or_default();
        let header = secret_header(&format!("Bearer {token}")).filter(|_| !token.is_empty());
        let header = header
            .ok_or_else(|| AdminError::Answer { what: WHAT, how: "there is no token in it".to_owned() })?;
        let seconds = match json.get("expires_in") {
            Some(StrictJson::Number(seconds)) => seconds.as_u64().unwrap_or_default(),
            _ => 0,
        };
        let until = Instant::now() + Duration::from_secs(seconds.min(MAX_TOKEN_SECONDS)).mul_f64(0.8);
        tokens.insert(realm.to_owned(), KeptToken { header: header.clone(), until });
        Ok((header, true))
    }
}

const OPENID: &str = "openid";
const MAX_TOKEN_SECONDS: u64 = 3600;
