//! Runs what `README.md` and the guides tell their readers to run.
//!
//! A page is a Markdown file; it runs from top to bottom in a folder of its own that has copies of
//! `policies/`, `proto/` and `examples/`. What its fences mean:
//!
//! - ```` ```console ````: lines that begin with `$ ` are commands, `> ` goes on with one; other lines are what it
//!   prints, compared where given (`...` stands for any lines, or for any text within a line)
//! - ```` ```console exit=3 ````: the last command ends with that code; every other one with 0
//! - ```` ```console serve ````: its command is a server, and stays until the end of the page
//! - ```` ```console no-run ````: not run
//! - ```` ```yaml file=PATH ````: written to that file
//!
//! Commands that need more than a shell (Python, Node and their packages, `curl`) run only if `TEST_TOOLS` names `docs-clients`,
//! so that the tests pass where there is Rust alone.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use scopeward::audit::GapReason;
use tempfile::TempDir;

use crate::tools;

/// How long a command may take, and how long an edit may take to show.
const DEADLINE: Duration = Duration::from_secs(30);

#[track_caller]
fn check(page: &str) {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
    let steps = steps(&text);
    assert!(!steps.is_empty(), "{page} has nothing to run");
    let mut scene = Scene::new();
    for step in steps {
        scene.play(page, &step);
    }
}

#[test]
fn the_readme_runs() {
    check("README.md");
}

#[test]
fn first_hour_of_an_auth_server_engineer_runs() {
    check("docs/guides/first-hour-auth-server.md");
}

#[test]
fn first_hour_of_an_operator_runs() {
    check("docs/guides/first-hour-operator.md");
}

#[test]
fn first_hour_of_a_security_team_runs() {
    check("docs/guides/first-hour-security.md");
}

#[test]
fn why_clients_fail_runs() {
    check("docs/guides/why-clients-fail-with-invalid_scope.md");
}

#[test]
fn choosing_a_baseline_runs() {
    check("docs/guides/choosing-a-baseline.md");
}

#[test]
fn calling_from_your_auth_server_runs() {
    check("docs/guides/calling-from-your-auth-server.md");
}

#[test]
fn changing_policies_runs() {
    check("docs/guides/changing-policies.md");
}

#[test]
fn trying_a_policy_on_live_traffic_runs() {
    check("docs/guides/trying-a-policy-on-live-traffic.md");
}

#[test]
fn audit_consumers_runs() {
    check("docs/guides/audit-consumers.md");
}

#[test]
fn kubernetes_runs() {
    check("docs/guides/kubernetes.md");
}

#[test]
fn observing_runs() {
    check("docs/guides/observing.md");
}

#[test]
fn securing_runs() {
    check("docs/guides/securing.md");
}

#[test]
fn console_runs() {
    check("docs/guides/console.md");
}

#[test]
fn running_in_production_runs() {
    check("docs/guides/running-in-production.md");
}

#[test]
fn troubleshooting_runs() {
    check("docs/guides/troubleshooting.md");
}

#[test]
fn servers_that_do_not_ask_runs() {
    check("docs/guides/servers-that-do-not-ask.md");
}

#[test]
fn a_gateway_before_any_server_runs() {
    check("docs/guides/gateway.md");
}

#[test]
fn which_question_when_runs() {
    check("docs/guides/which-question-when.md");
}

#[test]
fn every_guide_has_a_test() {
    let source = include_str!("docs.rs");
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guides")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let is_run = source.contains(&format!("check(\"docs/guides/{name}\")"));
        assert_eq!(is_run, !steps(&text).is_empty(), "{name}");
    }
}

#[test]
fn links_between_pages_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let guides = fs::read_dir(root.join("docs/guides")).unwrap().map(|entry| entry.unwrap().path());
    for page in guides.chain([root.join("README.md")]) {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            assert!(target.exists(), "{}: {link}", page.display());
            let has_anchor = || fs::read_to_string(&target).unwrap().lines().any(|line| slug(line) == anchor);
            assert!(anchor.is_empty() || has_anchor(), "{}: {link}", page.display());
        }
    }
}

