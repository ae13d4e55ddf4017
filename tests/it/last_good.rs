//! The last good policy on disk, whatever moment a process ends at.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use scopeward::store::last_good::{self, keep, restore};
use scopeward::store::load::Loader;
use scopeward::store::read::ReadSettings;

/// Makes the test below keep one policy after the other in this directory, until it is killed.
const DIRECTORY: &str = "TEST_LAST_GOOD_DIRECTORY";
/// So many that those that differ are written together.
const FILES: usize = 60;

/// Writes a policy of many files, of which some differ by the number; returns its digest.
fn write(directory: &Path, number: usize) -> (Loader, String) {
    let policies = directory.join(format!("policies-{number}"));
    fs::create_dir_all(&policies).unwrap();
    for file in 0..FILES {
        let scope = if file % 3 == 0 { format!("s{number}") } else { "s".to_owned() };
        let text = format!("audiences: {{a{file}: {{scopesSupported: [{scope}]}}}}\n");
        fs::write(policies.join(format!("{file}.yaml")), text).unwrap();
    }
    let mut loader = Loader::new(vec![policies], ReadSettings::default());
    let digest = loader.load().unwrap().outcome.unwrap().set.digest().to_string();
    (loader, digest)
}

#[test]
fn a_last_good_policy_survives_kill_9_at_any_moment() {
    if let Some(directory) = env::var_os(DIRECTORY) {
        keep_forever(&PathBuf::from(directory));
    }
    let folder = tempfile::tempdir().unwrap();
    let digests = [0, 1].map(|number| write(folder.path(), number).1);
    let state = folder.path().join("state");
    fs::create_dir(&state).unwrap();
    let mut seen = [0; 2];
    for round in 0..12 {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "last_good::a_last_good_policy_survives_kill_9_at_any_moment"])
            .env(DIRECTORY, folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // From the second round on there is a copy before the child begins.
        let manifest = state.join(last_good::FILE_NAME);
        let before = fs::read(&manifest).unwrap_or_default();
        while fs::read(&manifest).unwrap_or_default() == before {
            assert!(child.try_wait().unwrap().is_none(), "the child goes on until it is killed");
        }
        // A moment of the next writes, another one in each round.
        std::thread::sleep(Duration::from_micros(round * 1_500));
        child.kill().unwrap();
        child.wait().unwrap();
        let restored = restore(&state).unwrap().accepted.set;
        let which = digests.iter().position(|digest| digest == restored.digest().as_str());
        seen[which.expect("one of the two, whole")] += 1;
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}: both were caught");
}

fn keep_forever(directory: &Path) -> ! {
    let sets = [0, 1].map(|number| {
        let (mut loader, digest) = write(&directory.join("child"), number);
        (loader.load().unwrap().files, digest)
    });
    loop {
        for (files, digest) in &sets {
            keep(&directory.join("state"), digest, files).unwrap();
        }
    }
}
