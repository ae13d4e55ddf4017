//! `serve` as the real binary over a state directory that is damaged, disappears, does not answer, or is looked into
//! by others.

use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use scopeward::rpc::v1;
use scopeward::rpc::v1::scope_policy_service_client::ScopePolicyServiceClient;
use tonic::Code;
use tonic::transport::Channel;

use super::audit::{event, sequences, with_log};
use super::serve::{Piped, place};
use super::*;
use crate::segments::change_record;

/// Overwrites a part of a frame's header in the middle of a small store.
fn damage(place: &Place) {
    let path = place.0.path().join(".scopeward/audit/00000000000000000001.log");
    let mut bytes = fs::read(&path).unwrap();
    let frames = memchr::memmem::find_iter(&bytes, b"\xffSWF").collect::<Vec<_>>();
    let second = frames[1];
    bytes[second + 20..second + 60].fill(0xa5);
    fs::write(path, bytes).unwrap();
}

#[expect(clippy::print_stderr, reason = "a test that is left out says so")]
fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
}

/// A condition of the status as JSON: its status and reason.
fn condition<'s>(status: &'s Value, kind: &str) -> Option<(&'s str, &'s str)> {
    let conditions = status["conditions"].as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == kind)?;
    Some((found["status"].as_str()?, found["reason"].as_str()?))
}

