//! Pages of `docs/reference/` about the program itself, from the tables that it runs by.
//!
//! A test compares them with what is checked in, see `CONTRIBUTING.md`.

use std::fmt::Write;

use clap::{Arg, ArgAction, Command, CommandFactory};

use super::environment::{flag, variable};
use super::gateway::settings::GATEWAY_SETTINGS;
use super::serve::settings::{SERVE_ALONE, SETTINGS, ServeSetting};
use super::{Cli, Exit};
use crate::server::traces::settings::{TRACE_VARIABLES, TraceVariable};
use crate::status::condition_type::{CONDITION_TYPES, ConditionReason, ConditionType};

mod limits;
mod man;

/// Each page with its path in the repository.
#[must_use]
pub fn pages() -> Vec<(&'static str, String)> {
    vec![
        ("docs/reference/settings.md", settings()),
        ("docs/reference/exit-codes.md", exit_codes()),
        ("docs/reference/conditions.md", conditions()),
        ("docs/reference/limits.md", limits::page()),
        ("docs/reference/scopeward.1", man::page()),
    ]
}

fn settings() -> String {
    let mut page = start("Settings", "`src/cli/serve/settings.rs` and the flags of the verbs");
    line(
        &mut page,
        "A flag goes before its variable, that before the configuration file (`serve --config FILE`, YAML), that before the \
         default. `scopeward serve --print-config` shows each value and where it comes from; what it prints is itself a \
         configuration file. A wrong value stops the start and is named by where it stands. A variable of a switch is `true`, \
         `false`, `1` or `0`; a name that begins with `SCOPEWARD_` and is no variable is a warning.",
    );
    line(&mut page, "\n## The server\n");
    line(&mut page, "| flag of `serve` | variable | key | default | values | what |");
    line(&mut page, "| --- | --- | --- | --- | --- | --- |");
    for setting in SETTINGS {
        setting_row(&mut page, setting);
    }
    line(
        &mut page,
        "\nTimes have a unit, `ms`, `s`, `m`, `h` or `d`; sizes `B`, `KiB`, `MiB`, `GiB` or `TiB`; both are whole numbers. Host \
         names are not resolved in addresses to listen on.",
    );
    line(&mut page, "\n## The gateway\n");
    let alone: Vec<_> = SERVE_ALONE.iter().map(|flag| format!("`--{flag}`")).collect();
    line(
        &mut page,
        &format!(
            "`gateway` has these settings, and those of the server but {}: with the same variables, keys, defaults and meaning.\n",
            alone.join(" and ")
        ),
    );
    line(&mut page, "| flag of `gateway` | variable | key | default | values | what |");
    line(&mut page, "| --- | --- | --- | --- | --- | --- |");
    for setting in GATEWAY_SETTINGS {
        setting_row(&mut page, setting);
    }
    line(
        &mut page,
        "\n## Traces\n\nThe standard variables of OpenTelemetry, for `serve` and `gateway`; there are no flags and no keys for them. Those that begin \
         with `OTEL_EXPORTER_OTLP_` may have `TRACES_` after that, as in `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, which goes first. A \
         variable that says where spans go, or how, and cannot be used stops the start; any other is ignored with a warning.\n",
    );
    line(&mut page, "| variable | default | what |");
    line(&mut page, "| --- | --- | --- |");
    for TraceVariable { name, default, text } in TRACE_VARIABLES {
        row(&mut page, &[format!("`{name}`"), (*default).to_owned(), (*text).to_owned()]);
    }
    line(&mut page, "\n## The other verbs\n");
    line(&mut page, "| flag | verbs | variable | default | what |");
    line(&mut page, "| --- | --- | --- | --- | --- |");
    let mut command = Cli::command();
    command.build();
    let mut flags = Vec::new();
    for verb in
        command.get_subcommands().filter(|verb| !matches!(verb.get_name(), "serve" | "gateway" | "help"))
    {
        flags_of(&mut flags, verb, verb.get_name());
    }
    for VerbFlag { cells: [flag, variable, default, what], verbs } in flags {
        row(&mut page, &[flag, verbs.join(", "), variable, default, what]);
    }
    page
}

