//! `gateway clients`: what a gateway remembers of the clients that registered, with or without one that runs.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use prost_types::Timestamp;

use crate::cli::Exit;
use crate::cli::output::{Format, bad, bold, dim, good, print, print_error, print_to_reader};
use crate::cli::report::counted;
use crate::clients::{ClientFile, ClientRecord, RecordSource};
use crate::escape::{self, clean};
use crate::gateway::endpoint::issuer_path;
use crate::server::gateway::settings::BaseUrl;

/// Show or forget the clients that a gateway remembers
#[derive(Args, Debug)]
pub(in crate::cli) struct ClientsVerb {
    #[command(subcommand)]
    verb: ClientsSubverb,
}

#[derive(Debug, Subcommand)]
enum ClientsSubverb {
    List(ClientListArgs),
    Forget(ClientForgetArgs),
    Move(ClientMoveArgs),
}

/// List the clients that a gateway remembers
///
/// Reads the record in a state directory, whether a gateway runs or not: by issuer and client id, with what each client
/// registered, what was added to it at the upstream and is not registered, what it said of itself, and when it last began a
/// login (up to an hour old). As JSON one client a line.
///
/// Exits with 0, or 2 if there is no record or it cannot be read.
#[derive(Args, Debug)]
struct ClientListArgs {
    #[command(flatten)]
    record: RecordArgs,
    /// Only the clients of this issuer path; "" is the one without
    #[arg(long, value_name = "PATH", value_parser = issuer)]
    issuer: Option<String>,
    /// How to print them
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

/// Forget clients that a gateway remembers
///
/// A forgotten client is unknown, as one that never registered: the gateway decides by `authorization.unknownRegistration` of the
/// policy what it holds, or looks it up again with --upstream-admin. Nothing changes at the upstream. Counts at once, also for a
/// gateway that runs.
///
/// Exits with 0 if each of them was known, 1 if one was not, 2 if there is no record or it cannot be written.
#[derive(Args, Debug)]
struct ClientForgetArgs {
    /// Their ids
    #[arg(value_name = "CLIENT_ID", required = true)]
    client_ids: Vec<String>,
    /// The issuer path of the clients
    #[arg(long, value_name = "PATH", value_parser = issuer, default_value = "", hide_default_value = true)]
    issuer: String,
    #[command(flatten)]
    record: RecordArgs,
}

/// Say that the upstream is at another address now
///
/// The record is of one upstream, since client ids mean something else at another one: a gateway with another --upstream refuses
/// it. Where the same server got another address, this lets the gateway have it. Stop the gateway before.
#[derive(Args, Debug)]
struct ClientMoveArgs {
    /// The new address, as --upstream has it
    #[arg(long, value_name = "URL")]
    to: BaseUrl,
    #[command(flatten)]
    record: RecordArgs,
}

#[derive(Args, Debug)]
struct RecordArgs {
    /// The state directory of the gateway
    #[arg(long, value_name = "DIR", default_value = ".scopeward")]
    state_dir: PathBuf,
}

fn issuer(text: &str) -> Result<String, String> {
    issuer_path(text).map(str::to_owned).map_err(|error| error.to_string())
}

/// Runs the verb.
///
/// # Errors
/// If there is no record, or it cannot be used.
pub(in crate::cli) fn run(args: ClientsVerb) -> anyhow::Result<Exit> {
    match args.verb {
        ClientsSubverb::List(ClientListArgs { record, issuer, output }) => {
            list(&record.state_dir, issuer.as_deref(), output)
        }
        ClientsSubverb::Forget(ClientForgetArgs { client_ids, issuer, record }) => {
            forget(&record.state_dir, &issuer, &client_ids)
        }
        ClientsSubverb::Move(ClientMoveArgs { to, record }) => {
            let mut file = ClientFile::open(&record.state_dir)?;
            let before = file.upstream()?;
            file.move_to(&to.to_string())?;
            print(&format!("{} the clients of {} are those of {to}\n", good("moved"), clean(&before)))?;
            Ok(Exit::Yes)
        }
    }
}

fn list(state_dir: &Path, issuer: Option<&str>, output: Format) -> anyhow::Result<Exit> {
    let file = ClientFile::open(state_dir)?;
    let upstream = file.upstream()?;
    let mut count = 0;
    let mut printed = Ok(());
    file.list(|record| {
        if issuer.is_some_and(|issuer| issuer != record.issuer) {
            return true;
        }
        count += 1;
        let line = match output {
            Format::Text => Ok(text(&record)),
            Format::Json => escape::json(&record).map(|line| line + "\n"),
        };
        match line.map_err(anyhow::Error::from).and_then(|line| Ok(print_to_reader(&line)?)) {
            Ok(is_read) => is_read,
            Err(error) => {
                printed = Err(error);
                false
            }
        }
    })?;
    printed?;
    if output == Format::Text {
        print(&format!("{} of {}\n", counted(count, "client"), clean(&upstream)))?;
    }
    Ok(Exit::Yes)
}

fn forget(state_dir: &Path, issuer: &str, client_ids: &[String]) -> anyhow::Result<Exit> {
    let mut file = ClientFile::open(state_dir)?;
    let mut exit = Exit::Yes;
    for client_id in client_ids {
        if file.forget(issuer, client_id)? {
            print(&format!("{} {}\n", good("forgotten"), clean(client_id)))?;
        } else {
            print_error(&format!("{}: client `{}` is not known\n", bad("error"), clean(client_id)));
            exit = Exit::No;
        }
    }
    Ok(exit)
}

/// Two lines.
fn text(record: &ClientRecord) -> String {
    let ClientRecord {
        issuer,
        client_id,
        source,
        registered_scope,
        added_scope,
        metadata,
        first_time: _,
        registered_time,
        login_time,
    } = record;
    let mut name = bold(&quoted(client_id)).to_string();
    if !metadata.client_name.is_empty() {
        name.push_str(&format!("  named {}", quoted(&metadata.client_name)));
    }
    if !issuer.is_empty() {
        name.push_str(&format!("  {}", dim(&clean(issuer))));
    }
    let how = match source {
        RecordSource::Registration => "registered",
        RecordSource::Upstream => "looked up",
    };
    let mut facts = vec![match registered_scope.as_str() {
        "" => format!("{how} {} without scope", Timestamp::from(*registered_time)),
        scope => format!("{how} {} with {}", Timestamp::from(*registered_time), quoted(scope)),
    }];
    if !added_scope.is_empty() {
        facts.push(format!("added {}", quoted(added_scope)));
    }
    facts.push(match login_time {
        Some(time) => format!("last login {}", Timestamp::from(*time)),
        None => "no login".to_owned(),
    });
    format!("{name}\n    {}\n", facts.join(", "))
}

/// What a client chose must not look like something else.
fn quoted(text: &str) -> String {
    format!("\"{}\"", clean(text).replace('\\', "\\\\").replace('"', "\\\""))
}
