//! `audit forward` and `audit forward-schema`: the joined store by hand.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::audit::forward::{ForwardStatus, Forwarder};
use crate::audit::joined::{JoinedStore, JoinedTarget, SCHEMA};
use crate::cli::Exit;
use crate::cli::joined::JoinedCredentials;
use crate::cli::output::{Format, good, print};
use crate::escape;

/// Copy an audit log to the joined store in PostgreSQL or NATS
///
/// For a server that has stopped, and for batch jobs; a running server does it with `serve --audit-forward`. Asks the store what it has of
/// this log, writes what is missing, and makes the tables if they are not there and the role may.
///
/// Exits with 0 if the store has everything, 1 if it lost records that it cannot take again in their place, 2 if it could not be done; a
/// later run goes on from there.
#[derive(Args, Debug)]
pub(in crate::cli) struct ForwardArgs {
    /// Where to: postgres://USER@HOST:PORT/DATABASE, or nats://USER@HOST:PORT/STREAM
    #[arg(long, value_name = "URL")]
    audit_forward: String,
    /// Copy what there is, and end
    #[arg(long, required = true)]
    once: bool,
    /// The state directory of the server, which must have stopped
    #[arg(long, value_name = "DIR", default_value = ".scopeward")]
    state_dir: PathBuf,
    #[command(flatten)]
    credentials: JoinedCredentials,
    /// How to print the result
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

/// Print the statements that make the tables of the joined store, or run them; make its stream in NATS
///
/// Tables of an older version are brought up to date. The role that forwards needs INSERT and SELECT on the tables, and no more. A stream
/// that is there is looked at, and not changed.
#[derive(Args, Debug)]
pub(in crate::cli) struct ForwardSchemaArgs {
    /// Make them there: postgres://USER@HOST:PORT/DATABASE, or nats://USER@HOST:PORT/STREAM
    #[arg(long, value_name = "URL")]
    audit_forward: Option<String>,
    /// On how many servers of its cluster NATS keeps the stream: 3 for one that may lose one
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    replicas: u8,
    #[command(flatten)]
    credentials: JoinedCredentials,
}

/// Runs `audit forward`.
///
/// # Errors
/// If the log cannot be read, or the store not written.
pub(super) fn run(args: ForwardArgs) -> anyhow::Result<Exit> {
    let ForwardArgs { audit_forward: to, once: _, state_dir, credentials, output } = args;
    let target = credentials.target(&to)?;
    let shown = target.to_string();
    let mut forwarder = Forwarder::of_store(&state_dir, target)?;
    let log_id = forwarder.log_id().to_string();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ForwardStatus { forwarded, records, missing, lost, .. } = runtime.block_on(forwarder.run_once())?;
    let through = forwarded.unwrap_or(0);
    print(&match output {
        Format::Text => {
            let mut gap = String::new();
            if missing > 0 {
                gap.push_str(&format!("\n  missing   {missing}, deleted here before the store had them"));
            }
            if lost > 0 {
                gap.push_str(&format!(
                    "\n  lost      {lost}, which the store had and cannot take again in their place"
                ));
            }
            format!(
                "{} log {log_id}\n  to        {shown}\n  through   record {through}\n  written   {records}{gap}\n",
                good("FORWARDED")
            )
        }
        Format::Json => {
            let report = ForwardJson { log_id, forwarded_sequence: through, written: records, missing, lost };
            escape::json_pretty(&report)? + "\n"
        }
    })?;
    Ok(if lost == 0 { Exit::Yes } else { Exit::No })
}

/// Runs `audit forward-schema`.
///
/// # Errors
/// If the statements cannot be run.
pub(super) fn schema(args: ForwardSchemaArgs) -> anyhow::Result<Exit> {
    let ForwardSchemaArgs { audit_forward: to, replicas, credentials } = args;
    let Some(to) = to else {
        print(SCHEMA)?;
        return Ok(Exit::Yes);
    };
    let target = credentials.target(&to)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { JoinedStore::connect(&target).await?.create_schema(replicas.into()).await })?;
    let what = if JoinedTarget::is_nats(&to) { "the stream is" } else { "the tables are in" };
    print(&format!("{} {what} {target}\n", good("READY")))?;
    Ok(Exit::Yes)
}

/// What `--output json` prints; the names are a contract.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ForwardJson {
    log_id: String,
    /// The newest sequence that the store has.
    forwarded_sequence: u64,
    /// Records that this run wrote.
    written: u64,
    /// Records that retention had deleted before the store had them.
    missing: u64,
    /// Records that the store had and cannot take again in their place.
    lost: u64,
}
