//! The audit store under `kill -9`: what was acknowledged is there, what was queued is there or counted.
//!
//! The test starts its own binary anew as the process that dies, in a mode that an environment variable selects.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use scopeward::audit::{
    AuditLog, AuditOptions, Body, Filter, GapReason, STORE_DIRECTORY, VerifyOptions, new_event, verify,
};
use scopeward::proto::v1::{AuditEvent, AuditEventKind, Client};

/// Names the state directory for the process that dies.
const CHILD: &str = "SCOPEWARD_TEST_AUDIT_CHILD";
const KILLS: u64 = 20;
const WRITERS: u64 = 32;

fn event(kind: AuditEventKind) -> AuditEvent {
    AuditEvent {
        client: Some(Client { client_id: "c".to_owned(), ..Client::default() }),
        requested_scope: Some("openid".to_owned()),
        ..new_event(kind, SystemTime::now())
    }
}

/// The process that dies: says on standard output what was acknowledged and what was queued.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Ok(state) = std::env::var(CHILD) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let log = AuditLog::open(AuditOptions::new(&state)).unwrap();
        let report = log.start_report();
        say(&format!("s {} {} {}", report.lost, report.damaged, report.unwritten));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let log = log.clone();
                tokio::spawn(async move {
                    // Bounded, in case nobody kills it.
                    for _ in 0..20_000 {
                        if writer % 4 == 0 {
                            log.enqueue(event(AuditEventKind::Denial));
                            say("d");
                        }
                        let expansion = event(AuditEventKind::Expansion);
                        let id = expansion.event_id.clone();
                        let recorded = log.append_durable(expansion).await.unwrap();
                        say(&format!("e {id} {}", recorded.head.sequence));
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
    });
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// What the processes said, over all rounds.
#[derive(Default)]
struct Said {
    acknowledged: HashMap<String, u64>,
    queued: u64,
    unwritten: u64,
}

impl Said {
    /// Lets a process write for a while, kills it, and reads all that it said.
    fn round(&mut self, state: &Path, lines: u64) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "audit_store::child_that_writes_until_it_is_killed", "--nocapture"])
            .env(CHILD, state)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut read = 0;
        loop {
            let mut line = String::new();
            if out.read_line(&mut line).unwrap() == 0 || !line.ends_with('\n') {
                break;
            }
            if self.hear(line.trim_end()) {
                read += 1;
            }
            if read == lines {
                // SIGKILL; what is in the pipe by then is still read.
                child.kill().unwrap();
            }
        }
        assert!(read >= lines, "the process ended by itself after {read} lines: {:?}", child.wait());
        child.wait().unwrap();
    }

    /// Notes one line; false for what the test harness prints.
    fn hear(&mut self, line: &str) -> bool {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["s", lost, damaged, unwritten] => {
                assert_eq!((lost, damaged), ("0", "0"));
                self.unwritten += unwritten.parse::<u64>().unwrap();
            }
            ["d"] => self.queued += 1,
            ["e", id, sequence] => {
                let before = self.acknowledged.insert(id.to_owned(), sequence.parse().unwrap());
                assert_eq!(before, None);
            }
            _ => return false,
        }
        true
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_acknowledged_survives_kill_9_at_full_load() {
    let folder = tempfile::tempdir().unwrap();
    let mut said = Said::default();
    for round in 0..KILLS {
        said.round(folder.path(), 40 + round * 97);
    }
    assert!(said.acknowledged.len() > 5000, "{}", said.acknowledged.len());

    let report = verify(&folder.path().join(STORE_DIRECTORY), &VerifyOptions::default()).unwrap();
    assert_eq!(report.bad, None);
    let log = AuditLog::open(AuditOptions::new(folder.path())).unwrap();
    let last = log.start_report();
    assert_eq!((last.lost, last.damaged), (0, 0));
    log.close().await.unwrap();
    drop(log);

    let log = AuditLog::open(AuditOptions::new(folder.path())).unwrap();
    assert!(log.start_report().is_clean());
    let (mut after, mut denials, mut missing) = (0, 0, 0);
    let mut ids = HashSet::new();
    while after < log.head().sequence {
        for record in log.read_after(after, &Filter::default(), 1000).await.unwrap().records {
            after += 1;
            assert_eq!(record.body.sequence(), after);
            match record.body {
                Body::Gap(gap) => {
                    assert_eq!(gap.reason, GapReason::ProcessEnded.as_str());
                    missing += gap.count;
                }
                Body::Event(event) => {
                    assert!(ids.insert(event.event_id.clone()), "{} is there twice", event.event_id);
                    denials += u64::from(event.kind() == AuditEventKind::Denial);
                    if let Some(sequence) = said.acknowledged.remove(&event.event_id) {
                        assert_eq!(sequence, event.sequence);
                    }
                }
            }
        }
    }
    assert_eq!(said.acknowledged.len(), 0, "acknowledged and not there: {:?}", said.acknowledged);
    assert_eq!(missing, said.unwritten + last.unwritten);
    // By each writer in each round, a denial may be queued without having been told of, and one may be told of in the
    // instant in which its count is on its way to the file.
    let told = said.queued - KILLS * WRITERS / 4..=said.queued + KILLS * WRITERS;
    assert!(told.contains(&(denials + missing)), "{denials} + {missing} of {told:?}");
}

#[test]
fn second_process_on_a_state_directory_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let _log = AuditLog::open(AuditOptions::new(folder.path())).unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "audit_store::child_that_writes_until_it_is_killed", "--nocapture"])
        .env(CHILD, folder.path())
        .output()
        .unwrap();
    assert!(!child.status.success());
    let text = String::from_utf8_lossy(&child.stderr);
    assert!(text.contains("InUse"), "{text}");
}
