//! `tests/slips.md`: what authors of policies get wrong, with everything that is said about each slip.
//!
//! With `SCOPEWARD_BLESS=1` in the environment what is said is written into the table instead.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use scopeward::policy::finding::Finding;
use scopeward::store::load::Loader;
use scopeward::store::read::{ReadSettings, Wanted, read_folder};
use scopeward::suite::Suite;

fn table() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slips.md")
}

/// Writes the files of a slip into a folder; returns what is said, as the table has it.
fn write_files(folder: &Path, slip: &str) {
    let mut name = "policy.yaml";
    let mut lines = slip.lines();
    while let Some(line) = lines.next() {
        if let Some(file) = line.strip_prefix('`').and_then(|line| line.strip_suffix("`:")) {
            name = file;
        }
        let Some(how) = line.strip_prefix("```yaml") else { continue };
        let (start, end) = match how {
            "" => ("", "\n"),
            " bom" => ("\u{feff}", "\n"),
            " crlf" => ("", "\r\n"),
            other => panic!("a block is marked {other}"),
        };
        let lines = lines.by_ref().take_while(|line| *line != "```");
        let text: String =
            std::iter::once(start.to_owned()).chain(lines.map(|line| format!("{line}{end}"))).collect();
        fs::write(folder.join(name), text).unwrap();
        name = "policy.yaml";
    }
}

/// Everything that `check` and then `test` find in the files of a slip.
fn found(slip: &str) -> String {
    let root = tempfile::tempdir().unwrap();
    write_files(root.path(), slip);
    let paths = [root.path().to_owned()];
    let loaded = Loader::new(paths.to_vec(), ReadSettings::default()).for_authors().load().unwrap();
    let (set, mut findings) = match loaded.outcome {
        Ok(accepted) => (Some(accepted.set), accepted.warnings.into_vec()),
        Err(findings) => (None, findings.into_vec()),
    };
    if let Some(set) = set {
        let settings = ReadSettings { wanted: Wanted::Tests, ..ReadSettings::default() };
        let tests = read_folder(&paths, None, &settings).unwrap();
        findings.extend(tests.files.iter().flat_map(|file| Suite::read(&file.path, file.text()).check(&set)));
    }
    let mut said = String::new();
    for finding in &findings {
        writeln!(said, "{finding}").unwrap();
        if !finding.suggestion.is_empty() {
            writeln!(said, "  {}", finding.suggestion).unwrap();
        }
    }
    if !findings.iter().any(Finding::is_error) {
        said.push_str("valid\n");
    }
    let prefix = root.path().display().to_string();
    said.replace(&format!("{prefix}/"), "").replace(&prefix, "policies")
}

#[test]
fn each_slip_is_answered_with_what_to_do() {
    let before = fs::read_to_string(table()).unwrap();
    let mut slips = before.split("\n## ");
    let mut after = slips.next().unwrap().to_owned();
    let mut count = 0;
    for slip in slips {
        let (files, _) =
            slip.split_once("\n```text\n").unwrap_or_else(|| panic!("nothing is said about {slip}"));
        write!(after, "\n## {files}\n```text\n{}```\n", found(slip)).unwrap();
        count += 1;
    }
    assert!(count > 40);
    if env::var_os("SCOPEWARD_BLESS").is_some_and(|value| value == "1") {
        fs::write(table(), &after).unwrap();
    } else {
        let differ = before.split("\n## ").zip(after.split("\n## ")).find(|(before, after)| before != after);
        assert_eq!(differ, None, "tests/slips.md is stale; SCOPEWARD_BLESS=1 writes it");
    }
}
