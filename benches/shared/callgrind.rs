//! Running a command under callgrind, and what it counted.

use std::path::Path;
use std::process::Command;

/// The same command under callgrind, which writes its count to `out` when the command ends.
pub fn under(command: &Command, out: &Path) -> Command {
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--tool=callgrind", "--quiet", "--error-limit=no"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => valgrind.env(name, value),
            None => valgrind.env_remove(name),
        };
    }
    valgrind
}

/// All instructions that were counted.
pub fn total(out: &Path) -> u64 {
    let text = std::fs::read_to_string(out).expect("callgrind wrote its file");
    let line = text.lines().rev().find_map(|line| line.strip_prefix("totals:"));
    line.and_then(|total| total.trim().parse().ok()).expect("a line with the total")
}
