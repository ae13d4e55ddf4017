//! `audit tail` and `audit verify`: what was recorded, and whether it still says what was written.

use clap::{Args, Subcommand};

use super::Exit;

mod cursor;
mod line;
mod source;
mod tail;
mod verify;

/// Read the audit log, or verify it
#[derive(Args, Debug)]
pub(super) struct AuditVerb {
    #[command(subcommand)]
    verb: AuditSubcommand,
}

#[derive(Debug, Subcommand)]
enum AuditSubcommand {
    Tail(Box<tail::TailArgs>),
    Verify(Box<verify::VerifyArgs>),
}

/// Runs the verb.
///
/// # Errors
/// If the log cannot be read, or not from where it should be.
pub(super) fn run(args: AuditVerb) -> anyhow::Result<Exit> {
    match args.verb {
        AuditSubcommand::Tail(args) => tail::run(*args),
        AuditSubcommand::Verify(args) => verify::run(*args),
    }
}