fn setting_row(page: &mut String, setting: &ServeSetting) {
    let default = match setting.default {
        _ if setting.is_switch() => "`false`".to_owned(),
        Some(default) => format!("`{default}`"),
        None => "not set".to_owned(),
    };
    let cells = [
        format!("`--{}`", setting.flag),
        format!("`{}`", variable(setting.flag)),
        format!("`{}`", setting.key()),
        default,
        setting.kind.range(),
        setting.text.to_owned(),
    ];
    row(page, &cells);
}

/// A flag with the verbs that have it with the same meaning.
struct VerbFlag {
    cells: [String; 4],
    verbs: Vec<String>,
}

/// Adds the flags of a verb and of the verbs under it.
fn flags_of(flags: &mut Vec<VerbFlag>, verb: &Command, name: &str) {
    for (arg, own) in verb.get_arguments().filter_map(|arg| Some((arg, flag(arg)?))) {
        let shown = match arg.get_long() {
            Some(long) => format!("`--{long}`"),
            None => format!("`{arg}`"),
        };
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let cells = [shown, format!("`{}`", variable(own)), default_of(arg), help];
        let name = format!("`{name}`");
        match flags.iter_mut().find(|known| known.cells == cells) {
            Some(known) => known.verbs.push(name),
            None => flags.push(VerbFlag { cells, verbs: vec![name] }),
        }
    }
    for inner in verb.get_subcommands().filter(|inner| inner.get_name() != "help") {
        flags_of(flags, inner, &format!("{name} {}", inner.get_name()));
    }
}

fn default_of(arg: &Arg) -> String {
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        return "`false`".to_owned();
    }
    let values = arg.get_default_values().iter().filter(|value| !value.is_empty());
    let values: Vec<_> = values.map(|value| format!("`{}`", value.to_string_lossy())).collect();
    match &*values {
        [] if arg.is_required_set() => "required".to_owned(),
        [] => "not set".to_owned(),
        values => values.join(", "),
    }
}

fn exit_codes() -> String {
    let mut page = start("Exit codes", "`src/cli.rs`");
    line(&mut page, "| code | means |");
    line(&mut page, "| --- | --- |");
    for exit in Exit::ALL {
        row(&mut page, &[(exit as u8).to_string(), exit.meaning().to_owned()]);
    }
    page
}

fn conditions() -> String {
    let mut page = start("Conditions", "`src/status/condition_type.rs`");
    line(
        &mut page,
        "The state of the policy as `metav1.Condition` of Kubernetes has it, in `GetPolicyStatus`, `/status.json`, `scopeward \
         status` and the metric `scopeward_condition`. `Ready`, `PolicyAccepted` and `BaselineScopesValid` are there for each \
         audience too.\n",
    );
    line(&mut page, "| condition | True means | status | reason | when |");
    line(&mut page, "| --- | --- | --- | --- | --- |");
    for ConditionType { kind, is_only_true, meaning, reasons } in CONDITION_TYPES {
        let always = if *is_only_true { "; only there while True" } else { "" };
        for ConditionReason(status, reason, when) in *reasons {
            let cells = [
                format!("`{kind}`"),
                format!("{meaning}{always}"),
                (*status).to_owned(),
                format!("`{reason}`"),
                (*when).to_owned(),
            ];
            row(&mut page, &cells);
        }
    }
    page
}

/// The head of a page.
fn start(title: &str, source: &str) -> String {
    format!(
        "# {title}\n\nGenerated from {source}. To change it, change them and run \
         `SCOPEWARD_BLESS=1 cargo test --test it reference`.\n\n"
    )
}

fn line(page: &mut String, text: &str) {
    // Writing to a String does not fail.
    _ = writeln!(page, "{text}");
}

fn row(page: &mut String, cells: &[String]) {
    let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|").replace('<', "\\<")).collect();
    line(page, &format!("| {} |", cells.join(" | ")));
}
