//! `schema`: the formats of policy, test and access files as JSON Schema, for editors and for programs.

use clap::{Args, ValueEnum};

use super::Exit;
use super::output::print;
use crate::access::keys::access_schema;
use crate::escape;
use crate::policy::keys::policy_schema;
use crate::suite::reference::suite_schema;

/// Print the JSON Schema of policy files, of test files or of the access file
///
/// Draft 2020-12. An editor checks and completes with it; see the first line of the files in policies/.
#[derive(Args, Debug)]
pub(super) struct SchemaArgs {
    /// Of which files
    #[arg(value_name = "WHICH", value_enum, default_value_t)]
    which: SchemaFlag,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
enum SchemaFlag {
    /// Policy files
    #[default]
    Policy,
    /// Test files next to a policy
    Test,
    /// The file of `serve --access-file`
    Access,
}

/// Runs the verb.
///
/// # Errors
/// If standard output cannot be written.
pub(super) fn run(args: SchemaArgs) -> anyhow::Result<Exit> {
    let schema = match args.which {
        SchemaFlag::Policy => policy_schema(),
        SchemaFlag::Test => suite_schema(),
        SchemaFlag::Access => access_schema(),
    };
    print(&(escape::json_pretty(&schema)? + "\n"))?;
    Ok(Exit::Yes)
}
