//! The command line: takes the arguments apart, calls one verb, and says how it went by exit code.
//!
//! One file for each verb. Here also: what holds for all of them, such as that each flag can be set
//! through the environment. Policies, decisions and the wire are below.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::{ArgMatches, Command, CommandFactory, FromArgMatches, Parser, Subcommand};

use self::environment::with_environment;
use self::gateway::GatewayVerb;
use self::output::{bad, notable, print, print_error};
use self::serve::ServeArgs;
use self::serve::config_file::{ConfigError, ConfigFile};
use self::serve::settings::ServerVerb;
use crate::escape::clean;

mod access;
mod audit;
mod check;
mod client;
mod completions;
mod diff;
mod environment;
mod explain;
mod export;
mod fleet;
mod gateway;
mod health;
mod help;
mod input;
mod joined;
mod output;
mod question;
pub mod reference;
mod remote;
mod report;
mod schema;
mod serve;
mod shadow;
mod status;
mod test;
mod value;

/// Decide OAuth scopes by policy
///
/// Each flag can also be set through the environment: `--policies` is SCOPEWARD_POLICIES. A flag goes first.
#[derive(Debug, Parser)]
#[command(
    name = "scopeward",
    version,
    propagate_version = true,
    max_term_width = 100,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Serve(Box<serve::ServeArgs>),
    Gateway(gateway::GatewayVerb),
    Check(check::CheckArgs),
    Test(test::TestArgs),
    Diff(diff::DiffArgs),
    Explain(explain::ExplainArgs),
    Expand(client::ExpandVerb),
    Authorize(client::AuthorizeVerb),
    Token(client::TokenVerb),
    Describe(client::DescribeVerb),
    Status(status::StatusVerb),
    Fleet(fleet::FleetVerb),
    Health(health::HealthVerb),
    Shadow(shadow::ShadowVerb),
    Schema(schema::SchemaArgs),
    Completions(completions::CompletionsArgs),
    Audit(audit::AuditVerb),
    Help(help::HelpArgs),
    Access(access::AccessVerb),
    Export(export::ExportArgs),
}

/// How a verb ended; the contract of the command line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Exit {
    /// It ran, and the answer is yes.
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

impl Exit {
    const ALL: [Self; 7] = [
        Self::Yes,
        Self::No,
        Self::CouldNotRun,
        Self::Denied,
        Self::TestsFailed,
        Self::GapSeen,
        Self::RetryLater,
    ];

    /// What it means, and at which verbs; for the reference.
    const fn meaning(self) -> &'static str {
        match self {
            Self::Yes => {
                "it ran, and the answer is yes: valid, passed, allowed; a server that was told to stop"
            }
            Self::No => {
                "it ran, and the answer is no: findings (`check`), a policy that is not valid or a stop that abandoned \
                 something (`serve`), something widens (`diff --fail-on-widening`), the chain does not hold (`audit verify`), \
                 another policy serves (`status --digest`), servers serve different policies (`fleet status`), the server does not serve (`health`)"
            }
            Self::CouldNotRun => {
                "it could not run: usage, a setting that is not valid, a named path that cannot be read, a server that cannot \
                 be reached, a broken test file"
            }
            Self::Denied => "the decision is a denial (`expand`, `authorize`, `token`, `explain`)",
            Self::TestsFailed => "policy tests failed (`test`)",
            Self::GapSeen => "events are missing in what was printed (`audit tail`)",
            Self::RetryLater => {
                "the server cannot be reached for now, and trying again later may succeed (`audit tail`)"
            }
        }
    }
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
        Err(error) => return unparsed(&command, &args, &error).into(),
    };
    let warnings = environment::warnings(&command, std::env::vars_os());
    if !matches!(cli.verb, Some(Verb::Serve(_) | Verb::Gateway(_))) {
        for warning in &warnings {
            print_error(&format!("{}: {warning}\n", notable("warning")));
        }
    }
    let done = match cli.verb {
        None => help::run(help::HelpArgs::default(), command),
        Some(Verb::Serve(serve)) => {
            let ServeArgs { config, print_config, .. } = *serve;
            let asked = AskedServer { verb: ServerVerb::Serve, config, print_config };
            asked.run(&command, args, &matches, &warnings, |complete, settings| {
                serve::run(ServeArgs::from_arg_matches(complete)?, None, settings, &warnings)
            })
        }
        Some(Verb::Gateway(GatewayVerb { clients: Some(clients), .. })) => gateway::clients::run(clients),
        Some(Verb::Gateway(verb)) => {
            let asked = AskedServer {
                verb: ServerVerb::Gateway,
                config: verb.config,
                print_config: verb.print_config,
            };
            asked.run(&command, args, &matches, &warnings, |complete, settings| {
                let (args, gateway) = gateway::take(complete)?;
                serve::run(args, Some(gateway), settings, &warnings)
            })
        }
        Some(Verb::Check(args)) => check::run(args),
        Some(Verb::Test(args)) => test::run(args),
        Some(Verb::Diff(args)) => diff::run(args),
        Some(Verb::Explain(args)) => explain::run(args),
        Some(Verb::Expand(args)) => client::expand(args),
        Some(Verb::Authorize(args)) => client::authorize(args),
        Some(Verb::Token(args)) => client::token(args),
        Some(Verb::Describe(args)) => client::describe(args),
        Some(Verb::Status(args)) => status::run(args),
        Some(Verb::Fleet(args)) => fleet::run(args),
        Some(Verb::Health(args)) => health::run(args, &command),
        Some(Verb::Shadow(args)) => shadow::run(args),
        Some(Verb::Schema(args)) => schema::run(args),
        Some(Verb::Completions(args)) => completions::run(args, Cli::command()),
        Some(Verb::Audit(args)) => audit::run(args),
        Some(Verb::Help(args)) => help::run(args, command),
        Some(Verb::Access(args)) => access::run(args),
        Some(Verb::Export(args)) => export::run(args),
    };
    done.unwrap_or_else(|error| failed(&error)).into()
}

