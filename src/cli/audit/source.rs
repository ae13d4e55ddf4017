//! Where the verbs of the audit read: the store of a state directory, a server, or the joined store.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches};

use crate::cli::joined::JoinedCredentials;
use crate::cli::remote::address::ServerAddress;
use crate::cli::remote::{CredentialArgs, ServerTarget};

/// Where the log is.
#[derive(Debug)]
pub(super) enum ChainSource {
    /// In a state directory whose server has stopped.
    StateDir(PathBuf),
    /// Behind a server.
    Server(ServerTarget),
    /// In the joined store, with the logs of other servers.
    Joined(JoinedPlace),
}

/// The URL of a joined store, and how it lets a verb in.
#[derive(Debug)]
pub(super) struct JoinedPlace {
    pub(super) url: String,
    pub(super) credentials: JoinedCredentials,
}

/// The source of `audit verify`: without a flag the store, also where the environment names both.
#[derive(Debug)]
pub(super) struct StoreOrServer(pub(super) ChainSource);

/// The source of `audit tail`: without a flag the server; the environment names a state directory for `serve`.
#[derive(Debug)]
pub(super) struct ServerOrStore(pub(super) ChainSource);

#[derive(Args, Debug)]
struct StoreOrServerArgs {
    /// Verify the store in this state directory; .scopeward if no server is named either
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Verify what this server sends
    #[arg(long, value_name = "SERVER")]
    server: Option<ServerAddress>,
    /// Verify every log in this joined store: postgres://USER@HOST:PORT/DATABASE, or nats://USER@HOST:PORT/STREAM
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    #[command(flatten)]
    credentials: CredentialArgs,
    #[command(flatten)]
    joined: JoinedCredentials,
}

#[derive(Args, Debug)]
struct ServerOrStoreArgs {
    /// Read the store in this state directory, whose server has stopped. Only the flag says so: in the environment the
    /// directory is that of `serve`
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    #[command(flatten)]
    server: ServerTarget,
}

/// Whether a flag was given on the command line.
fn is_flag(matches: &ArgMatches, id: &str) -> bool {
    matches.value_source(id) == Some(ValueSource::CommandLine)
}

fn check_one(matches: &ArgMatches) -> Result<(), clap::Error> {
    if is_flag(matches, "state_dir") && is_flag(matches, "server") {
        let text = "--state-dir and --server cannot be used together\n";
        return Err(clap::Error::raw(ErrorKind::ArgumentConflict, text));
    }
    Ok(())
}

impl FromArgMatches for StoreOrServer {
    /// A flag goes before the environment, where both may well be set: for `serve` and for the verbs that
    /// ask a server.
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        check_one(matches)?;
        let StoreOrServerArgs { state_dir, server, from, credentials, joined } =
            StoreOrServerArgs::from_arg_matches(matches)?;
        if let Some(url) = from {
            if is_flag(matches, "state_dir") || is_flag(matches, "server") {
                let text = "--from cannot be used together with --state-dir or --server\n";
                return Err(clap::Error::raw(ErrorKind::ArgumentConflict, text));
            }
            return Ok(Self(ChainSource::Joined(JoinedPlace { url, credentials: joined })));
        }
        let server = server.map(|address| ServerTarget { address, credentials });
        Ok(Self(match (state_dir, server) {
            (Some(_), Some(server)) if is_flag(matches, "server") => ChainSource::Server(server),
            (Some(state_dir), _) => ChainSource::StateDir(state_dir),
            (None, Some(server)) => ChainSource::Server(server),
            (None, None) => ChainSource::StateDir(DEFAULT_STATE_DIR.into()),
        }))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl FromArgMatches for ServerOrStore {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        check_one(matches)?;
        let ServerOrStoreArgs { state_dir, server } = ServerOrStoreArgs::from_arg_matches(matches)?;
        Ok(Self(match state_dir.filter(|_| is_flag(matches, "state_dir")) {
            Some(state_dir) => ChainSource::StateDir(state_dir),
            None => ChainSource::Server(server),
        }))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for StoreOrServer {
    fn augment_args(command: Command) -> Command {
        StoreOrServerArgs::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        StoreOrServerArgs::augment_args_for_update(command)
    }
}

impl Args for ServerOrStore {
    fn augment_args(command: Command) -> Command {
        ServerOrStoreArgs::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        ServerOrStoreArgs::augment_args_for_update(command)
    }
}

const DEFAULT_STATE_DIR: &str = ".scopeward";