/// The anchor of a heading, as code hosts make it.
fn slug(line: &str) -> String {
    let text = line.trim_start_matches('#').trim().to_lowercase();
    text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>().replace(' ', "-")
}

#[test]
fn the_guide_for_consumers_lists_the_reasons_of_gaps() {
    let text = include_str!("../../docs/guides/audit-consumers.md");
    let rows = text.lines().skip_while(|line| !line.starts_with("| reason of a gap")).skip(2);
    let listed: Vec<&str> = rows
        .take_while(|line| line.starts_with('|'))
        .flat_map(|row| row.split('|').nth(1).unwrap().split([',', ' ', '`']).filter(|word| !word.is_empty()))
        .collect();
    let mut expected: Vec<&str> = GapReason::ALL.into_iter().map(GapReason::as_str).collect();
    // Not in the chain, only in lines.
    expected.push("retention");
    assert_eq!(sorted(listed), sorted(expected));
}

#[test]
fn the_readme_names_every_dependency() {
    let readme = include_str!("../../README.md");
    let table = readme.split("## Dependencies").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| ")).skip(2);
    let named: BTreeSet<&str> = rows
        .flat_map(|row| row.split('|').nth(1).unwrap().split([',', ' ', '(', ')']))
        .filter(|word| word.starts_with(|c: char| c.is_ascii_lowercase()) && *word != "inside")
        .collect();
    let mut is_dependency = false;
    let mut used = BTreeSet::new();
    for line in include_str!("../../Cargo.toml").lines() {
        if let Some(section) = line.strip_prefix('[') {
            is_dependency = section.trim_end_matches(']').ends_with("dependencies");
        } else if let Some((name, _)) = line.split_once(" = ").filter(|_| is_dependency) {
            used.insert(name);
        }
    }
    let differ: Vec<_> = named.symmetric_difference(&used).collect();
    assert!(differ.is_empty(), "in README.md or in Cargo.toml alone: {differ:?}");
}

fn sorted(mut words: Vec<&str>) -> Vec<&str> {
    words.sort_unstable();
    words
}

/// Something that a page does.
#[derive(Debug, PartialEq)]
enum Step {
    Write { path: String, text: String },
    Serve { command: String },
    Run { line: usize, command: String, output: Vec<String>, exit: i32, patient: bool },
}

/// What a page does, in order.
fn steps(page: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lines = (1..).zip(page.lines());
    while let Some((_, line)) = lines.next() {
        let Some(fence) = line.strip_prefix("```") else { continue };
        let block: Vec<(usize, &str)> = lines.by_ref().take_while(|(_, line)| *line != "```").collect();
        let mut words = fence.split_whitespace();
        match words.next() {
            Some("yaml") => {
                if let Some(path) = words.next().and_then(|word| word.strip_prefix("file=")) {
                    let text = block.iter().map(|(_, line)| format!("{line}\n")).collect();
                    steps.push(Step::Write { path: path.to_owned(), text });
                }
            }
            Some("console") => match words.next() {
                Some("no-run") => {}
                Some("serve") => {
                    let command = block.first().unwrap().1.strip_prefix("$ ").unwrap().to_owned();
                    steps.push(Step::Serve { command });
                }
                Some(word) => {
                    let exit = word.strip_prefix("exit=").unwrap().parse().unwrap();
                    steps.extend(commands(&block, exit));
                }
                None => steps.extend(commands(&block, 0)),
            },
            _ => {}
        }
    }
    steps
}

