//! `docs/reference/findings/`: one page for each code, with an example that triggers just this code
//! and, where there is one, a mended policy that triggers nothing.
//!
//! With `SCOPEWARD_BLESS=1` in the environment the findings of the examples and the index are written
//! into the pages instead.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::{env, fs};

use scopeward::access::AccessDocument;
use scopeward::policy::check::check;
use scopeward::policy::document::Document;
use scopeward::policy::finding::{Code, Finding, Severity};
use scopeward::store::load::Loader;
use scopeward::store::read::ReadSettings;
use scopeward::suite::Suite;

const INDEX: &str = "README.md";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/findings")
}

fn bless() -> bool {
    env::var_os("SCOPEWARD_BLESS").is_some_and(|value| value == "1")
}

/// A page and its parts.
struct Page {
    path: PathBuf,
    text: String,
}

impl Page {
    fn of(code: Code) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(code.page());
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { path, text }
    }

    /// What stands under a heading.
    fn section(&self, heading: &str) -> &str {
        let (_, behind) = self
            .text
            .split_once(&format!("\n## {heading}\n"))
            .unwrap_or_else(|| panic!("{} has no section {heading}", self.path.display()));
        behind.split("\n## ").next().unwrap()
    }
}

/// The fenced blocks of a text: language and content, with the file name of the line before.
fn blocks(text: &str) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    let mut name = "policy.yaml".to_owned();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(file) = line.strip_prefix('`').and_then(|line| line.strip_suffix("`:")) {
            name = file.to_owned();
        }
        if let Some(language) = line.strip_prefix("```") {
            let content: String =
                lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect();
            found.push((
                language.to_owned(),
                std::mem::replace(&mut name, "policy.yaml".to_owned()),
                content,
            ));
        }
    }
    found
}

/// Everything that is found in files, as `check` and `test` would find it.
fn findings(files: &[(String, String)]) -> Vec<Finding> {
    let (access, files): (Vec<_>, Vec<_>) = files.iter().partition(|(name, _)| name == "access.yaml");
    if let [(name, text)] = &access[..] {
        let checked = match AccessDocument::read(&Arc::from(name.as_str()), text).outcome {
            Ok(checked) => checked,
            // A warning may follow from the same mistake.
            Err(findings) => return findings.into_vec().into_iter().filter(Finding::is_error).collect(),
        };
        let mut found = checked.warnings.clone().into_vec();
        if !files.is_empty() {
            let policies: Vec<_> =
                files.iter().map(|(name, text)| Document::read(&Arc::from(name.as_str()), text)).collect();
            let accepted = check(&Arc::from("policies"), &policies).expect("a valid policy");
            found.extend(checked.undeclared(&accepted.set).into_vec());
        }
        return found;
    }
    let (suites, policies): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|(name, _)| name.ends_with("_test.yaml"));
    let documents: Vec<Document> =
        policies.iter().map(|(name, text)| Document::read(&Arc::from(name.as_str()), text)).collect();
    let accepted = match check(&Arc::from("policies"), &documents) {
        Ok(accepted) => accepted,
        Err(findings) => return findings.into_vec(),
    };
    let mut found = accepted.warnings.into_vec();
    for (name, text) in suites {
        found.extend(Suite::read(&Arc::from(name.as_str()), text).check(&accepted.set));
    }
    found
}

/// The files of the example of a page; none if a script makes them.
pub(crate) fn example(code: Code) -> Vec<(String, String)> {
    yaml(&blocks(Page::of(code).section("Example")))
}

/// What is found in a folder that a shell script made, with paths below the folder.
fn found_on_disk(script: &str) -> Vec<Finding> {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("policies")).unwrap();
    let made = Command::new("sh").arg("-ec").arg(script).current_dir(root.path()).status().unwrap();
    assert!(made.success(), "{script}");
    let settings = ReadSettings {
        allow_outside_links: script.contains("--allow-outside-links"),
        ..ReadSettings::default()
    };
    let loaded = Loader::new(vec![root.path().join("policies")], settings).load().unwrap();
    let prefix = format!("{}/", root.path().canonicalize().unwrap().display());
    let mut findings = match loaded.outcome {
        Ok(accepted) => accepted.warnings.into_vec(),
        Err(findings) => findings.into_vec(),
    };
    for finding in &mut findings {
        finding.file = finding.file.replace(&prefix, "").into();
        finding.message = finding.message.replace(&prefix, "");
    }
    findings
}

