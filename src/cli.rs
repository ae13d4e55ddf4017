//! The command line: takes the arguments apart, calls one verb, and says how it went by exit code.
//!
//! One file for each verb. Here also: what holds for all of them, such as that each flag can be set
//! through the environment. Policies, decisions and the wire are below.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Command, CommandFactory, FromArgMatches, Parser, Subcommand};

use self::output::{bad, clean, print, print_error};

mod check;
mod client;
mod explain;
mod output;
mod question;
mod report;

/// Decide OAuth scopes by policy
///
/// Each flag can also be set through the environment: `--policies` is SCOPEWARD_POLICIES. A flag goes first.
#[derive(Debug, Parser)]
#[command(name = "scopeward", version, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Check(check::CheckArgs),
    Explain(explain::ExplainArgs),
    Expand(client::ExpandVerb),
    Authorize(client::AuthorizeVerb),
    Describe(client::DescribeVerb),
}

/// How a verb ended; the contract of the command line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Exit {
    /// It ran, and the answer is yes: valid, passed, allowed.
    Yes = 0,
    /// It ran, and the answer is no.
    No = 1,
    /// It could not run.
    CouldNotRun = 2,
    /// The decision is a denial.
    Denied = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Runs one command line, the name of the program included, and returns the exit code.
pub fn run(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> ExitCode {
    let parsed = with_environment(Cli::command())
        .try_get_matches_from(args)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors" that are meant for standard output.
            let exit = if error.use_stderr() { Exit::CouldNotRun } else { Exit::Yes };
            _ = error.print();
            return exit.into();
        }
    };
    let done = match cli.verb {
        None => help(),
        Some(Verb::Check(args)) => check::run(args),
        Some(Verb::Explain(args)) => explain::run(args),
        Some(Verb::Expand(args)) => client::expand(args),
        Some(Verb::Authorize(args)) => client::authorize(args),
        Some(Verb::Describe(args)) => client::describe(args),
    };
    let exit = done.unwrap_or_else(|error| {
        print_error(&format!("{}: {}\n", bad("error"), clean(&chain(&error))));
        Exit::CouldNotRun
    });
    exit.into()
}

fn help() -> anyhow::Result<Exit> {
    print(&Cli::command().render_help().ansi().to_string())?;
    Ok(Exit::Yes)
}

/// What went wrong, from the outside to the inside; a cause that was said already is not said again.
fn chain(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // The number of a system error says nothing that its words do not.
        let words = cause.split(" (os error").next().unwrap_or_default();
        if !text.to_lowercase().contains(&words.to_lowercase()) {
            text.push_str(": ");
            text.push_str(words);
        }
    }
    text
}

/// Gives each flag of each verb its variable: `SCOPEWARD_` and the flag in capitals.
///
/// Done here for all, so that no flag is left out.
fn with_environment(command: Command) -> Command {
    let command = command.mut_args(|arg| {
        let Some(long) = arg.get_long().filter(|long| !matches!(*long, "help" | "version")) else {
            return arg;
        };
        // The names live as long as the process; there are a few dozen of them.
        let variable: &'static str =
            Box::leak(format!("SCOPEWARD_{}", long.to_uppercase().replace('-', "_")).into_boxed_str());
        let is_switch = matches!(arg.get_action(), ArgAction::SetTrue);
        let arg = arg.env(variable).hide_env_values(true).hide_env(true);
        if is_switch { arg.value_parser(FalseyValueParser::new()) } else { arg }
    });
    command.mut_subcommands(with_environment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        with_environment(Cli::command()).debug_assert();
    }
}
