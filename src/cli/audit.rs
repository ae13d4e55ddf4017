//! `audit tail`: what was recorded.

use clap::{Args, Subcommand};

use super::Exit;

mod cursor;
mod line;
mod tail;

/// Read the audit log
#[derive(Args, Debug)]
pub(super) struct AuditVerb {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Tail(Box<tail::TailArgs>),
}

/// Runs the verb.
///
/// # Errors
/// If the log cannot be read, or not from where it should be.
pub(super) fn run(args: AuditVerb) -> anyhow::Result<Exit> {
    match args.verb {
        Verb::Tail(args) => tail::run(*args),
    }
}
