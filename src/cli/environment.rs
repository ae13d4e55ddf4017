//! Flags in the environment: `--policies` is `SCOPEWARD_POLICIES`, for each flag of each verb.
//!
//! What is wrong there is said by the name of the variable, and a name that is no variable is a warning.

use std::ffi::{OsStr, OsString};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command};

use super::value::switch;
use crate::escape::shown;
use crate::policy::finding::nearest;

/// The variable of a flag: `SCOPEWARD_` and the flag in capitals.
pub(super) fn variable(flag: &str) -> String {
    format!("{PREFIX}{}", flag.to_uppercase().replace('-', "_"))
}

/// Gives each flag of each verb its variable, and the paths of a policy that of `--policies`.
///
/// Done here for all, so that no flag is left out.
pub(super) fn with_environment(command: Command) -> Command {
    let command = command.mut_args(|arg| {
        let Some(flag) = flag(&arg) else { return arg };
        // The names live as long as the process; there are a few dozen of them.
        let variable: &'static str = Box::leak(variable(flag).into_boxed_str());
        let is_switch = matches!(arg.get_action(), ArgAction::SetTrue);
        let arg = arg.env(variable).hide_env_values(true).hide_env(true);
        if is_switch { arg.value_parser(switch) } else { arg }
    });
    command.mut_subcommands(with_environment)
}

/// The flag whose variable sets an argument; `None` if there is none.
pub(super) fn flag(arg: &Arg) -> Option<&str> {
    match arg.get_long() {
        Some("help" | "version") => None,
        Some(long) => Some(long),
        None => (arg.get_id() == POLICY_PATHS).then_some("policies"),
    }
}

/// Names of the environment that look like ours and are not, each with what was probably meant.
pub(super) fn warnings(
    command: &Command,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Vec<String> {
    let mut known = Vec::new();
    variables_of(command, &mut known);
    let unknown = variables.filter_map(|(name, value)| {
        let name = name.into_string().ok().filter(|name| name.starts_with(PREFIX))?;
        (!known.contains(&name) && !is_service_link(&name, &value)).then_some(name)
    });
    let mut unknown: Vec<String> = unknown.collect();
    unknown.sort();
    let say = |name: String| {
        let near = nearest(&name, known.iter().map(String::as_str));
        let hint =
            near.map_or_else(|| "it changes nothing".to_owned(), |near| format!("did you mean {near}?"));
        format!("{} in the environment is no variable of scopeward; {hint}", shown(&name))
    };
    unknown.into_iter().map(say).collect()
}

fn variables_of(command: &Command, known: &mut Vec<String>) {
    known.extend(command.get_arguments().filter_map(|arg| flag(arg).map(variable)));
    for verb in command.get_subcommands() {
        variables_of(verb, known);
    }
}

/// What Kubernetes sets in each container for a service whose name begins like ours, such as
/// `SCOPEWARD_SERVICE_HOST` and `SCOPEWARD_PORT_50551_TCP_ADDR`.
fn is_service_link(name: &str, value: &OsStr) -> bool {
    let is_link = |value: &OsStr| value.to_string_lossy().contains("://");
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.ends_with("_PORT") && is_link(value))
        || (name.contains("_PORT_") && (name.contains("_TCP") || name.contains("_UDP")))
}

/// An error of the command line that is one of the environment, in words that name the variable.
pub(super) fn error(command: &Command, args: &[OsString], error: &clap::Error) -> Option<String> {
    let (Some(ContextValue::String(named)), Some(ContextValue::String(value))) =
        (error.get(ContextKind::InvalidArg), error.get(ContextKind::InvalidValue))
    else {
        return None;
    };
    let mut command = command.clone();
    // An argument cannot be shown before that.
    command.build();
    let arg = find(&command, named)?;
    let flag = flag(&arg)?;
    let is_given = args.iter().any(|given| {
        let given = given.to_string_lossy();
        given.strip_prefix("--").is_some_and(|given| given.split('=').next() == arg.get_long())
    });
    let variable = variable(flag);
    if is_given || std::env::var_os(&variable)?.to_string_lossy() != *value {
        return None;
    }
    let RefusedValue { reason, possible } = refusal(error);
    let hint = if possible.is_empty() { reason } else { format!("one of: {}", possible.join(", ")) };
    Some(format!("{variable} in the environment has an invalid value `{}`: {hint}", shown(value)))
}

/// The argument of any verb that is shown like this, such as `--listen <ADDR>`.
fn find(command: &Command, named: &str) -> Option<Arg> {
    let own = command.get_arguments().find(|arg| arg.to_string() == named && flag(arg).is_some());
    own.cloned().or_else(|| command.get_subcommands().find_map(|verb| find(verb, named)))
}

/// Why an argument does not take a value.
#[derive(Debug)]
pub(super) struct RefusedValue {
    /// In words; empty if there are only certain values.
    pub(super) reason: String,
    /// Those values.
    pub(super) possible: Vec<String>,
}

/// Asks an argument with a flag whether it takes a value.
///
/// # Errors
/// If it does not.
pub(super) fn refused(arg: &Arg, value: &str) -> Result<(), RefusedValue> {
    let given = format!("--{}={value}", arg.get_long().unwrap_or_default());
    let alone = Command::new("alone").no_binary_name(true).disable_help_flag(true).arg(arg.clone());
    alone.try_get_matches_from([given]).map(drop).map_err(|error| refusal(&error))
}

fn refusal(error: &clap::Error) -> RefusedValue {
    let possible = match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) => values.clone(),
        _ => Vec::new(),
    };
    let reason = match std::error::Error::source(error) {
        Some(cause) => cause.to_string(),
        None if possible.is_empty() && error.kind() == ErrorKind::InvalidValue => {
            "it must not be empty".to_owned()
        }
        None => String::new(),
    };
    RefusedValue { reason, possible }
}

/// The id of the positional argument of verbs that read a policy.
pub(super) const POLICY_PATHS: &str = "paths";
const PREFIX: &str = "SCOPEWARD_";
