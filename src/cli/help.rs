//! `help`: the page of a finding, which comes with the binary, or the help of a verb.

use anyhow::bail;
use clap::{Args, Command};

use super::Exit;
use super::output::print;
use crate::escape::shown;
use crate::policy::finding::{Code, nearest};

/// Print the page about a finding, or the help of a verb
///
/// Without a name: the help of the program.
#[derive(Args, Debug, Default)]
pub(super) struct HelpArgs {
    /// Code of a finding, such as UnknownKey, or a verb
    #[arg(value_name = "CODE|VERB")]
    names: Vec<String>,
}

/// Runs the verb.
///
/// # Errors
/// If there is neither a code nor a verb of the name.
pub(super) fn run(args: HelpArgs, mut command: Command) -> anyhow::Result<Exit> {
    let HelpArgs { names } = args;
    if let [name] = names.as_slice()
        && let Some(code) = Code::ALL.iter().find(|code| code.as_str().eq_ignore_ascii_case(name))
    {
        print(code.page_text())?;
        return Ok(Exit::Yes);
    }
    // So that each verb is shown with the names in front of it.
    command.build();
    let mut verb = command;
    for (at, name) in names.iter().enumerate() {
        let Some(inner) = verb.find_subcommand(name) else {
            let verbs = verb.get_subcommands().map(Command::get_name);
            let codes = Code::ALL.iter().filter(|_| at == 0).map(|code| code.as_str());
            let near = nearest(name, verbs.chain(codes));
            let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            bail!("`{}` is neither the code of a finding nor a verb{near}", shown(name));
        };
        verb = inner.clone();
    }
    print(&verb.render_long_help().ansi().to_string())?;
    Ok(Exit::Yes)
}
