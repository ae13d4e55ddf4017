//! The verbs of the audit: what was recorded, whether it still says what was written, and its copy in the joined store.

use clap::{Args, Subcommand};

use super::Exit;

mod cursor;
mod forward;
mod line;
mod source;
mod tail;
mod verify;

/// Read the audit log, verify it, or copy it to the joined store
#[derive(Args, Debug)]
pub(super) struct AuditVerb {
    #[command(subcommand)]
    verb: AuditSubcommand,
}

#[derive(Debug, Subcommand)]
enum AuditSubcommand {
    Tail(Box<tail::TailArgs>),
    Verify(Box<verify::VerifyArgs>),
    Forward(forward::ForwardArgs),
    ForwardSchema(forward::ForwardSchemaArgs),
}

/// Runs the verb.
///
/// # Errors
/// If the log cannot be read, or not from where it should be.
pub(super) fn run(args: AuditVerb) -> anyhow::Result<Exit> {
    match args.verb {
        AuditSubcommand::Tail(args) => tail::run(*args),
        AuditSubcommand::Verify(args) => verify::run(*args),
        AuditSubcommand::Forward(args) => forward::run(args),
        AuditSubcommand::ForwardSchema(args) => forward::schema(args),
    }
}
