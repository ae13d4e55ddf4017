//! The Debian package, from its installation to its purge.

use std::process::Command;

use super::package::{as_root, project, run, staged};
use crate::tools;

#[test]
fn the_package_is_installed_started_upgraded_removed_and_purged() {
    if !tools::wanted("deb") {
        return;
    }
    staged();
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first.deb"), folder.path().join("second.deb"));
    run(Command::new("deploy/build-deb").args([&first]).arg("1.0.0-1"));
    run(Command::new("deploy/build-deb").args([&second]).arg("1.0.1-1"));
    let said = run(Command::new("lintian").args(["--fail-on", "error,warning", "--allow-root"]).arg(&first));
    assert_eq!(said.trim(), "", "{said}");
    let script = project().join("tests/it/deploy/deb.sh");
    let mut lifetime = as_root("unshare");
    lifetime.args(["--mount", "--pid", "--fork", "--kill-child", "--net", "bash"]).arg(script);
    let said = run(lifetime.args([first, second]));
    assert!(said.ends_with("installed, started, upgraded, removed, purged\n"), "{said}");
}
