//! What deciding costs, by instruction count: a change that makes the pure core notably slower, or faster, is to be meant.

use std::env;
use std::process::Command;

use crate::tools;

#[path = "../../benches/shared/callgrind.rs"]
mod callgrind;
#[path = "../../benches/shared/core.rs"]
mod decisions;

/// Makes the test below decide so many rounds.
const ROUNDS: &str = "TEST_CORE_ROUNDS";
/// Writes the count that is kept again.
const BLESS: &str = "TEST_CORE_BLESS";
const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/core_instructions.txt");
/// How far the count may be from the one that is kept, in hundredths: hash tables have another seed in each process.
const TOLERANCE: f64 = 3.0;

#[test]
fn decisions_of_the_core_loop_come_out_as_ever() {
    let rounds = env::var(ROUNDS).map_or(1, |rounds| rounds.parse().unwrap());
    assert_eq!(decisions::decide(&decisions::policy(), rounds), decisions::ALLOWED * rounds);
}

/// The count is that of a debug build, and of one version of the compiler: another one makes other code. What a decision
/// costs in a release build is in docs/performance.md.
#[test]
fn deciding_costs_the_instructions_that_are_kept() {
    if !tools::wanted("valgrind") {
        return;
    }
    let each = instructions_of_a_decision();
    let compiler = compiler();
    if env::var_os(BLESS).is_some() {
        std::fs::write(KEPT, format!("{compiler}\n{each:.0}\n")).unwrap();
    }
    let kept = std::fs::read_to_string(KEPT).unwrap();
    let mut lines = kept.lines();
    let (kept_compiler, kept) = (lines.next().unwrap(), lines.next().unwrap().parse::<f64>().unwrap());
    if kept_compiler != compiler {
        println!(
            "skipped: {each:.0} instructions by `{compiler}`, the {kept} that are kept are of `{kept_compiler}`"
        );
        return;
    }
    let percent = (each / kept - 1.0) * 100.0;
    println!("{each:.0} instructions for each decision, {percent:+.2} % against {kept}");
    assert!(
        percent.abs() <= TOLERANCE,
        "deciding costs {each:.0} instructions, {percent:+.1} % against the {kept} that are kept; if that is meant, run this test with {BLESS}=1"
    );
}

/// By what further rounds add, so that the start of the process does not count.
fn instructions_of_a_decision() -> f64 {
    let counted = [2, 4].map(|rounds: u64| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("callgrind");
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args(["--exact", "core::decisions_of_the_core_loop_come_out_as_ever"])
            .env(ROUNDS, rounds.to_string());
        let output = callgrind::under(&command, &file).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        callgrind::total(&file)
    });
    (counted[1] - counted[0]) as f64 / (2 * decisions::DECISIONS) as f64
}

fn compiler() -> String {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
