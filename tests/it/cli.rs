//! The command line, driven as the real binary: what it prints and how it exits.
//!
//! Each test works in a folder of its own, without any variable of ours in its environment.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use insta::assert_snapshot;
use serde_json::Value;
use tempfile::TempDir;

mod access;
mod audit;
mod check;
mod decision_lines;
mod diff;
mod environment;
mod explain;
mod export;
mod fleet;
mod fleet_proof;
mod gateway_clients;
mod grpcurl;
mod health;
mod joined;
mod joined_credentials;
#[cfg(feature = "nats")]
mod joined_nats;
mod joined_schema;
mod remote;
mod serve;
mod settings;
mod shipper;
mod status;
mod store;
mod test;
mod tls;
mod traces;
mod unreachable;

const MCP: &str = "https://mcp.example.com";

/// A policy with one mistake of DESIGN's must-pass table: a baseline that is not supported.
const UNSUPPORTED_BASELINE: &str = "\
audiences:
  https://mcp.example.com:
    scopesSupported: [openid]
    baselineClientScopes: [offline_access]
";

/// What a run of the binary left.
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ran {
    /// Everything in one text, with the digests made equal.
    fn shown(&self) -> String {
        let Self { code, stdout, stderr } = self;
        let mut text = format!("exit {code}\n");
        for (name, stream) in [("stdout", stdout), ("stderr", stderr)] {
            if !stream.is_empty() {
                text.push_str(&format!("--- {name}\n{}", stable(stream)));
            }
        }
        text
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).expect("JSON on standard output")
    }
}

/// Replaces what differs from run to run: the hexadecimal digits of digests.
fn stable(text: &str) -> String {
    let mut parts = text.split("sha256:");
    let mut stable = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        stable.push_str("sha256:DIGEST");
        stable.push_str(part.trim_start_matches(|digit: char| digit.is_ascii_hexdigit()));
    }
    stable
}

/// A folder to run in.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(TempDir::new().expect("a temporary folder"))
    }

    /// A folder with these files.
    fn with(files: &[(&str, &str)]) -> Self {
        let place = Self::new();
        for (path, text) in files {
            place.write(path, text);
        }
        place
    }

    /// A folder with a copy of the example policies.
    fn with_examples() -> Self {
        let place = Self::new();
        for file in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("policies")).unwrap() {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            place.write(&format!("policies/{name}"), fs::read_to_string(&path).unwrap());
        }
        place
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_scopeward"));
        command.args(args).current_dir(self.0.path()).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("SCOPEWARD_")
                || name.starts_with("OTEL_")
                || name.starts_with("CLICOLOR")
                || name == "RUST_LOG"
            {
                command.env_remove(name);
            }
        }
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        ran(self.command(args))
    }
}

