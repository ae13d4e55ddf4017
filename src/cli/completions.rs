//! `completions`: what a shell needs to know to complete our verbs, flags and values.

use clap::{Args, Command};
use clap_complete::Shell;

use super::Exit;
use super::output::print;

/// Print the completions of a shell
///
/// For bash: source <(scopeward completions bash)
#[derive(Args, Debug)]
pub(super) struct CompletionsArgs {
    /// For which shell
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

/// Runs the verb for this command line.
///
/// # Errors
/// If standard output cannot be written.
pub(super) fn run(args: CompletionsArgs, mut command: Command) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    print(&String::from_utf8(script)?)?;
    Ok(Exit::Yes)
}
