//! The admin API of Ory Hydra: `/admin/clients`.
//!
//! It has no compare-and-swap (a `test` operation of a JSON patch is answered with 500), so a client is read right before it is
//! changed, and this gateway must be the only one that does.

use http::{HeaderValue, Method, StatusCode};

use super::{AdminError, AdminHttp, StoredClient, encoded, json_of, secret_header, unexpected};
use crate::escape;
use crate::gateway::metadata::ClientMetadata;
use crate::scope;
use crate::strict_json::StrictJson;

/// The admin API of a Hydra.
#[derive(Debug)]
pub(super) struct HydraAdmin {
    http: AdminHttp,
}

impl HydraAdmin {
    pub(super) const fn new(http: AdminHttp) -> Self {
        Self { http }
    }

    /// A client; `None` if there is none.
    pub(super) async fn look_up(&self, client_id: &str) -> Result<Option<StoredClient>, AdminError> {
        const WHAT: &str = "a client";
        // `.` and `..` are no ids here: they would be another path.
        if client_id.is_empty() || matches!(client_id, "." | "..") {
            return Ok(None);
        }
        let (status, body) = self.http.send(Method::GET, &path(client_id), self.token()?, None).await?;
        match status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            _ => return Err(unexpected(WHAT, status)),
        }
        let json = json_of(WHAT, &body)?;
        let invalid = |how: &str| AdminError::Answer { what: WHAT, how: how.to_owned() };
        if json.get("client_id").and_then(StrictJson::as_str) != Some(client_id) {
            return Err(invalid("it is another client"));
        }
        let scope = match json.get("scope") {
            None => "",
            Some(scope) => scope.as_str().ok_or_else(|| invalid("its scope is not a string"))?,
        };
        let metadata = ClientMetadata::read(&json).map_err(|error| invalid(&error.to_string()))?;
        Ok(Some(StoredClient { handle: client_id.to_owned(), scope: scope.to_owned(), metadata }))
    }

    /// Gives a client more scopes.
    pub(super) async fn add(&self, stored: &StoredClient, scopes: &[&str]) -> Result<(), AdminError> {
        const WHAT: &str = "a change of a client";
        let all: Vec<&str> = scope::tokens(&stored.scope).chain(scopes.iter().copied()).collect();
        let patch = serde_json::json!([{"op": "replace", "path": "/scope", "value": scope::join(&all)}]);
        // A patch has a JSON form.
        let patch = escape::json(&patch).unwrap_or_default();
        let body = Some(("application/json", patch));
        let (status, body) =
            self.http.send(Method::PATCH, &path(&stored.handle), self.token()?, body).await?;
        if status != StatusCode::OK {
            return Err(unexpected(WHAT, status));
        }
        // What it says it has now.
        let json = json_of(WHAT, &body)?;
        let now = scope::distinct_tokens(json.get("scope").and_then(StrictJson::as_str).unwrap_or_default());
        match scopes.iter().all(|scope| now.contains(scope)) {
            true => Ok(()),
            false => Err(AdminError::Answer {
                what: WHAT,
                how: "the client does not have what was added".to_owned(),
            }),
        }
    }

    /// Hydra wants none; what stands before it may.
    fn token(&self) -> Result<Option<HeaderValue>, AdminError> {
        let Some(token) = self.http.credentials()? else { return Ok(None) };
        let unusable = || AdminError::Credentials {
            path: self.http.credentials_file.clone().unwrap_or_default(),
            cause: "it is not a token".to_owned(),
        };
        secret_header(&format!("Bearer {token}")).map(Some).ok_or_else(unusable)
    }
}

fn path(client_id: &str) -> String {
    format!("/admin/clients/{}", encoded(client_id))
}
