// Included once for each version of the SDK, which is `rmcp` here.

use rmcp::ServiceExt;
use rmcp::service::{RoleClient, RunningService, ServiceError};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::auth::{AuthClient, AuthorizationManager, OAuthState};
use rmcp::transport::streamable_http_client::{StreamableHttpClientTransportConfig, StreamableHttpError};
use serde_json::{Value, json};

use super::{Failure, hear, parameter, say, told, visit};

#[derive(Default)]
struct Settings {
    server: String,
    redirect_uri: String,
    document: Option<String>,
}

#[derive(Default)]
struct Application {
    settings: Settings,
    client_id: Option<String>,
    client: Option<AuthClient<reqwest::Client>>,
    service: Option<RunningService<RoleClient, ()>>,
}

pub(super) async fn serve() {
    let mut application = Application::default();
    while let Some(message) = hear() {
        match application.act(&message).await {
            Ok(()) => say(&json!({ "ok": true })),
            Err(failure) => say(&json!({ "ok": false, "error": told(&*failure) })),
        }
    }
}

impl Application {
    async fn act(&mut self, message: &Value) -> Result<(), Failure> {
        let text = |name: &str| message[name].as_str().map(str::to_owned);
        match message["do"].as_str() {
            Some("new") => {
                let (server, redirect_uri) = (text("server").unwrap_or_default(), text("redirect_uri").unwrap_or_default());
                let settings = Settings { server, redirect_uri, document: text("client_metadata_url") };
                *self = Self { settings, ..Self::default() };
                Ok(())
            }
            Some("forget") => {
                self.client = None;
                Ok(())
            }
            Some("connect") => self.connect().await,
            Some("call") => self.call(&text("tool").unwrap_or_default()).await,
            _ => {
                self.service = None;
                Ok(())
            }
        }
    }

    async fn connect(&mut self) -> Result<(), Failure> {
        self.service = None;
        let client = match &self.client {
            Some(client) => client.clone(),
            None => self.log_in().await?,
        };
        let config = StreamableHttpClientTransportConfig::with_uri(self.settings.server.as_str());
        self.service = Some(().serve(StreamableHttpClientTransport::with_client(client, config)).await?);
        Ok(())
    }

    async fn log_in(&mut self) -> Result<AuthClient<reqwest::Client>, Failure> {
        let mut state = OAuthState::new(&self.settings.server, None).await?;
        let known = self.client_id.clone().filter(|_| KEEPS_REGISTRATIONS);
        start(&mut state, &self.settings, known.as_deref()).await?;
        let url = state.get_authorization_url().await?;
        self.client_id = parameter(&url, "client_id");
        let callback = visit(&url)?;
        finish(&mut state, &callback).await?;
        let manager = state.into_authorization_manager().ok_or("not authorized")?;
        let client = AuthClient::new(reqwest::Client::default(), manager);
        self.client = Some(client.clone());
        Ok(client)
    }

    /// Steps up once if the server wants another scope.
    async fn call(&mut self, tool: &str) -> Result<(), Failure> {
        let needed = match self.try_call(tool).await {
            Err(CallError::Scope(needed)) => needed,
            other => return Ok(other?),
        };
        if let Some(client) = &self.client {
            let manager = client.auth_manager.lock().await;
            let callback = visit(&manager.request_scope_upgrade(&needed).await?)?;
            redeem(&manager, &callback).await?;
        }
        Ok(self.try_call(tool).await?)
    }

    async fn try_call(&self, tool: &str) -> Result<(), CallError> {
        let service = self.service.as_ref().ok_or(CallError::Other("not connected".to_owned()))?;
        let parameters = serde_json::from_value(json!({ "name": tool, "arguments": {} }));
        let parameters = parameters.map_err(|error| CallError::Other(error.to_string()))?;
        match service.call_tool(parameters).await {
            Ok(_) => Ok(()),
            Err(error) => Err(CallError::from(error)),
        }
    }
}

#[derive(Debug)]
enum CallError {
    Scope(String),
    Other(String),
}

impl From<ServiceError> for CallError {
    fn from(error: ServiceError) -> Self {
        if let ServiceError::TransportSend(sent) = &error
            && let Some(StreamableHttpError::InsufficientScope(found)) =
                sent.error.downcast_ref::<StreamableHttpError<reqwest::Error>>()
            && let Some(needed) = found.get_required_scope()
        {
            return Self::Scope(needed.to_owned());
        }
        Self::Other(told(&error))
    }
}

impl std::fmt::Display for CallError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Scope(needed) => write!(formatter, "the server wants `{needed}`"),
            Self::Other(text) => formatter.write_str(text),
        }
    }
}

impl std::error::Error for CallError {}
