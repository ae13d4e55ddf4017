//! `status`: what a running server serves, and whether it would take over the files as they are.
//!
//! Asks once, or watches and survives a restart of the server. What it looks like on a screen is in
//! [`table`], waiting for a policy in [`wait`].

use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use tokio::time::timeout;
use tonic::{Response, Status, Streaming};

use super::Exit;
use super::output::{Format, bad, is_screen, notable, print_error, print_to_reader};
use super::remote::retry::{Retries, may_pass};
use super::remote::{self, MAX_ANSWER_BYTES, ServerArgs, ServerTarget, TimeoutArgs, connect, said};
use crate::escape::clean;
use crate::proto::json;
use crate::rpc::policy_status::REPEAT_INTERVAL;
use crate::rpc::v1;
use crate::rpc::v1::policy_status_service_client::PolicyStatusServiceClient;

mod table;
pub(super) mod wait;

/// Show which policy a server serves, and what is wrong with the newest one
///
/// Exits with 0 if the server answered, whatever its state; 2 if it did not. With --digest, exits with 1
/// if it does not serve that policy; with --wait, it has until --timeout to do so.
#[derive(Args, Debug)]
pub(super) struct StatusVerb {
    /// Keep running and show each change; with JSON one line for each
    #[arg(long)]
    watch: bool,
    /// Wait until the server serves the policy of --digest; a server that is not there yet is waited for, too
    #[arg(long, requires = "digest", conflicts_with = "watch")]
    wait: bool,
    /// The policy that shall serve, as `check` prints it: sha256:...
    #[arg(long, value_name = "DIGEST", value_parser = wait::digest, conflicts_with = "watch")]
    digest: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs the verb.
///
/// # Errors
/// If there is no answer, or no server any more.
pub(super) fn run(verb: StatusVerb) -> anyhow::Result<Exit> {
    let StatusVerb {
        watch: is_watch,
        wait: is_wait,
        digest,
        server: ServerArgs { server, timeout: limit, output },
    } = verb;
    if is_watch {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(watch(&server, limit, output))?;
        return Ok(Exit::Yes);
    }
    if let Some(digest) = digest.as_deref().filter(|_| is_wait) {
        return wait::run(&server, limit, digest, output);
    }
    let status = remote::wait(limit, async {
        let mut client = PolicyStatusServiceClient::new(connect(&server, limit).await?)
            .max_decoding_message_size(MAX_ANSWER_BYTES);
        let answer = client.get_policy_status(v1::GetPolicyStatusRequest {}).await;
        let answer = answer.map(Response::into_inner).map_err(|status| anyhow!("{}", said(&status)))?;
        answer.status.ok_or_else(|| anyhow!("the server answered without a status"))
    })?;
    wait::print_status(&status, output)?;
    match digest.filter(|digest| !wait::is_served(&status, digest)) {
        None => Ok(Exit::Yes),
        Some(digest) => {
            let message = wait::not_served(&status, &digest);
            print_error(&format!("{}: {}\n", bad("error"), clean(&message)));
            Ok(Exit::No)
        }
    }
}

/// Shows each change until nobody reads any more. A server that goes away is waited for, for a while;
/// one that was never there is not.
async fn watch(server: &ServerTarget, limit: TimeoutArgs, output: Format) -> anyhow::Result<()> {
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

/// Opens a stream of states.
async fn open(
    server: &ServerTarget,
    limit: TimeoutArgs,
) -> Result<Streaming<v1::WatchPolicyStatusResponse>, StreamEnd> {
    let opened = async {
        let channel = connect(server, limit).await.map_err(StreamEnd::Lost)?;
        let mut client = PolicyStatusServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        Ok(client.watch_policy_status(v1::WatchPolicyStatusRequest {}).await?.into_inner())
    };
    limit.run(opened).await.unwrap_or_else(|| Err(StreamEnd::Lost(limit.error())))
}

async fn follow(
    server: &ServerTarget,
    limit: TimeoutArgs,
    display: &mut Display,
    retries: &mut Retries,
) -> StreamEnd {
    let mut stream = match open(server, limit).await {
        Ok(stream) => stream,
        Err(end) => return end,
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