fn yaml(blocks: &[(String, String, String)]) -> Vec<(String, String)> {
    let yaml = blocks.iter().filter(|(language, ..)| language == "yaml");
    yaml.map(|(_, name, text)| (name.clone(), text.clone())).collect()
}

#[test]
fn each_code_has_a_page_that_says_what_it_means() {
    for code in Code::ALL {
        let page = Page::of(*code);
        let severity = if code.severity() == Severity::Error { "Error" } else { "Warning" };
        let meaning = code.meaning().trim().replace('\n', " ").replace("  ", " ");
        let start = page.text.split("\n\n").take(2).map(|text| text.replace('\n', " ")).collect::<Vec<_>>();
        assert_eq!(start, [format!("# {}", code.as_str()), format!("**{severity}.** {meaning}")]);
        assert!(page.section("What to do").trim().len() > 10, "{}", code.as_str());
    }
}

#[test]
fn each_page_is_about_a_code() {
    let pages: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != INDEX)
        .collect();
    let codes: BTreeSet<String> = Code::ALL.iter().map(|code| format!("{}.md", code.as_str())).collect();
    assert_eq!(pages, codes);
}

#[test]
fn each_example_triggers_its_code_and_no_other() {
    for code in Code::ALL {
        let page = Page::of(*code);
        let example = blocks(page.section("Example"));
        let found = match example.iter().find(|(language, ..)| language == "sh") {
            Some((_, _, script)) => found_on_disk(script),
            None => findings(&yaml(&example)),
        };
        assert!(!found.is_empty(), "the example of {} triggers nothing", code.as_str());
        // Where registrations need an audience, authorize requests do as well.
        let implied = (*code == Code::RegistrationNeedsAudience).then_some(Code::NoDefaultAudience);
        for finding in &found {
            assert!(finding.code == *code || Some(finding.code) == implied, "{finding}");
        }
        let mut shown = String::new();
        for finding in &found {
            writeln!(shown, "{finding}").unwrap();
            if !finding.suggestion.is_empty() {
                writeln!(shown, "  {}", finding.suggestion).unwrap();
            }
        }
        let Some((_, _, kept)) = example.iter().find(|(language, ..)| language == "text") else {
            panic!("{} shows no finding", page.path.display());
        };
        if *kept != shown && bless() {
            let block = |text: &str| format!("```text\n{text}```\n");
            fs::write(&page.path, page.text.replace(&block(kept), &block(&shown))).unwrap();
        } else {
            assert_eq!(*kept, shown, "{} is stale; SCOPEWARD_BLESS=1 writes it", page.path.display());
        }
    }
}

#[test]
fn each_mended_example_triggers_nothing() {
    let mut count = 0;
    for code in Code::ALL {
        let files = yaml(&blocks(Page::of(*code).section("What to do")));
        if !files.is_empty() {
            assert_eq!(findings(&files), [], "{}", code.as_str());
            count += 1;
        }
    }
    assert!(count > 20);
}

#[test]
fn the_index_names_every_page() {
    let mut text = String::from(
        "# Findings\n\nWhat `scopeward check`, `scopeward test` and a server can say about files, by code. An error makes \
         the policy\ninvalid; a warning changes neither that nor an exit code, unless `check` has `--deny-warnings`. The \
         codes are stable.\n",
    );
    for (severity, heading) in [(Severity::Error, "Errors"), (Severity::Warning, "Warnings")] {
        write!(text, "\n## {heading}\n\n| code | meaning |\n| --- | --- |\n").unwrap();
        for code in Code::ALL.iter().filter(|code| code.severity() == severity) {
            let meaning = code.meaning().trim().replace('\n', " ").replace("  ", " ");
            writeln!(text, "| [{0}]({0}.md) | {meaning} |", code.as_str()).unwrap();
        }
    }
    let path = folder().join(INDEX);
    if bless() {
        fs::write(&path, &text).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap_or_default(), text, "SCOPEWARD_BLESS=1 writes it");
}
