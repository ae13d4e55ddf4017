//! What a server that only waits takes of the machine.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::harness::{one_audience, within};

/// A process that is ended when it is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

#[tokio::test]
async fn what_only_the_start_needed_of_the_program_is_not_kept_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let policies = folder.path().join("policies");
    fs::create_dir(&policies).unwrap();
    fs::write(policies.join("mcp.yaml"), one_audience("scopesSupported: [a]")).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_scopeward"))
        .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let server = Server(child);
    stdout.read_line(&mut String::new()).unwrap();
    let forgotten = async {
        loop {
            let status = fs::read_to_string(format!("/proc/{}/status", server.0.id())).unwrap();
            let kib = |name: &str| -> u64 {
                let line = status.lines().find(|line| line.starts_with(name)).unwrap();
                line.split_whitespace().nth(1).unwrap().parse().unwrap()
            };
            // Nothing of this size is ever freed here but pages of the program.
            if kib("VmHWM:") - kib("VmRSS:") > 2 << 10 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("less memory than at its start", forgotten).await;
}
