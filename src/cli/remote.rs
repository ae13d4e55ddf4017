//! A server on the other side: its address, the way there, and its errors in words.
//!
//! For all verbs that ask one. What is asked is theirs.

use std::fmt::{self, Write};
use std::future::Future;
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use http::HeaderValue;
use tokio_rustls::TlsConnector;
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use self::address::ServerAddress;
pub(super) use self::credentials::{CredentialArgs, TlsArgs};
pub(super) use self::transport::Remote;
use self::transport::TransportProblem;
use super::output::Format;
use super::value::positive_duration;
use crate::server::dial::cause;

pub(super) mod address;
mod credentials;
pub(super) mod retry;
mod transport;

/// Which server, and how its answer is printed.
#[derive(Args, Debug)]
pub(super) struct ServerArgs {
    #[command(flatten)]
    pub(super) server: ServerTarget,
    #[command(flatten)]
    pub(super) timeout: TimeoutArgs,
    /// How to print the answer
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(super) output: Format,
}

/// A server, and how it and the caller know each other. Printed as its address.
#[derive(Args, Clone, Debug)]
pub(super) struct ServerTarget {
    /// Where the server listens: HOST:PORT, http://HOST:PORT, https://HOST:PORT or unix:/PATH
    #[arg(long = "server", id = "server", value_name = "SERVER", default_value = DEFAULT_SERVER)]
    pub(super) address: ServerAddress,
    #[command(flatten)]
    pub(super) credentials: CredentialArgs,
}

impl fmt::Display for ServerTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(formatter)
    }
}

/// How long a server may take to answer.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct TimeoutArgs {
    /// How long to wait for the answer, connecting included, such as 500ms or 10s
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = positive_duration)]
    timeout: Duration,
}

impl TimeoutArgs {
    /// Runs one step to its end, unless that takes longer; `None` if it does.
    pub(super) async fn run<T>(self, step: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(self.timeout, step).await.ok()
    }

    /// The same, but no longer than this.
    pub(super) fn at_most(self, longest: Duration) -> Self {
        Self { timeout: self.timeout.min(longest) }
    }

    /// What is said where there was no answer in time.
    pub(super) fn error(self) -> anyhow::Error {
        anyhow!("no answer within {}", self.shown())
    }

    /// For people.
    pub(super) fn shown(self) -> String {
        shown(self.timeout)
    }
}

/// `10 s`, or `500 ms` for what is not whole seconds.
pub(super) fn shown(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("{} s", duration.as_secs()),
        _ => format!("{} ms", duration.as_millis()),
    }
}

/// Connects to a server.
///
/// # Errors
/// If it cannot connect, or a file with credentials cannot be used.
pub(super) async fn connect(server: &ServerTarget, limit: TimeoutArgs) -> anyhow::Result<Remote> {
    let ServerTarget { address, credentials } = server;
    let tls = match address {
        ServerAddress::Https(_) | ServerAddress::HttpsAt(..) => Some(credentials.tls()?),
        ServerAddress::Http(_) | ServerAddress::Unix(_) => None,
    };
    connect_with(address, tls, credentials.token(address)?, limit).await
}

/// Connects to a server, over TLS to an https server, and shows `token` with each call.
///
/// # Errors
/// If it cannot connect.
pub(super) async fn connect_with(
    address: &ServerAddress,
    tls: Option<TlsConnector>,
    token: Option<HeaderValue>,
    limit: TimeoutArgs,
) -> anyhow::Result<Remote> {
    // No time-out of its own for calls: it would race with the limit, whose message says what happened.
    let endpoint = Endpoint::from(address.uri())
        .connect_timeout(limit.timeout)
        // A stream may be silent for long; a server that is gone must not look like one.
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    Ok(Remote::connect(address, endpoint, tls, token).await?)
}

/// Runs one call to its end on a runtime of its own, unless it takes longer than `limit`.
///
/// # Errors
/// Those of the call, or that there was no answer in time.
pub(super) fn wait<T>(
    limit: TimeoutArgs,
    call: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(limit.run(call)).unwrap_or_else(|| Err(limit.error()))
}

/// An error of a call in one line: code, reason and message of a server, or why there is no answer.
pub(super) fn said(status: &Status) -> String {
    if let Some(problem) = TransportProblem::of(status) {
        return problem.to_string();
    }
    if std::error::Error::source(status).is_some() {
        // A status that a server sent has no cause here.
        return format!("the connection was lost before the whole answer was here: {}", cause(status));
    }
    let mut text = code_name(status.code());
    if let Some(info) = status.get_details_error_info() {
        // Writing to a String does not fail.
        _ = write!(text, " ({})", info.reason);
    }
    _ = write!(text, ": {}", status.message());
    text
}

/// The name of a code as the gRPC documentation has it, such as INVALID_ARGUMENT.
fn code_name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

const DEFAULT_SERVER: &str = "http://127.0.0.1:50551";
/// How long a connection may be silent when it is asked.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a silent connection is asked whether it lives; servers take more often for abuse.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// The largest answer that is taken: a page of descriptions can be long.
pub(super) const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_their_documented_names() {
        assert_eq!(code_name(Code::InvalidArgument), "INVALID_ARGUMENT");
        assert_eq!(code_name(Code::Unavailable), "UNAVAILABLE");
        assert_eq!(code_name(Code::OutOfRange), "OUT_OF_RANGE");
        assert_eq!(code_name(Code::DataLoss), "DATA_LOSS");
    }
}