fn ran(mut command: Command) -> Ran {
    let output = command.output().expect("the binary runs");
    Ran {
        code: output.status.code().expect("an exit code"),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// A running server; ended when it is dropped.
struct Server {
    child: Child,
    url: String,
    ready: String,
    // Kept open: a server whose reader went away would lose its standard output.
    _stdout: BufReader<ChildStdout>,
}

impl Server {
    fn start(place: &Place) -> Self {
        Self::start_at(place, "127.0.0.1:0")
    }

    fn start_at(place: &Place, listen: &str) -> Self {
        Self::start_with(place, &["--listen", listen, "--admin-listen", "127.0.0.1:0"])
    }

    fn start_with(place: &Place, flags: &[&str]) -> Self {
        let mut child = place
            .command(&[&["serve"], flags].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary runs");
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut ready = String::new();
        stdout.read_line(&mut ready).unwrap();
        let address = word(&ready, "grpc=");
        Self { child, url: format!("http://{address}"), ready, _stdout: stdout }
    }

    fn ask(&self, place: &Place, args: &[&str]) -> Ran {
        place.run(&[args, &["--server", &self.url]].concat())
    }

    /// Sends a signal by the name that `kill` takes, and waits for the end.
    fn end(mut self, signal: &str) -> Option<i32> {
        let sent = Command::new("kill").args(["-s", signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// The word that follows a name in a line.
fn word<'l>(line: &'l str, name: &str) -> &'l str {
    let (_, rest) = line.split_once(name).unwrap_or_else(|| panic!("`{name}` in `{line}`"));
    rest.split_whitespace().next().unwrap()
}

#[test]
fn without_arguments_it_helps() {
    let ran = Place::new().run(&[]);
    assert_eq!((ran.code, &*ran.stderr), (0, ""));
    for verb in [
        "serve",
        "check",
        "explain",
        "expand",
        "authorize",
        "describe",
        "status",
        "health",
        "test",
        "schema",
        "completions",
    ] {
        assert!(ran.stdout.lines().any(|line| line.trim_start().starts_with(verb)), "{verb}");
    }
}

#[test]
fn schema_prints_what_the_reference_has() {
    let place = Place::new();
    let shipped = |name: &str| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference");
        fs::read_to_string(folder.join(name)).unwrap()
    };
    for (args, name) in [
        (&["schema"][..], "policy.schema.json"),
        (&["schema", "policy"], "policy.schema.json"),
        (&["schema", "test"], "test.schema.json"),
        (&["schema", "access"], "access.schema.json"),
    ] {
        let ran = place.run(args);
        assert_eq!((ran.code, ran.stdout), (0, shipped(name)), "{args:?}");
    }
}

#[test]
fn completions_know_every_verb() {
    let place = Place::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let ran = place.run(&["completions", shell]);
        assert_eq!((ran.code, &*ran.stderr), (0, ""), "{shell}");
        for word in ["authorize", "completions", "deny-warnings"] {
            assert!(ran.stdout.contains(word), "{shell}: {word}");
        }
    }
    // Where there is a bash, it takes the script and completes with it.
    let script = "eval \"$(\"$0\" completions bash)\" && COMP_WORDS=(scopeward des) COMP_CWORD=1 && \
                  _scopeward scopeward des scopeward && echo \"${COMPREPLY[*]}\"";
    let mut bash = Command::new("bash");
    bash.args(["-c", script, env!("CARGO_BIN_EXE_scopeward")]);
    if let Ok(output) = bash.output() {
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "describe\n", "{:?}", output.stderr);
    }
}

#[test]
fn usage_errors_exit_with_2_and_say_so_on_stderr() {
    for args in [
        &["nonsense"][..],
        &["check", "--nonsense"],
        &["check", "--output", "xml"],
        &["schema", "audit"],
        &["completions"],
        &["explain"],
        &["explain", "nonsense"],
        &["expand", "--source", "word-of-mouth"],
        &["expand", "--server", "127.0.0.1"],
        &["serve", "--debounce", "2"],
        &["serve", "--rescan-interval", "0s"],
        &["serve", "--audit-max-size", "1"],
    ] {
        let ran = Place::new().run(args);
        assert_eq!((ran.code, &*ran.stdout), (2, ""), "{args:?}");
        assert!(!ran.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn the_example_policies_are_valid() {
    let ran = Place::with_examples().run(&["check"]);
    assert_snapshot!(ran.shown(), @r"
    exit 0
    --- stdout
    valid: 4 audiences in 4 files, sha256:DIGEST
    ");
}

#[test]
fn a_named_path_that_cannot_be_read_is_2_and_an_empty_folder_1() {
    let place = Place::new();
    let ran = place.run(&["check"]);
    assert_eq!((ran.code, &*ran.stdout), (2, ""));
    assert_eq!(ran.stderr, "error: cannot read `policies`: no such file or directory\n");
    fs::create_dir(place.0.path().join("policies")).unwrap();
    let ran = place.run(&["check"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stdout.contains("NoAudience"));
}

#[test]
fn nothing_of_a_file_reaches_the_terminal_raw() {
    let hostile = "\u{1b}[31m\u{9b}2J\u{7}\u{202e}\u{2028}";
    let text = format!(
        "audiences:\n  # {hostile}\n  \"a{hostile}\": {{scopesSupported: 5}} # {hostile}\n  x: {{}}\n"
    );
    let place = Place::with(&[("policies/a.yaml", &text), ("policies/b\u{1b}[0m.yaml", "audiences: 5\n")]);
    for args in [&["check"][..], &["check", "nothing\u{1b}[31m"], &["explain", "expand"]] {
        let ran = place.run(args);
        assert_ne!(ran.code, 0);
        let all = format!("{}{}", ran.stdout, ran.stderr);
        assert!(!all.is_empty());
        for character in all.chars().filter(|character| *character != '\n') {
            assert!(!character.is_control() && !"\u{202e}\u{2028}".contains(character), "{all:?}");
        }
    }
}

#[test]
fn colour_is_for_terminals_unless_it_is_forced() {
    let place = Place::with(&[("policies/mcp.yaml", UNSUPPORTED_BASELINE)]);
    assert!(!place.run(&["check"]).stdout.contains('\u{1b}'));
    let mut forced = place.command(&["check"]);
    forced.env("CLICOLOR_FORCE", "1").env_remove("NO_COLOR");
    assert!(ran(forced).stdout.contains("\u{1b}["));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let findings: String = (0..5000).map(|n| format!("  a{n}: {{scopesSupported: 5}}\n")).collect();
    let place = Place::with(&[("policies/a.yaml", &format!("audiences:\n{findings}"))]);
    let mut child = place.command(&["check"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((child.wait().unwrap().code(), &*stderr), (Some(1), ""));
}

#[test]
fn an_answer_that_cannot_be_written_is_2() {
    let place = Place::with_examples();
    let mut command = place.command(&["check"]);
    command.stdout(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let output = command.stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), &*stderr),
        (Some(2), "error: could not write to standard output: No space left on device\n")
    );
}

#[test]
fn no_server_is_2_and_says_which() {
    // Port 1 of a loopback address that nobody uses.
    for server in ["http://127.217.3.9:1", "127.217.3.9:1"] {
        let ran = Place::new().run(&["expand", "--server", server]);
        assert_eq!((ran.code, &*ran.stdout), (2, ""));
        assert!(ran.stderr.contains("http://127.217.3.9:1"), "{}", ran.stderr);
        assert!(ran.stderr.contains("scopeward serve"), "{}", ran.stderr);
    }
}

#[test]
fn a_server_answers_the_client_verbs() {
    let place = Place::with_examples();
    let server = Server::start(&place);
    assert!(server.ready.starts_with("scopeward ready: grpc=127.0.0.1:"), "{}", server.ready);
    assert!(word(&server.ready, "digest=").starts_with("sha256:"));
    assert_eq!(word(&server.ready, "audiences="), "4");

    let ran = server.ask(&place, &["expand", "--audience", MCP, "--scope", "openid"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.starts_with("ALLOW openid offline_access\n"), "{}", ran.stdout);
    assert!(ran.stdout.contains("offline_access (BASELINE)"), "{}", ran.stdout);

    let base = ["authorize", "--audience", MCP, "--registered-scope", "openid", "--scope"];
    let ran = server.ask(&place, &[&base[..], &["openid offline_access"]].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let ran = server.ask(&place, &[&base[..], &["openid admin", "--output", "json"]].concat());
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert_eq!(ran.json()["refused"][0]["reason"], "REASON_UNSUPPORTED");
    assert_eq!(ran.json()["policy"]["generation"], "1");

    let base = ["token", "--audience", MCP, "--grant", "refresh", "--granted-scope", "openid gone"];
    let ran = server.ask(&place, &base);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.starts_with("ALLOW openid\n"), "{}", ran.stdout);
    assert!(ran.stdout.contains(&format!("grant     {MCP}: openid\n")), "{}", ran.stdout);
    let ran = server.ask(&place, &[&base[..], &["--scope", "openid offline_access"]].concat());
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(ran.stdout.starts_with("DENY EXCEEDS_GRANT\n"), "{}", ran.stdout);
    let ran = server.ask(&place, &["token", "--grant", "token-exchange"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("INVALID_ARGUMENT (FIELD_MISSING): `granted_scope`"), "{}", ran.stderr);

    let ran = server.ask(&place, &["describe"]);
    assert!(ran.stdout.contains(MCP) && ran.stdout.contains("https://notes.example.com"), "{}", ran.stdout);
    let ran = server.ask(&place, &["describe", "--audience", MCP, "--output", "json"]);
    assert_eq!(ran.json()["audiences"][0]["baselineClientScopes"], serde_json::json!(["offline_access"]));

    let ran = server.ask(&place, &["describe", "--audience", "https://nobody.example"]);
    assert_eq!((ran.code, &*ran.stdout), (2, ""));
    assert!(ran.stderr.contains("NOT_FOUND (AUDIENCE_NOT_FOUND)"), "{}", ran.stderr);
    let ran = server.ask(&place, &["expand", "--scope", &"x ".repeat(257)]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(ran.stdout.starts_with("DENY TOO_MANY_SCOPES\n"), "{}", ran.stdout);
    let ran = server.ask(&place, &[&["expand"][..], &["--audience", "a"].repeat(17)].concat());
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("INVALID_ARGUMENT (LIMIT_EXCEEDED): `audiences`"), "{}", ran.stderr);
}

#[test]
fn a_server_listens_on_all_that_is_named() {
    let place = Place::with_examples();
    let socket = format!("unix:{}", place.0.path().join("s").display());
    place.write(
        "c.yaml",
        format!("listen: [\"127.0.0.1:0\", \"{socket}\", \"[::1]:0\"]\nlistenUnixMode: 600\n"),
    );
    let mut server = Server::start_with(&place, &["--config", "c.yaml", "--admin-listen", "127.0.0.1:0"]);
    let named: Vec<_> =
        server.ready.split_whitespace().filter_map(|word| word.strip_prefix("grpc=")).collect();
    let named: Vec<String> = named.into_iter().map(str::to_owned).collect();
    assert_eq!((named.len(), &named[1]), (3, &socket), "{}", server.ready);
    for address in named {
        server.url = address;
        let ran = server.ask(&place, &["expand", "--audience", MCP, "--scope", "openid"]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
    }
    // The second one does not take the first one's socket away.
    let ran =
        place.run(&["serve", "--listen", &socket, "--state-dir", "other", "--admin-listen", "127.0.0.1:0"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("another process listens there"), "{}", ran.stderr);
    assert_eq!(server.end("TERM"), Some(0));
    assert!(!place.0.path().join("s").exists());
    let ran = place.run(&["status", "--server", &socket]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.starts_with(&format!("error: could not connect to {socket}: ")), "{}", ran.stderr);
}

#[test]
fn explain_and_a_server_give_the_same_answer() {
    let place = Place::with_examples();
    let server = Server::start(&place);
    let client = ["--client-id", "https://editor.example.com/client.json", "--source", "cimd"];
    for question in [
        &["authorize", "--scope", "openid notes:share"][..],
        &["token", "--grant", "client-credentials", "--scope", "notes:share"],
        &["token", "--grant", "refresh", "--scope", "openid gone", "--granted-scope", "openid gone"],
    ] {
        let where_ = ["--audience", "https://notes.example.com", "--output", "json"];
        let question = [question, &where_, &client].concat();
        let mut offline = place.run(&[&["explain"], &question[..]].concat()).json();
        let mut online = server.ask(&place, &question).json();
        let offline = offline.as_object_mut().unwrap();
        for extra in ["asOmitted", "trail", "clientRules", "settings", "nearAudiences", "grpcurl"] {
            assert!(offline.remove(extra).is_some(), "{extra}");
        }
        let online = online.as_object_mut().unwrap();
        assert_eq!(online["decision"], "DECISION_ALLOW");
        for answer in [&mut *offline, &mut *online] {
            answer.remove("decisionId").unwrap();
            answer["policy"].as_object_mut().unwrap().remove("generation").unwrap();
        }
        assert_eq!(offline, online);
    }
}

#[test]
fn an_unknown_audience_is_answered_with_near_ones() {
    let place = Place::with_examples();
    let server = Server::start(&place);
    let unknown = ["--audience", "https://mcp.example.org"];
    let ran = place.run(&[&["explain", "authorize"], &unknown[..]].concat());
    let expected =
        "no audience `https://mcp.example.org` in the policy; did you mean `https://mcp.example.com`";
    assert!(ran.code == 3 && ran.stdout.contains(expected), "{}", ran.stdout);
    let json = place.run(&[&["explain", "expand", "--output", "json"], &unknown[..]].concat()).json();
    assert_eq!(json["nearAudiences"][0]["near"][0], "https://mcp.example.com");
    let ran = server.ask(&place, &[&["describe"], &unknown[..]].concat());
    assert!(ran.code == 2 && ran.stderr.contains("did you mean `https://mcp.example.com`"), "{}", ran.stderr);
    // Far ones are not suggested.
    let far = ["--audience", "urn:x"];
    let ran = place.run(&[&["explain", "authorize"], &far[..]].concat());
    assert!(ran.stdout.contains("no audience `urn:x` in the policy; the audiences"), "{}", ran.stdout);
    let ran = server.ask(&place, &[&["describe"], &far[..]].concat());
    assert!(ran.code == 2 && !ran.stderr.contains("did you mean"), "{}", ran.stderr);
}

#[test]
fn a_server_ends_with_0_when_it_is_told_to() {
    let place = Place::with_examples();
    for signal in ["TERM", "INT"] {
        assert_eq!(Server::start(&place).end(signal), Some(0), "{signal}");
    }
}

#[test]
fn a_port_in_use_is_2() {
    let place = Place::with_examples();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (flag, other) in [("--listen", "--admin-listen"), ("--admin-listen", "--listen")] {
        let ran = place.run(&["serve", flag, &address, other, "127.0.0.1:0"]);
        assert_eq!((ran.code, &*ran.stdout), (2, ""));
        assert!(
            ran.stderr.contains(&address) && ran.stderr.to_lowercase().contains("in use"),
            "{}",
            ran.stderr
        );
    }
}

#[test]
fn plaintext_for_other_machines_needs_permission() {
    let place = Place::with_examples();
    for listen in ["0.0.0.0:0", "127.0.0.1:0,0.0.0.0:0"] {
        let ran = place.run(&["serve", "--listen", listen, "--admin-listen", "127.0.0.1:0"]);
        assert_eq!((ran.code, &*ran.stdout), (2, ""));
        assert!(ran.stderr.contains("--insecure-allow-remote-plaintext"), "{}", ran.stderr);
    }
    // Probes are plaintext, and the admin endpoint shows neither clients nor events.
    let server = Server::start_with(&place, &["--listen", "127.0.0.1:0", "--admin-listen", "[::]:0"]);
    assert!(server.ready.contains("admin=[::]:"), "{}", server.ready);
}

#[test]
fn a_server_with_an_invalid_policy_reports_it_and_exits_with_1() {
    let place = Place::with(&[("policies/mcp.yaml", UNSUPPORTED_BASELINE)]);
    let flags = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let ran = place.run(&flags);
    assert_eq!((ran.code, &*ran.stdout), (1, ""));
    assert!(ran.stderr.contains("policies/mcp.yaml:4:28"), "{}", ran.stderr);
    assert!(ran.stderr.contains("--start-from-last-good"), "{}", ran.stderr);
    let ran = Place::new().run(&flags);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("cannot read `policies`"), "{}", ran.stderr);
    assert!(ran.stderr.contains("--start-from-last-good"), "{}", ran.stderr);
}

#[test]
fn help_prints_the_page_of_a_finding_or_the_help_of_a_verb() {
    let place = Place::new();
    for code in ["UnknownKey", "unknownkey", "NoDefaultAudience"] {
        let ran = place.run(&["help", code]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert!(
            ran.stdout.to_lowercase().starts_with(&format!("# {}\n", code.to_lowercase())),
            "{}",
            ran.stdout
        );
        assert!(ran.stdout.contains("## What to do"), "{}", ran.stdout);
    }
    let ran = place.run(&["help", "audit", "tail"]);
    assert_eq!((ran.code, ran.stdout), (0, place.run(&["audit", "tail", "--help"]).stdout));
    assert_eq!(place.run(&["help"]).stdout, place.run(&[]).stdout);
    for (name, near) in [("UnknownKeys", "`UnknownKey`"), ("chek", "`check`")] {
        let ran = place.run(&["help", name]);
        assert_eq!(ran.code, 2);
        assert!(ran.stderr.contains(&format!("did you mean {near}?")), "{}", ran.stderr);
    }
    assert_eq!(place.run(&["help", "\u{9b}x"]).code, 2);
}
