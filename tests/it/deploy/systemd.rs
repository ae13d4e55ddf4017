//! The unit: valid, closed, and of the settings that the server has.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::tools;

const UNIT: &str = include_str!("../../../deploy/systemd/scopeward.service");

#[test]
fn the_unit_is_valid_and_exposes_little() {
    if !tools::wanted("systemd") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // Its command has to be there.
    let unit = UNIT.replace("/usr/bin/scopeward", env!("CARGO_BIN_EXE_scopeward"));
    let path = folder.path().join("scopeward.service");
    fs::write(&path, unit).unwrap();
    let analyze = |args: &[&str]| {
        let ran = Command::new("systemd-analyze").args(args).arg(&path).output().expect("systemd-analyze");
        let text = String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned();
        (ran.status.success(), text)
    };
    let (is_valid, said) = analyze(&["verify", "--man=no"]);
    // What is wrong with a line is a warning, and no failure.
    assert!(is_valid && !said.contains("scopeward.service"), "{said}");
    // In tenths.
    let (is_closed, said) = analyze(&["security", "--offline=true", "--threshold=20", "--no-pager"]);
    assert!(is_closed, "{said}");
    assert!(said.contains("Overall exposure level"), "{said}");
}

#[test]
fn the_unit_does_not_outlast_or_cut_off_a_shutdown() {
    let settings = Command::new(env!("CARGO_BIN_EXE_scopeward")).args(["serve", "--print-config"]).output();
    let settings = String::from_utf8(settings.unwrap().stdout).unwrap();
    let value = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}"));
        let number = line.trim_end_matches('s').trim();
        number.split('s').next().unwrap().trim().parse::<u64>().unwrap_or_else(|_| panic!("{name}{line}"))
    };
    assert!(value(UNIT, "TimeoutStopSec=") > value(&settings, "shutdownTimeout: "));
    assert!(UNIT.contains("\nType=notify\n") && UNIT.contains("\nWatchdogSec="));
    // Variables of the unit are ones of the server.
    for line in UNIT.lines().filter_map(|line| line.strip_prefix("Environment=")) {
        let (name, _) = line.split_once('=').unwrap();
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/settings.md");
        assert!(name == "SCOPEWARD_CONFIG" || fs::read_to_string(page).unwrap().contains(name), "{name}");
    }
}