/// Help and version are "errors" that are meant for standard output.
fn unparsed(command: &Command, args: &[OsString], error: &clap::Error) -> Exit {
    if let Some(message) = environment::error(command, args, error) {
        print_error(&format!("{}: {message}\n", bad("error")));
        return Exit::CouldNotRun;
    }
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

/// A server that somebody wants to run.
struct AskedServer {
    verb: ServerVerb,
    config: Option<PathBuf>,
    print_config: bool,
}

impl AskedServer {
    /// Adds what the configuration file says to the command line, then prints all of it, or runs the server with it.
    fn run(
        self,
        command: &Command,
        mut args: Vec<OsString>,
        matches: &ArgMatches,
        warnings: &[String],
        run: impl FnOnce(&ArgMatches, &str) -> anyhow::Result<Exit>,
    ) -> anyhow::Result<Exit> {
        let Self { verb, config, print_config } = self;
        let (_, given) = matches.subcommand().context("there is no verb")?;
        let file = ConfigFile::of(config.as_deref(), verb)?;
        args.extend(file.flags(given));
        let complete = command.clone().try_get_matches_from(&args)?;
        let (_, complete) = complete.subcommand().context("there is no verb")?;
        if print_config {
            for warning in warnings {
                print_error(&format!("{}: {warning}\n", notable("warning")));
            }
            print(&file.print(given, complete))?;
            return Ok(Exit::Yes);
        }
        run(complete, &file.summary(complete))
    }
}

/// The settings that `serve` has without a flag: those of the environment and of a configuration file.
///
/// # Errors
/// If one of them has an invalid value.
fn serve_settings(command: &Command, config: Option<&Path>) -> anyhow::Result<ServeArgs> {
    let mut args: Vec<OsString> = vec![command.get_name().into(), "serve".into()];
    let parse = |args: &[OsString]| {
        let parsed = command.clone().try_get_matches_from(args);
        parsed.map_err(|error| match environment::error(command, args, &error) {
            Some(message) => anyhow!(message),
            None => anyhow!(error),
        })
    };
    let given = parse(&args)?;
    let file = ConfigFile::of(config, ServerVerb::Serve)?;
    args.extend(given.subcommand().map(|(_, given)| file.flags(given)).unwrap_or_default());
    let complete = parse(&args)?;
    let (_, complete) = complete.subcommand().context("`serve` has no settings")?;
    Ok(ServeArgs::from_arg_matches(complete)?)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        with_environment(Cli::command()).debug_assert();
    }
}