/// The commands of one block.
fn commands(block: &[(usize, &str)], last_exit: i32) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut slept = false;
    for (number, text) in block {
        if let Some(command) = text.strip_prefix("$ ") {
            // What a reader waits for, a test asks for again until it is there.
            if command.starts_with("sleep ") {
                slept = true;
                continue;
            }
            let command = command.to_owned();
            steps.push(Step::Run { line: *number, command, output: Vec::new(), exit: 0, patient: slept });
            continue;
        }
        let Some(Step::Run { command, output, .. }) = steps.last_mut() else {
            panic!("line {number}: neither a command nor what one prints: {text}")
        };
        match text.strip_prefix("> ") {
            Some(more) if output.is_empty() => *command = format!("{command}\n{more}"),
            _ => output.push((*text).to_owned()),
        }
    }
    if let Some(Step::Run { exit, .. }) = steps.last_mut() {
        *exit = last_exit;
    }
    steps
}

/// The folder of a page, and its servers.
struct Scene {
    folder: TempDir,
    servers: Vec<Server>,
    /// The addresses of the documents, and what they are here.
    addresses: Vec<(&'static str, String)>,
}

/// A process that ends with its page.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for part in ["policies", "proto", "examples"] {
            let from = Path::new(env!("CARGO_MANIFEST_DIR")).join(part);
            copy(&from, &folder.path().join(part));
        }
        Self { folder, servers: Vec::new(), addresses: Vec::new() }
    }

    fn play(&mut self, page: &str, step: &Step) {
        match step {
            Step::Write { path, text } => {
                let path = self.folder.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Step::Serve { command } => self.serve(command),
            Step::Run { line, command, output, exit, patient } => {
                if needs_more_than_a_shell(command) && !tools::wanted("docs-clients") {
                    return;
                }
                let deadline = Instant::now() + DEADLINE;
                loop {
                    let (code, printed) = self.run(command);
                    let problem = if code == Some(*exit) {
                        mismatch(output, &printed)
                    } else {
                        Some(format!("ended with {code:?}, not {exit}"))
                    };
                    let Some(problem) = problem else { return };
                    if !patient || Instant::now() > deadline {
                        panic!("{page}:{line}: `{command}`: {problem}\n--- printed\n{printed}");
                    }
                    thread::sleep(Duration::from_millis(50));
                }
            }
        }
    }

    /// Starts a server on free ports and waits until it is ready.
    fn serve(&mut self, command: &str) {
        let mut child = self
            .shell(&format!(
                "exec {}",
                command.replace("cargo run --release --", "scopeward").replace(":50554", ":0")
            ))
            .env("SCOPEWARD_LISTEN", "127.0.0.1:0")
            .env("SCOPEWARD_ADMIN_LISTEN", "127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        self.servers.push(Server(child));
        let ready = lines
            .by_ref()
            .map_while(Result::ok)
            .find(|line| line.contains("ready: "))
            .unwrap_or_else(|| panic!("`{command}` ended before it was ready"));
        thread::spawn(move || lines.for_each(drop));
        let named =
            [("127.0.0.1:50551", "grpc="), ("127.0.0.1:50552", "admin="), ("127.0.0.1:50554", "http=")];
        let address = |name: &str| ready.split_whitespace().find_map(|word| word.strip_prefix(name));
        let address = |(documented, name)| Some((documented, address(name)?.to_owned()));
        self.addresses = named.into_iter().filter_map(address).collect();
    }

    fn run(&self, command: &str) -> (Option<i32>, String) {
        let mut command = command.replace("cargo run --release --", "scopeward");
        for (documented, real) in &self.addresses {
            command = command.replace(documented, real);
        }
        let output = self.shell(&command).stdin(Stdio::null()).output().unwrap();
        let mut printed = String::from_utf8_lossy(&output.stdout).into_owned();
        printed.push_str(&String::from_utf8_lossy(&output.stderr));
        for (documented, real) in &self.addresses {
            printed = printed.replace(real, documented);
        }
        (output.status.code(), printed)
    }

    fn shell(&self, command: &str) -> Command {
        let binary = PathBuf::from(env!("CARGO_BIN_EXE_scopeward"));
        let mut path = binary.parent().unwrap().as_os_str().to_owned();
        path.push(":");
        path.push(env::var_os("PATH").unwrap());
        let mut shell = Command::new("bash");
        shell.args(["-c", command]).current_dir(self.folder.path()).env("PATH", path).env("NO_COLOR", "1");
        if let Some((_, server)) = self.addresses.first() {
            shell.env("SCOPEWARD_SERVER", format!("http://{server}"));
        }
        shell
    }
}

fn needs_more_than_a_shell(command: &str) -> bool {
    ["python", "pip", "npm", "node ", "curl "].iter().any(|word| command.contains(word))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if !entry.file_type().unwrap().is_dir() {
            fs::copy(entry.path(), to).unwrap();
        } else if entry.file_name() != "node_modules" {
            copy(&entry.path(), &to);
        }
    }
}

