//! The manual page of the program, `scopeward(1)`: what it is, its verbs and exit codes, and where its files are.

use clap::{Command, CommandFactory};

use super::{Cli, Exit, line};

/// The page, as man(7) has it.
pub(super) fn page() -> String {
    let mut page = String::new();
    line(
        &mut page,
        ".\\\" Generated from the flags of the verbs. SCOPEWARD_BLESS=1 cargo test --test it reference",
    );
    line(&mut page, ".TH SCOPEWARD 1 \"\" \"\" \"User Commands\"");
    section(&mut page, "NAME");
    line(&mut page, "scopeward \\- decide OAuth scopes by policy");
    section(&mut page, "SYNOPSIS");
    line(&mut page, ".B scopeward\n.I VERB\n.RI [ FLAGS ]");
    section(&mut page, "DESCRIPTION");
    line(
        &mut page,
        &text(
            "Scopeward decides which scopes an OAuth client holds after it registers, and which of them an authorize request \
             gets. Authorization servers ask it over gRPC; operators write the policy as YAML files, which are served without a \
             restart. Each flag of a verb is also a variable: --state-dir is SCOPEWARD_STATE_DIR. A flag goes first.",
        ),
    );
    section(&mut page, "VERBS");
    let mut command = Cli::command();
    command.build();
    verbs(&mut page, &command, "");
    line(&mut page, ".PP");
    line(
        &mut page,
        &text("scopeward VERB --help shows the flags of a verb, and scopeward help CODE explains a finding."),
    );
    section(&mut page, "EXIT STATUS");
    for exit in Exit::ALL {
        line(&mut page, &format!(".TP\n.B {}\n{}", exit as u8, text(&exit.meaning().replace('`', ""))));
    }
    section(&mut page, "SIGNALS");
    for (signal, what) in [
        ("SIGHUP", "The server reads the policy, the access file and the files of TLS at once."),
        (
            "SIGTERM, SIGINT",
            "The server finishes calls in flight and stops; a second signal ends it at once.",
        ),
    ] {
        line(&mut page, &format!(".TP\n.B {signal}\n{}", text(what)));
    }
    section(&mut page, "FILES");
    for (path, what) in [
        ("/etc/scopeward/scopeward.yaml", "Settings of the server that systemd starts."),
        ("/etc/scopeward/policies", "Its policy: every *.yaml and *.yml file in there."),
        ("/etc/default/scopeward", "Variables of that server, if the file is there."),
        ("/var/lib/scopeward", "Its state: the audit log and the last good policy."),
    ] {
        line(&mut page, &format!(".TP\n.I {}\n{}", text(path), text(what)));
    }
    section(&mut page, "SEE ALSO");
    line(&mut page, ".BR systemctl (1),\n.BR journalctl (1)");
    page
}

/// Each verb with what it does, those under it by their whole names.
fn verbs(page: &mut String, command: &Command, before: &str) {
    for verb in command.get_subcommands() {
        let name = format!("{before}{}", verb.get_name());
        if verb.has_subcommands() {
            verbs(page, verb, &format!("{name} "));
        } else {
            let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
            line(page, &format!(".TP\n.B {}\n{}", text(&name), text(&about)));
        }
    }
}

fn section(page: &mut String, name: &str) {
    line(page, &format!(".SH {name}"));
}

/// Text whose hyphens are those that people type, and that is no request of roff.
fn text(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-");
    if escaped.starts_with(['.', '\'']) { format!("\\&{escaped}") } else { escaped }
}
