//! The console in a browser: `browser/console.test.mjs` starts the server, and clicks and types as an operator does.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

use crate::tools;

#[test]
fn console_works_in_a_browser() {
    if !tools::wanted("chromium") {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Packages are installed elsewhere, so that the repository stays as it is.
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(root.join("tests/it/console/browser")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    run(Command::new("npm").args(["ci", "--silent", "--no-audit", "--no-fund"]), folder.path());
    let mut test = Command::new("node");
    test.args(["--test", "--test-reporter=spec", "console.test.mjs"]);
    test.env("CONSOLE_BINARY", env!("CARGO_BIN_EXE_scopeward"))
        .env("CONSOLE_POLICIES", root.join("policies"));
    if env::var_os("BLESS_SCREENSHOTS").is_some_and(|value| value == "1") {
        test.env("CONSOLE_SCREENSHOTS", root.join("docs/screenshots"));
    }
    run(&mut test, folder.path());
}

/// Runs a command to its end; what it printed is shown if it fails.
#[track_caller]
fn run(command: &mut Command, folder: &Path) {
    let output = command.current_dir(folder).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}\n{stdout}\n{stderr}");
}