/// What is wrong with an output; nothing is wrong with any if none was expected.
fn mismatch(expected: &[String], printed: &str) -> Option<String> {
    let printed: Vec<&str> = printed.lines().map(str::trim_end).collect();
    let expected: Vec<&str> = expected.iter().map(|line| line.trim_end()).collect();
    if expected.is_empty() || lines_match(&expected, &printed) {
        return None;
    }
    Some(format!("does not print\n{}", expected.join("\n")))
}

/// Whether lines match a pattern in which `...` stands for any number of lines.
fn lines_match(pattern: &[&str], lines: &[&str]) -> bool {
    match pattern {
        [] => lines.is_empty(),
        ["...", rest @ ..] => (0..=lines.len()).any(|at| lines_match(rest, &lines[at..])),
        [first, rest @ ..] => lines
            .split_first()
            .is_some_and(|(line, lines)| line_matches(first, line) && lines_match(rest, lines)),
    }
}

/// Whether a line matches a pattern in which `...` stands for any text.
fn line_matches(pattern: &str, line: &str) -> bool {
    match pattern.split_once("...") {
        None => pattern == line,
        Some((before, rest)) => line.strip_prefix(before).is_some_and(|line| {
            (0..=line.len()).filter(|at| line.is_char_boundary(*at)).any(|at| line_matches(rest, &line[at..]))
        }),
    }
}

#[test]
fn a_page_is_read_as_documented() {
    let page = "text\n```yaml file=a/b.yaml\nk: v\n```\n```yaml\nk: v\n```\n```console no-run\n$ no\n```\n\
                ```console exit=3\n$ one\nprinted\n$ sleep 1\n$ two \\\n> more\n```\n```console serve\n$ serve\n```\n";
    let run = |line, command: &str, output: &[&str], exit, patient| {
        let output = output.iter().map(ToString::to_string).collect();
        Step::Run { line, command: command.to_owned(), output, exit, patient }
    };
    let expected = [
        Step::Write { path: "a/b.yaml".to_owned(), text: "k: v\n".to_owned() },
        run(12, "one", &["printed"], 0, false),
        run(15, "two \\\nmore", &[], 3, true),
        Step::Serve { command: "serve".to_owned() },
    ];
    assert_eq!(steps(page), expected);
}

#[test]
fn outputs_are_compared_with_holes() {
    let check = |pattern: &[&str], printed: &str| {
        mismatch(&pattern.iter().map(ToString::to_string).collect::<Vec<_>>(), printed).is_none()
    };
    assert!(check(&[], "anything"));
    assert!(check(&["a", "...", "d"], "a\nb\nc\nd\n"));
    assert!(check(&["a", "...", "d"], "a\nd"));
    assert!(check(&["id ... end"], "id 0198 end"));
    assert!(!check(&["a"], "a\nb"));
    assert!(!check(&["a", "...", "d"], "a\nb"));
    assert!(!check(&["id ... end"], "id 0198"));
}
