//! An application that uses rmcp, the MCP Rust SDK, as its guide does, once for each of two versions.
//!
//! Usage: `scopeward-e2e-rust-clients 0.17|3.11`. It leaves the choice of scopes to the SDK.

use std::error::Error;
use std::io::{BufRead, Write};

use serde_json::{Value, json};

type Failure = Box<dyn Error>;

/// The harness says what to do, one line of JSON at a time.
fn hear() -> Option<Value> {
    let mut line = String::new();
    match std::io::stdin().lock().read_line(&mut line) {
        Ok(length) if length > 0 => serde_json::from_str(&line).ok(),
        _ => None,
    }
}

fn say(message: &Value) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{message}").and_then(|()| out.flush());
}

/// Has the browser of the harness visit a page; the URL that it was sent back to.
fn visit(url: &str) -> Result<String, Failure> {
    say(&json!({ "visit": url }));
    let callback =
        hear().and_then(|answer| answer["callback"].as_str().map(str::to_owned)).ok_or("no callback")?;
    match parameter(&callback, "error") {
        Some(error) => Err(format!("OAuth authorization failed: {error}").into()),
        None => Ok(callback),
    }
}

fn parameter(url: &str, name: &str) -> Option<String> {
    let url = reqwest::Url::parse(url).ok()?;
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// With its causes, since the outermost message alone often says nothing.
fn told(failure: &dyn Error) -> String {
    let mut text = failure.to_string();
    let mut cause = failure.source();
    while let Some(error) = cause {
        let inner = error.to_string();
        if !text.contains(&inner) {
            text.push_str(": ");
            text.push_str(&inner);
        }
        cause = error.source();
    }
    text
}

mod rmcp_0_17 {
    use ::rmcp_0_17 as rmcp;
    include!("application.rs");

    const KEEPS_REGISTRATIONS: bool = false;

    async fn start(state: &mut OAuthState, settings: &Settings, _: Option<&str>) -> Result<(), Failure> {
        let document = settings.document.as_deref();
        Ok(state
            .start_authorization_with_metadata_url(
                &[],
                &settings.redirect_uri,
                Some("Example Tool"),
                document,
            )
            .await?)
    }

    async fn finish(state: &mut OAuthState, callback: &str) -> Result<(), Failure> {
        let (code, csrf) = (parameter(callback, "code"), parameter(callback, "state"));
        Ok(state.handle_callback(&code.unwrap_or_default(), &csrf.unwrap_or_default()).await?)
    }

    async fn redeem(manager: &AuthorizationManager, callback: &str) -> Result<(), Failure> {
        let (code, csrf) = (parameter(callback, "code"), parameter(callback, "state"));
        manager.exchange_code_for_token(&code.unwrap_or_default(), &csrf.unwrap_or_default()).await?;
        Ok(())
    }
}

mod rmcp_3_11 {
    use ::rmcp_3_11 as rmcp;
    include!("application.rs");

    const KEEPS_REGISTRATIONS: bool = true;

    async fn start(
        state: &mut OAuthState,
        settings: &Settings,
        client_id: Option<&str>,
    ) -> Result<(), Failure> {
        let mut request = rmcp::transport::auth::AuthorizationRequest::new(&settings.redirect_uri)
            .with_client_name("Example Tool");
        if let Some(client_id) = client_id {
            request = request.with_preregistered_client(client_id);
        }
        if let Some(document) = &settings.document {
            request = request.with_client_metadata_url(document);
        }
        Ok(state.start_authorization(request).await?)
    }

    async fn finish(state: &mut OAuthState, callback: &str) -> Result<(), Failure> {
        Ok(state.handle_callback_url(callback).await?)
    }

    async fn redeem(manager: &AuthorizationManager, callback: &str) -> Result<(), Failure> {
        let found = rmcp::transport::auth::AuthorizationCallback::from_redirect_url(callback)?;
        manager
            .exchange_code_for_token_with_issuer(&found.code, &found.csrf_token, found.issuer.as_deref())
            .await?;
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("0.17") => rmcp_0_17::serve().await,
        Some("3.11") => rmcp_3_11::serve().await,
        _ => std::process::exit(2),
    }
}
