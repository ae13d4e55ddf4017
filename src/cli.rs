//! The command line: takes the arguments apart, calls one verb, and says how it went by exit code.
//!
//! One file for each verb. Here also: what holds for all of them, such as that each flag can be set
//! through the environment. Policies, decisions and the wire are below.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches, Parser, Subcommand};

use self::output::{bad, print, print_error};
use self::serve::ServeArgs;
use self::serve::settings::{ConfigError, ConfigFile};
use crate::escape::clean;

mod audit;
mod check;
mod client;
mod completions;
mod diff;
mod explain;
mod input;
mod output;
mod question;
mod remote;
mod report;
mod schema;
mod serve;
mod status;
mod test;
mod value;

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
    Serve(serve::ServeArgs),
    Check(check::CheckArgs),
    Test(test::TestArgs),
    Diff(diff::DiffArgs),
    Explain(explain::ExplainArgs),
    Expand(client::ExpandVerb),
    Authorize(client::AuthorizeVerb),
    Describe(client::DescribeVerb),
    Status(status::StatusVerb),
    Schema(schema::SchemaArgs),
    Completions(completions::CompletionsArgs),
    Audit(audit::AuditVerb),
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
    /// A policy test failed.
    TestsFailed = 4,
    /// It ran to its end, and events are missing in what it printed.
    GapSeen = 5,
    /// It is worth trying again later.
    RetryLater = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Runs one command line, the name of the program included, and returns the exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let command = with_environment(Cli::command());
    let parsed = command
        .clone()
        .try_get_matches_from(&args)
        .and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches)));
    let (cli, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return unparsed(&error).into(),
    };
    let done = match cli.verb {
        None => help(),
        Some(Verb::Serve(serve)) => run_serve(serve, &command, args, &matches),
        Some(Verb::Check(args)) => check::run(args),
        Some(Verb::Test(args)) => test::run(args),
        Some(Verb::Diff(args)) => diff::run(args),
        Some(Verb::Explain(args)) => explain::run(args),
        Some(Verb::Expand(args)) => client::expand(args),
        Some(Verb::Authorize(args)) => client::authorize(args),
        Some(Verb::Describe(args)) => client::describe(args),
        Some(Verb::Status(args)) => status::run(args),
        Some(Verb::Schema(args)) => schema::run(args),
        Some(Verb::Completions(args)) => completions::run(args, Cli::command()),
        Some(Verb::Audit(args)) => audit::run(args),
    };
    done.unwrap_or_else(|error| failed(&error)).into()
}

/// Help and version are "errors" that are meant for standard output.
fn unparsed(error: &clap::Error) -> Exit {
    _ = error.print();
    if error.use_stderr() { Exit::CouldNotRun } else { Exit::Yes }
}

fn failed(error: &anyhow::Error) -> Exit {
    if let Some(ConfigError { report }) = error.downcast_ref() {
        print_error(report);
    }
    print_error(&format!("{}: {}\n", bad("error"), clean(&chain(error))));
    Exit::CouldNotRun
}

/// Adds what the configuration file says to the command line, then serves.
fn run_serve(
    serve: ServeArgs,
    command: &Command,
    mut args: Vec<OsString>,
    matches: &ArgMatches,
) -> anyhow::Result<Exit> {
    let (Some(verb), Some(("serve", given))) = (command.find_subcommand("serve"), matches.subcommand())
    else {
        // Not reached: the verb was parsed from there.
        return serve::run(serve, "");
    };
    let file = match &serve.config {
        None => ConfigFile::default(),
        Some(path) => ConfigFile::read(path, verb)?,
    };
    args.extend(file.flags(given, verb));
    let complete = command.clone().try_get_matches_from(&args)?;
    let Some((_, complete)) = complete.subcommand() else { return serve::run(serve, "") };
    let serve = ServeArgs::from_arg_matches(complete)?;
    if serve.print_config {
        print(&file.print(verb, given, complete))?;
        return Ok(Exit::Yes);
    }
    serve::run(serve, &ConfigFile::summary(verb, complete))
}

fn help() -> anyhow::Result<Exit> {
    print(&Cli::command().render_help().ansi().to_string())?;
    Ok(Exit::Yes)
}

/// What went wrong, from the outside to the inside; a cause that was said already is not said again.
fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        // The number of a system error says nothing that its words do not.
        let words = cause.split(" (os error").next().unwrap_or_default();
        if text.is_empty() {
            text.push_str(words);
        } else if !text.to_lowercase().contains(&words.to_lowercase()) {
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
