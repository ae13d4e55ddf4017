//! The static binary that the Debian package and the image are made of, built once for all tests.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The root of the project.
pub(super) fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a command to its end and returns what it printed.
#[track_caller]
pub(super) fn run(command: &mut Command) -> String {
    let ran = command.current_dir(project()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (printed, said) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{command:?}: {}\n{printed}\n{said}", ran.status);
    printed.into_owned()
}

/// The same as root.
pub(super) fn as_root(program: &str) -> Command {
    if rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["--non-interactive", "--preserve-env=PATH", program]);
    command
}

/// Stages the binary of `deploy/build-binary`, or the one that `TEST_STATIC_BINARY` names, and returns where it is.
pub(super) fn staged() -> PathBuf {
    static STAGED: OnceLock<PathBuf> = OnceLock::new();
    let stage = || {
        match env::var_os("TEST_STATIC_BINARY") {
            Some(binary) => run(Command::new("deploy/stage").arg(binary)),
            // The variables of `cargo test` are not for another build.
            None => run(Command::new("deploy/build-binary").env_remove("CARGO_TARGET_TMPDIR")),
        };
        project().join("target/package/scopeward")
    };
    STAGED.get_or_init(stage).clone()
}
