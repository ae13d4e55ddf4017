//! `status`: what a running server serves, and whether it would take over the files as they are.
//!
//! Asks once, or watches and survives a restart of the server. What it looks like on a screen is in
//! [`table`].

use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use tokio::time::timeout;
use tonic::{Response, Status};

use super::Exit;
use super::output::{Format, is_screen, notable, print, print_error, print_to_reader};
use super::remote::address::ServerAddress;
use super::remote::retry::{Retries, may_pass};
use super::remote::{MAX_ANSWER_BYTES, ServerArgs, TimeoutArgs, connect, said, wait};
use crate::escape::clean;
use crate::proto::json;
use crate::rpc::policy_status::REPEAT_INTERVAL;
use crate::rpc::v1;
use crate::rpc::v1::policy_status_service_client::PolicyStatusServiceClient;

mod table;

/// Show which policy a server serves, and what is wrong with the newest one
///
/// Exits with 0 if the server answered, whatever its state; 2 if it did not.
#[derive(Args, Debug)]
pub(super) struct StatusVerb {
    /// Keep running and show each change; with JSON one line for each
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs the verb.
///
/// # Errors
/// If there is no answer, or no server any more.
pub(super) fn run(verb: StatusVerb) -> anyhow::Result<Exit> {
    let StatusVerb { watch: is_watch, server: ServerArgs { server, timeout: limit, output } } = verb;
    if is_watch {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(watch(&server, limit, output))?;
        return Ok(Exit::Yes);
    }
    let status = wait(limit, async {
        let mut client = PolicyStatusServiceClient::new(connect(&server, limit).await?)
            .max_decoding_message_size(MAX_ANSWER_BYTES);
        let answer = client.get_policy_status(v1::GetPolicyStatusRequest {}).await;
        let answer = answer.map(Response::into_inner).map_err(|status| anyhow!("{}", said(&status)))?;
        answer.status.ok_or_else(|| anyhow!("the server answered without a status"))
    })?;
    print(&match output {
        Format::Text => table::text(&status),
        Format::Json => json::to_string_pretty(&status)? + "\n",
    })?;
    Ok(Exit::Yes)
}

/// Shows each change until nobody reads any more. A server that goes away is waited for, for a while;
/// one that was never there is not.
async fn watch(server: &ServerAddress, limit: TimeoutArgs, output: Format) -> anyhow::Result<()> {
    let mut display = Display { output, is_screen: is_screen(), shown: None };
    let mut retries = Retries::default();
    loop {
        match follow(server, limit, &mut display, &mut retries).await {
            StreamEnd::NoReader => return Ok(()),
            StreamEnd::Failed(error) => return Err(error),
            StreamEnd::Lost(error) if display.shown.is_none() => return Err(error),
            StreamEnd::Lost(error) => {
                let Some(delay) = retries.next() else { return Err(error) };
                if retries.is_first() {
                    let error = error.to_string();
                    let error = clean(&error);
                    print_error(&format!("{}: {error}; trying again\n", notable("warning")));
                }
                tokio::time::sleep(delay).await;
            }
        }
    }
}

/// Why a stream of states ended.
enum StreamEnd {
    /// Nobody reads what is printed.
    NoReader,
    /// The connection is gone or was never there. It may come back.
    Lost(anyhow::Error),
    /// Trying again would not help.
    Failed(anyhow::Error),
}

impl From<Status> for StreamEnd {
    fn from(status: Status) -> Self {
        let error = anyhow!("{}", said(&status));
        if may_pass(status.code()) { Self::Lost(error) } else { Self::Failed(error) }
    }
}

async fn follow(
    server: &ServerAddress,
    limit: TimeoutArgs,
    display: &mut Display,
    retries: &mut Retries,
) -> StreamEnd {
    let opened = async {
        let channel = connect(server, limit).await.map_err(StreamEnd::Lost)?;
        let mut client = PolicyStatusServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        Ok(client.watch_policy_status(v1::WatchPolicyStatusRequest {}).await?.into_inner())
    };
    let mut stream = match limit.run(opened).await {
        Some(Ok(stream)) => stream,
        Some(Err(end)) => return end,
        None => return StreamEnd::Lost(limit.error()),
    };
    loop {
        let message = match timeout(LONGEST_SILENCE, stream.message()).await {
            Ok(Ok(Some(message))) => message,
            Ok(Ok(None)) => return StreamEnd::Lost(anyhow!("the server at {server} ended the stream")),
            Ok(Err(status)) => return status.into(),
            Err(_) => return StreamEnd::Lost(anyhow!("the server at {server} fell silent")),
        };
        let Some(status) = message.status else { continue };
        retries.reset();
        match display.show(status) {
            Ok(true) => {}
            Ok(false) => return StreamEnd::NoReader,
            Err(error) => return StreamEnd::Failed(error),
        }
    }
}

/// Where states are shown, and the one that is.
struct Display {
    output: Format,
    is_screen: bool,
    shown: Option<v1::PolicyStatus>,
}

impl Display {
    /// Shows a state unless it is shown already: a server repeats it now and then. Tells whether there
    /// is a reader.
    fn show(&mut self, status: v1::PolicyStatus) -> anyhow::Result<bool> {
        if self.shown.as_ref() == Some(&status) {
            return Ok(true);
        }
        let text = match self.output {
            Format::Json => json::to_string(&status)? + "\n",
            Format::Text if self.is_screen => format!("{CLEAR}{}", table::text(&status)),
            Format::Text if self.shown.is_some() => format!("\n{}", table::text(&status)),
            Format::Text => table::text(&status),
        };
        self.shown = Some(status);
        Ok(print_to_reader(&text)?)
    }
}

/// Erases the screen and goes to its upper left corner (ECMA-48 sections 8.3.39 and 8.3.21).
const CLEAR: &str = "\u{1b}[2J\u{1b}[H";
/// A server repeats its state; one that leaves out two in a row is gone.
const LONGEST_SILENCE: Duration = REPEAT_INTERVAL.saturating_mul(3);