#[test]
fn a_damaged_store_is_refused_reported_and_set_aside() {
    let place = place();
    let mut server = Piped::start(&place, &[]);
    server.expand(3);
    server.signal("TERM");
    assert_eq!(server.end().code(), Some(0));
    let good = place.run(&["audit", "verify", "--output", "json"]).json();
    damage(&place);

    let refused = place.run(&["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    assert_eq!((refused.code, &*refused.stdout), (2, ""));
    let words = [
        "audit store `.scopeward/audit` is broken: ",
        "record 4 was the last acknowledged",
        "start once with --set-aside-broken-audit",
    ];
    for words in words {
        assert!(refused.stderr.contains(words), "{words}: {}", refused.stderr);
    }
    let report = place.run(&["audit", "verify"]);
    assert_eq!((report.code, &*report.stderr), (1, ""));
    assert!(report.stdout.starts_with("BROKEN log "), "{}", report.stdout);
    assert!(report.stdout.contains("--set-aside-broken-audit"), "{}", report.stdout);

    let mut server = Piped::start(&place, &["--set-aside-broken-audit"]);
    server.expand(1);
    let tail = place.run(&["audit", "tail", "--output", "json", "--server", &server.url]);
    assert_eq!(sequences(&tail.stdout), [1, 2, 3], "{}", tail.stderr);
    let first: Value = serde_json::from_str(tail.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(first["kind"], "AUDIT_EVENT_KIND_LOG_OPENED");
    assert_eq!(first["logOpened"]["previousLogId"], good["logId"]);
    server.signal("TERM");
    assert_eq!(server.end().code(), Some(0));
    assert_eq!(place.run(&["audit", "verify"]).code, 0);
    let aside: Vec<PathBuf> = fs::read_dir(place.0.path().join(".scopeward"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("audit-broken-"))
        .collect();
    assert_eq!(aside.len(), 1);
    assert_eq!(fs::metadata(&aside[0]).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(aside[0].join("audit").is_dir() && aside[0].join("audit.mark").exists());
}

#[test]
fn a_store_that_is_gone_is_told_by_verify_and_the_start() {
    let place = place();
    let mut server = Piped::start(&place, &[]);
    server.expand(2);
    server.signal("TERM");
    assert_eq!(server.end().code(), Some(0));
    fs::remove_dir_all(place.0.path().join(".scopeward/audit")).unwrap();
    let report = place.run(&["audit", "verify"]);
    assert_eq!((report.code, &*report.stderr), (1, ""));
    for words in ["BROKEN log ", "it is missing or empty", "record 3 was the last acknowledged"] {
        assert!(report.stdout.contains(words), "{words}: {}", report.stdout);
    }
    let refused = place.run(&["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("record 3 was the last acknowledged"), "{}", refused.stderr);
    let mut server = Piped::start(&place, &["--set-aside-broken-audit"]);
    server.signal("TERM");
    assert_eq!(server.end().code(), Some(0));
}

#[test]
fn a_bad_record_that_is_found_while_serving_is_a_condition_and_a_metric() {
    let place = place();
    with_log(
        &place,
        |_| {},
        async |log| {
            for _ in 0..1200 {
                log.enqueue(event(scopeward::proto::v1::AuditEventKind::Denial, MCP));
            }
        },
    );
    change_record(&place.0.path().join(".scopeward"), 53, |content| content.fill(0));
    let mut server = Piped::start(&place, &[]);
    server.status_when(&place, "the condition", |status| {
        condition(status, "AuditChainBroken") == Some(("True", "AuditRecordBad"))
    });
    let text = place.run(&["status", "--server", &server.url]).stdout;
    assert!(text.contains("record 53") && text.contains("--set-aside-broken-audit"), "{text}");
    assert_eq!(server.metric("scopeward_audit_chain_intact"), 0.0);
    // What is new is recorded all the same.
    server.expand(1);
    server.signal("TERM");
    assert_eq!(server.end().code(), Some(0));
    assert!(server.errors().contains("the stored audit chain is broken"));
}

/// Calls that are given up after so long.
async fn expand(client: &mut ScopePolicyServiceClient<Channel>, timeout: Duration) -> Code {
    let mut request = tonic::Request::new(v1::ExpandRegistrationScopesRequest {
        audiences: vec![MCP.to_owned()],
        scope: Some("openid".to_owned()),
        ..Default::default()
    });
    request.set_timeout(timeout);
    match client.expand_registration_scopes(request).await {
        Ok(_) => Code::Ok,
        Err(status) => status.code(),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn a_state_directory_that_is_gone_is_a_condition_and_one_line_until_it_is_back() {
    let place = place();
    let mut server = Piped::start(&place, &[]);
    server.expand(1);
    let (state, away) = (place.0.path().join(".scopeward"), place.0.path().join("away"));
    fs::rename(&state, &away).unwrap();
    runtime().block_on(async {
        let mut client = ScopePolicyServiceClient::connect(server.url.clone()).await.unwrap();
        // Each failed attempt is one more to write a line about.
        while server.metric("scopeward_audit_errors_total") < 5.0 {
            let code = expand(&mut client, Duration::from_secs(10)).await;
            assert_eq!(code, Code::ResourceExhausted);
        }
    });
    server.status_when(&place, "the condition", |status| {
        condition(status, "AuditDegraded") == Some(("True", "StateDirectoryMissing"))
    });
    let text = place.run(&["status", "--server", &server.url]).stdout;
    assert!(text.contains("was removed or replaced while the server was running"), "{text}");
    assert_eq!(server.metric("scopeward_audit_degraded"), 1.0);
    assert!(!state.exists(), "it is not made again");
    fs::rename(&away, &state).unwrap();
    server.status_when(&place, "recovery", |status| condition(status, "AuditDegraded").is_none());
    server.expand(1);
    server.signal("TERM");
    assert_eq!(server.end().code(), Some(0));
    let errors = server.errors();
    assert_eq!(errors.matches("audit log cannot be written").count(), 1, "{errors}");
    assert_eq!(place.run(&["audit", "verify"]).code, 0);
}

/// `fsync` and `fdatasync` that write their names into a file, a line each, and do not return while another file is there.
const SYNCS: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
static int held(const char *name, int fd) {
    const char *log = getenv("SYNC_LOG");
    int written = log ? open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    if (written >= 0) {
        dprintf(written, "%s\n", name);
        close(written);
    }
    const char *file = getenv("HANG_FILE");
    while (file && access(file, F_OK) == 0) usleep(5000);
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    return real(fd);
}
int fsync(int fd) { return held("fsync", fd); }
int fdatasync(int fd) { return held("fdatasync", fd); }
"#;

/// Compiles [`SYNCS`]; `None` without a C compiler.
fn sync_library(place: &Place) -> Option<PathBuf> {
    place.write("syncs.c", SYNCS);
    let library = place.0.path().join("syncs.so");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let mut command = Command::new(compiler);
    command.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(place.0.path().join("syncs.c")).arg("-ldl");
    match command.output() {
        Ok(output) if output.status.success() => Some(library),
        problem => {
            skipped(&format!("no library that notes each sync could be compiled: {problem:?}"));
            None
        }
    }
}

fn resident_kib(server: &Piped) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// `fsync` writes the time of the last write of a file as well, for which a file system with a journal waits once more.
#[test]
fn expansions_are_synced_without_the_times_of_the_file() {
    let place = place();
    let Some(library) = sync_library(&place) else { return };
    let log = place.0.path().join("syncs");
    let variables = [("LD_PRELOAD", library.as_os_str()), ("SYNC_LOG", log.as_os_str())];
    let mut server = Piped::start_with(&place, &[], &variables);
    let counts = || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        ["fsync", "fdatasync"].map(|name| text.lines().filter(|line| *line == name).count())
    };
    let before = counts();
    server.expand(20);
    let after = counts();
    let [other, data] = [after[0] - before[0], after[1] - before[1]];
    // What is kept of the policy after the start is synced at the same time.
    assert!(data >= 20 && other < 20, "{data} and {other}");
    server.signal("TERM");
    assert_eq!(server.end().code(), Some(0));
}

#[test]
fn a_disk_that_does_not_answer_holds_neither_memory_nor_the_shutdown() {
    let place = place();
    let Some(library) = sync_library(&place) else { return };
    let hang = place.0.path().join("hang");
    let variables = [("LD_PRELOAD", library.as_os_str()), ("HANG_FILE", hang.as_os_str())];
    let mut server = Piped::start_with(&place, &["--shutdown-timeout", "2s"], &variables);
    server.expand(1);
    let before = resident_kib(&server);
    fs::write(&hang, "").unwrap();
    let given_up = Duration::from_millis(50);
    let codes: Vec<Code> = runtime().block_on(async {
        let mut codes = Vec::new();
        for _ in 0..40 {
            // A connection is closed on which more than 20 calls were given up that the server has not taken yet.
            let connects = (0..5).map(|_| ScopePolicyServiceClient::connect(server.url.clone()));
            let clients = futures_util::future::try_join_all(connects).await.unwrap();
            let calls = clients
                .iter()
                .cycle()
                .take(100)
                .cloned()
                .map(|mut client| async move { expand(&mut client, given_up).await });
            codes.extend(futures_util::future::join_all(calls).await);
        }
        codes
    });
    assert!(!codes.contains(&Code::Ok));
    for code in codes {
        assert!(
            matches!(code, Code::DeadlineExceeded | Code::Cancelled | Code::ResourceExhausted),
            "{code:?}"
        );
    }
    let grown = resident_kib(&server).saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB more for 4,000 calls that were given up");
    assert!(server.metric("scopeward_audit_queue_bytes") <= f64::from(16 << 20));
    server.status_when(&place, "the condition", |status| {
        condition(status, "AuditDegraded") == Some(("True", "AuditStalled"))
    });
    server.signal("TERM");
    assert_eq!(server.end().code(), Some(1));
    let errors = server.errors();
    assert!(errors.contains("scopeward: abandoned audit-writer: "), "{errors}");
    assert!(errors.contains("not written before the deadline; the disk does not answer"), "{errors}");

    // What was acknowledged is there.
    fs::remove_file(&hang).unwrap();
    let mut server = Piped::start(&place, &[]);
    server.expand(1);
    server.signal("TERM");
    assert_eq!(server.end().code(), Some(0));
    assert_eq!(place.run(&["audit", "verify"]).code, 0);
}

#[test]
fn other_processes_that_open_or_copy_the_store_neither_stall_nor_end_the_server() {
    let place = place();
    let mut server = Piped::start(&place, &[]);
    let done = AtomicBool::new(false);
    let state = place.0.path().join(".scopeward");
    let looked = std::thread::scope(|scope| {
        let others = [
            scope.spawn(|| {
                let mut rounds = 0;
                while !done.load(Ordering::Relaxed) || rounds == 0 {
                    let ran = place.run(&["audit", "verify"]);
                    assert_eq!(ran.code, 2, "{}", ran.stdout);
                    assert!(ran.stderr.contains("in use by a running server"), "{}", ran.stderr);
                    rounds += 1;
                }
                rounds
            }),
            scope.spawn(|| {
                let mut rounds = 0;
                while !done.load(Ordering::Relaxed) || rounds == 0 {
                    // This process is another one than the server's.
                    let other = fs::File::open(state.join("audit")).unwrap();
                    assert!(other.try_lock_shared().is_err(), "it can be locked");
                    let segment = state.join("audit/00000000000000000001.log");
                    assert!(fs::read(segment).unwrap().starts_with(b"\x89SWAUDIT"));
                    rounds += 1;
                }
                rounds
            }),
            scope.spawn(|| {
                let mut rounds = 0;
                while !done.load(Ordering::Relaxed) || rounds == 0 {
                    let copy = place.0.path().join(format!("copy-{rounds}"));
                    let mut command = Command::new("cp");
                    let copied = command.arg("-r").arg(&state).arg(&copy).stderr(Stdio::null()).status();
                    assert!(copied.is_ok());
                    fs::remove_dir_all(copy).unwrap();
                    rounds += 1;
                }
                rounds
            }),
        ];
        // Each is answered within its own deadline, far below the two seconds for which a lock is waited for.
        runtime().block_on(async {
            let mut client = ScopePolicyServiceClient::connect(server.url.clone()).await.unwrap();
            for _ in 0..60 {
                assert_eq!(expand(&mut client, Duration::from_secs(10)).await, Code::Ok);
            }
        });
        done.store(true, Ordering::Relaxed);
        others.map(|other| other.join().unwrap())
    });
    assert!(looked.iter().all(|rounds| *rounds > 0), "{looked:?}");
    assert_eq!(server.metric("scopeward_audit_errors_total"), 0.0);
    server.signal("TERM");
    assert_eq!(server.end().code(), Some(0), "{}", server.errors());
    let report = place.run(&["audit", "verify", "--output", "json"]).json();
    assert_eq!((&report["verified"], &report["records"]), (&true.into(), &61.into()));
}

#[test]
fn a_target_that_is_no_file_and_no_stream_is_refused_at_start() {
    let place = place();
    let refused = |target: &str, reason: &str| {
        let flags = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        let ran = place.run(&[&flags, &["--audit-jsonl", target][..]].concat());
        assert_eq!((ran.code, &*ran.stdout), (2, ""), "{target}");
        assert!(ran.stderr.contains(&format!("`{target}`: {reason}")), "{}", ran.stderr);
    };
    let socket = place.0.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    refused("socket", "it is a socket");
    let devices = fs::read_dir("/dev").unwrap().filter_map(Result::ok);
    let mut devices = devices.filter(|device| device.file_type().is_ok_and(|kind| kind.is_block_device()));
    match devices.next() {
        Some(device) => refused(device.path().to_str().unwrap(), "it is a block device"),
        None => skipped("there is no block device"),
    }
}
