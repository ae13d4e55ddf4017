//! `audit tail` and `audit verify`: where they start, what they keep, how they end.

use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use scopeward::audit::{AuditLog, AuditOptions, Clock, new_event};
use scopeward::proto::v1::{
    AddedScope, AuditEvent, AuditEventKind, Client, Origin, PolicyVersion, Reason, RefusedScope,
};

use super::status::Lines;
use super::*;
use crate::segments::change_record;

mod verify;

/// A policy under which asking for `openid` is an expansion and for `admin` a denial.
const POLICY: &str = "\
audiences:
  https://mcp.example.com:
    scopesSupported: [openid, offline_access]
    baselineClientScopes: [offline_access]
";

fn place() -> Place {
    Place::with(&[("policies/mcp.yaml", POLICY)])
}

impl Server {
    /// Makes one event of kind EXPANSION.
    #[track_caller]
    fn expand(&self, place: &Place) {
        assert_eq!(self.ask(place, &["expand", "--audience", MCP, "--scope", "openid"]).code, 0);
    }
}

/// The sequences of JSON lines, after checking that each line is one object.
#[track_caller]
pub(super) fn sequences(lines: &str) -> Vec<u64> {
    lines.lines().map(|line| sequence(line)).collect()
}

#[track_caller]
fn sequence(line: &str) -> u64 {
    let value: Value = serde_json::from_str(line).expect("one object a line");
    value.get("gap").unwrap_or(&value)["sequence"]
        .as_str()
        .expect("a 64-bit number is a string")
        .parse()
        .unwrap()
}

/// Works on the store of a place while no server has it.
pub(super) fn with_log<T>(
    place: &Place,
    change: impl FnOnce(&mut AuditOptions),
    work: impl AsyncFnOnce(&AuditLog) -> T,
) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut options = AuditOptions::new(place.0.path().join(".scopeward"));
        change(&mut options);
        let log = AuditLog::open(options).unwrap();
        let done = work(&log).await;
        log.close().await.unwrap();
        done
    })
}

pub(super) fn event(kind: AuditEventKind, audience: &str) -> AuditEvent {
    let mut event = new_event(kind, SystemTime::now());
    event.audiences = vec![audience.to_owned()];
    event.client = Some(Client { client_id: "client \"1\"\u{1b}[31m\n".to_owned(), ..Client::default() });
    event.requested_scope = Some("openid".to_owned());
    event.policy = Some(PolicyVersion { generation: 1, digest: "sha256:00".to_owned() });
    match kind {
        AuditEventKind::Expansion => {
            event.effective_scope = "openid offline_access".to_owned();
            let (scope, rule) = ("offline_access".to_owned(), "loopback".to_owned());
            event.added = vec![AddedScope { scope, origin: Origin::Baseline.into(), rule }];
        }
        _ => {
            event.reason = Reason::Unsupported.into();
            let (scope, message) = ("admin".to_owned(), String::new());
            event.refused = vec![RefusedScope { scope, reason: Reason::Unsupported.into(), message }];
        }
    }
    event
}

/// A place whose store has so many expansions.
fn filled(count: usize) -> Place {
    let place = place();
    with_log(
        &place,
        |_| {},
        async |log| {
            for _ in 0..count {
                log.append_durable(event(AuditEventKind::Expansion, MCP)).await.unwrap();
            }
        },
    );
    place
}

/// A verb that runs beside the test.
struct Running {
    child: Child,
    stderr: Lines,
}

impl Running {
    fn start(place: &Place, server: &Server, args: &[&str]) -> Self {
        let all = [&["audit", "tail"], args, &["--server", &server.url]].concat();
        let mut command = place.command(&all);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = Lines::of(child.stderr.take().unwrap());
        Self { child, stderr }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// The exit code, once it has ended.
    fn code(&mut self) -> Option<i32> {
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(std::time::Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[test]
fn a_cursor_goes_on_over_a_restart_without_loss_or_duplicates() {
    let place = place();
    let tail = |server: &Server| {
        let ran = server.ask(&place, &["audit", "tail", "--cursor-file", "cursor", "--output", "json"]);
        assert_eq!((ran.code, &*ran.stderr), (0, ""));
        sequences(&ran.stdout)
    };
    let server = Server::start(&place);
    server.expand(&place);
    server.expand(&place);
    // The start of a server is a policy change.
    assert_eq!(tail(&server), [1, 2, 3]);
    assert_eq!(tail(&server), [0; 0]);
    server.expand(&place);
    assert_eq!(server.end("TERM"), Some(0));
    let server = Server::start(&place);
    server.expand(&place);
    assert_eq!(tail(&server), [4, 5, 6]);
    assert_eq!(tail(&server), [0; 0]);
    let cursor: Value = serde_json::from_slice(&fs::read(place.0.path().join("cursor")).unwrap()).unwrap();
    assert_eq!(cursor["sequence"], 6);
    assert_eq!(cursor["log_id"].as_str().unwrap().len(), 36);
    fs::remove_file(place.0.path().join("cursor")).unwrap();
    assert_eq!(tail(&server), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_follower_outlives_the_server_and_ends_in_order() {
    let place = place();
    let server = Server::start(&place);
    let address = word(&server.ready, "grpc=").to_owned();
    let args = ["--follow", "--cursor-file", "cursor", "--output", "json"];
    let mut follower = Running::start(&place, &server, &args);
    let mut lines = Lines::of(follower.child.stdout.take().unwrap());
    let mut next = move || sequence(&lines.next_with(""));
    assert_eq!(next(), 1);
    server.expand(&place);
    assert_eq!(next(), 2);
    assert_eq!(server.end("KILL"), None);
    follower.stderr.next_with("trying again");
    let server = Server::start_at(&place, &address);
    server.expand(&place);
    assert_eq!([next(), next()], [3, 4]);
    assert_eq!(server.end("TERM"), Some(0));
    let server = Server::start_at(&place, &address);
    assert_eq!(next(), 5);
    follower.signal("TERM");
    assert_eq!(follower.code(), Some(0));
    server.expand(&place);
    let ran = server.ask(&place, &["audit", "tail", "--cursor-file", "cursor", "--output", "json"]);
    assert_eq!(sequences(&ran.stdout), [6]);
}

#[test]
fn kinds_audiences_and_starts_choose_what_is_printed() {
    let place = place();
    let middle = with_log(
        &place,
        |_| {},
        async |log| {
            log.append_durable(event(AuditEventKind::Expansion, MCP)).await.unwrap();
            log.append_durable(event(AuditEventKind::Denial, "other")).await.unwrap();
            let middle = SystemTime::now();
            log.append_durable(event(AuditEventKind::Denial, MCP)).await.unwrap();
            middle
        },
    );
    let middle = prost_types::Timestamp::from(middle).to_string();
    let server = Server::start(&place);
    let check = |args: &[&str], expected: &[u64]| {
        let ran = server.ask(&place, &[&["audit", "tail", "--output", "json"], args].concat());
        assert_eq!((ran.code, &*ran.stderr), (0, ""), "{args:?}");
        assert_eq!(sequences(&ran.stdout), expected, "{args:?}");
    };
    check(&[], &[1, 2, 3, 4]);
    check(&["--kind", "expansion"], &[1]);
    check(&["--kind", "denial"], &[2, 3]);
    check(&["--kind", "expansion", "--kind", "policy-change"], &[1, 4]);
    check(&["--audience", MCP], &[1, 3]);
    check(&["--audience", MCP, "--audience", "other", "--kind", "denial"], &[2, 3]);
    check(&["--from", "earliest"], &[1, 2, 3, 4]);
    check(&["--from", "latest"], &[]);
    check(&["--from", &middle], &[3, 4]);
    check(&["--after", "2"], &[3, 4]);
    check(&["--after", "0"], &[1, 2, 3, 4]);
    check(&["--after", "4", "--from", "earliest"], &[]);
    // What a filter leaves out is behind the cursor too, and a cursor goes before a start.
    check(&["--cursor-file", "cursor", "--kind", "expansion"], &[1]);
    check(&["--cursor-file", "cursor", "--from", "earliest", "--after", "0"], &[]);
    check(&["--cursor-file", "newest", "--from", "latest"], &[]);
    server.expand(&place);
    check(&["--cursor-file", "newest"], &[5]);
    let cursor: Value = serde_json::from_slice(&fs::read(place.0.path().join("cursor")).unwrap()).unwrap();
    check(&["--after", "4", "--log-id", cursor["log_id"].as_str().unwrap()], &[5]);
}

/// What is printed is chosen alike by a server and in the store of one that has stopped.
#[test]
fn the_store_of_a_stopped_server_is_printed_as_a_server_would() {
    let place = place();
    let middle = with_log(
        &place,
        |_| {},
        async |log| {
            log.append_durable(event(AuditEventKind::Expansion, MCP)).await.unwrap();
            log.append_durable(event(AuditEventKind::Denial, "HTTPS://other.example:443")).await.unwrap();
            let middle = SystemTime::now();
            let mut third = event(AuditEventKind::Denial, MCP);
            third.client = Some(Client { client_id: "third".to_owned(), ..Client::default() });
            log.append_durable(third).await.unwrap();
            middle
        },
    );
    let middle = prost_types::Timestamp::from(middle).to_string();
    let server = Server::start(&place);
    let mut asked: Vec<(Vec<String>, String)> = Vec::new();
    let mut check = |args: &[&str], expected: &[u64]| {
        for output in ["json", "text"] {
            let args = [&["audit", "tail", "--output", output], args].concat();
            let ran = server.ask(&place, &args);
            assert_eq!((ran.code, &*ran.stderr), (0, ""), "{args:?}");
            match output {
                "json" => assert_eq!(sequences(&ran.stdout), expected, "{args:?}"),
                _ => assert_eq!(ran.stdout.lines().count(), expected.len(), "{args:?}"),
            }
            asked.push((args.into_iter().map(str::to_owned).collect(), ran.stdout));
        }
    };
    check(&[], &[1, 2, 3, 4]);
    check(&["--limit", "2"], &[1, 2]);
    check(&["--limit", "2", "--from", &middle], &[3, 4]);
    check(&["--limit", "1", "--after", "2"], &[3]);
    check(&["--until", &middle], &[1, 2]);
    check(&["--until", "1970-01-01T00:00:00Z"], &[]);
    check(&["--from", &middle, "--until", "2999-01-01T00:00:00Z"], &[3, 4]);
    check(&["--from", "latest"], &[]);
    check(&["--client", "third"], &[3]);
    check(&["--client", "third", "--client", "client \"1\"\u{1b}[31m\n"], &[1, 2, 3]);
    check(&["--client", "third", "--limit", "5"], &[3]);
    check(&["--audience", "https://other.example/"], &[2]);
    check(&["--kind", "denial", "--audience", MCP], &[3]);
    check(&["--kind", "denial", "--limit", "1"], &[2]);
    assert_eq!(server.end("TERM"), Some(0));
    for (args, stdout) in asked {
        let args: Vec<&str> = args.iter().map(String::as_str).chain(["--state-dir", ".scopeward"]).collect();
        let ran = place.run(&args);
        assert_eq!((ran.code, &*ran.stderr, ran.stdout), (0, "", stdout), "{args:?}");
    }
}

#[test]
fn a_cursor_goes_on_in_the_store_and_through_a_server() {
    let place = filled(5);
    let tail = |args: &[&str]| {
        let ran =
            place.run(&[&["audit", "tail", "--output", "json", "--cursor-file", "cursor"], args].concat());
        assert_eq!((ran.code, &*ran.stderr), (0, ""), "{args:?}");
        sequences(&ran.stdout)
    };
    let store = ["--state-dir", ".scopeward"];
    assert_eq!(tail(&[&store[..], &["--limit", "2"]].concat()), [1, 2]);
    assert_eq!(tail(&[&store[..], &["--limit", "1"]].concat()), [3]);
    let server = Server::start(&place);
    assert_eq!(tail(&["--limit", "2", "--server", &server.url]), [4, 5]);
    let busy = place.run(&["audit", "tail", "--state-dir", ".scopeward"]);
    assert_eq!((busy.code, &*busy.stdout), (2, ""));
    assert!(busy.stderr.contains("in use by a running server; use --server"), "{}", busy.stderr);
    assert_eq!(server.end("TERM"), Some(0));
    assert_eq!(tail(&store), [6]);
    assert_eq!(tail(&store), [0; 0]);
    // The cursors of the examples of before, and of audit lines.
    let cursor: Value = serde_json::from_slice(&fs::read(place.0.path().join("cursor")).unwrap()).unwrap();
    let log_id = cursor["log_id"].as_str().unwrap();
    for (old, expected) in [
        (format!("{{\"log_id\": \"{log_id}\", \"after_sequence\": 4}}"), [5, 6]),
        (format!("{{\"log_id\":\"{log_id}\",\"after_sequence\":\"4\"}}"), [5, 6]),
        (format!("{{\"logId\":\"{log_id}\",\"sequence\":\"4\"}}\n"), [5, 6]),
    ] {
        place.write("cursor", &old);
        assert_eq!(tail(&store), expected, "{old}");
    }
}

#[test]
fn what_cannot_be_read_of_a_store_is_said() {
    let place = filled(3);
    let tail = |args: &[&str]| {
        let all = [&["audit", "tail", "--state-dir", ".scopeward", "--output", "json"], args].concat();
        place.run(&all)
    };
    let ran = tail(&["--after", "9"]);
    assert_eq!((ran.code, &*ran.stdout), (2, ""));
    let said = "`--after` is at sequence 9, but the store `.scopeward/audit` keeps records 1 to 3";
    assert!(ran.stderr.contains(said), "{}", ran.stderr);
    let ran = tail(&["--after", "1", "--log-id", "00000000-0000-4000-8000-000000000000"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("belongs to log `00000000-"), "{}", ran.stderr);
    assert_eq!(tail(&["--follow"]).code, 2);
    assert_eq!(place.run(&["audit", "tail", "--state-dir", "elsewhere"]).code, 2);
    // What is good before a bad record is printed.
    change_record(&place.0.path().join(".scopeward"), 3, |content| content.fill(0));
    let ran = tail(&["--cursor-file", "cursor"]);
    assert_eq!((ran.code, sequences(&ran.stdout)), (2, vec![1, 2]));
    assert!(ran.stderr.contains("audit chain is broken at record 3"), "{}", ran.stderr);
    assert_eq!(tail(&["--cursor-file", "cursor"]).stdout, "");
}

#[test]
fn people_see_one_line_for_each_record() {
    let place = place();
    with_log(
        &place,
        |_| {},
        async |log| {
            log.append_durable(event(AuditEventKind::Expansion, MCP)).await.unwrap();
            log.append_durable(event(AuditEventKind::Denial, MCP)).await.unwrap();
        },
    );
    let server = Server::start(&place);
    let ran = server.ask(&place, &["audit", "tail"]);
    assert_eq!((ran.code, &*ran.stderr), (0, ""));
    let times = |line: &str| line.split_once(' ').unwrap().1.to_owned();
    let lines: Vec<String> = ran.stdout.lines().map(times).collect();
    assert_eq!(
        lines[..2],
        [
            "     1 expansion     client \"client \\\"1\\\"␛[31m␊\" (claimed) at \"https://mcp.example.com\": \
             \"openid\" -> \"openid offline_access\"; added offline_access (BASELINE, rule \"loopback\")",
            "     2 denial        client \"client \\\"1\\\"␛[31m␊\" (claimed) at \"https://mcp.example.com\": \
             \"openid\" -> denied (UNSUPPORTED); refused \"admin\" (UNSUPPORTED)",
        ]
    );
    assert!(lines[2].starts_with("     3 policy-change accepted generation 1 sha256:"), "{}", lines[2]);
    assert_eq!(lines.len(), 3);
}

#[test]
fn a_gap_is_printed_and_has_an_exit_code_of_its_own() {
    let place = place();
    // Room for one event that nobody waits for: the others are counted.
    with_log(
        &place,
        |options| options.queue_bytes = 2 << 10,
        async |log| {
            for _ in 0..500 {
                log.enqueue(event(AuditEventKind::Denial, MCP));
            }
        },
    );
    let server = Server::start(&place);
    let tail = |args: &[&str]| server.ask(&place, &[&["audit", "tail"], args].concat());
    let ran = tail(&["--output", "json", "--cursor-file", "cursor"]);
    assert_eq!((ran.code, &*ran.stderr), (5, ""));
    let records: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let gaps: Vec<&Value> = records.iter().filter_map(|record| record.get("gap")).collect();
    assert!(!gaps.is_empty() && gaps.iter().all(|gap| gap["reason"] == "queue_full"), "{gaps:?}");
    let missing: usize =
        gaps.iter().map(|gap| gap["count"].as_str().unwrap().parse::<usize>().unwrap()).sum();
    let denials = records.iter().filter(|record| record["kind"] == "AUDIT_EVENT_KIND_DENIAL").count();
    assert_eq!(missing + denials, 500);
    let last = records.len() as u64;
    assert_eq!(sequences(&ran.stdout), (1..=last).collect::<Vec<_>>(), "everything is printed");
    // A gap is told once: the cursor is behind it.
    assert_eq!(tail(&["--cursor-file", "cursor"]).code, 0);
    // No filter hides it.
    let ran = tail(&["--kind", "expansion"]);
    assert_eq!(ran.code, 5);
    assert!(ran.stdout.contains(" events missing (queue_full), the first at "), "{}", ran.stdout);
    let mut follower = Running::start(&place, &server, &["--follow"]);
    let mut lines = Lines::of(follower.child.stdout.take().unwrap());
    lines.next_with(" events missing (queue_full)");
    lines.next_with("policy-change");
    follower.signal("INT");
    assert_eq!(follower.code(), Some(5));
}

#[test]
fn a_cursor_of_another_log_is_refused_with_what_is_kept() {
    let place = filled(2);
    place.write("cursor", "{\"log_id\":\"00000000-0000-4000-8000-000000000000\",\"sequence\":1}");
    let server = Server::start(&place);
    let ran = server.ask(&place, &["audit", "tail", "--follow", "--cursor-file", "cursor"]);
    assert_eq!((ran.code, &*ran.stdout), (2, ""));
    for part in [
        "error: cursor file `cursor` belongs to log `00000000-0000-4000-8000-000000000000`",
        "which keeps records 1 to 3",
        "remove `cursor`",
    ] {
        assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
    }
    let foreign = ["audit", "tail", "--after", "1", "--log-id", "00000000-0000-4000-8000-000000000000"];
    let ran = server.ask(&place, &foreign);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("error: `--after` belongs to log `0000"), "{}", ran.stderr);
}

#[test]
fn a_cursor_outside_of_what_is_kept_is_refused_with_what_is_kept() {
    let place = filled(5);
    let ahead = Arc::new(AtomicU64::new(0));
    let later = |ahead: &Arc<AtomicU64>| {
        let ahead = Arc::clone(ahead);
        move || Duration::from_secs(ahead.load(Ordering::Relaxed))
    };
    let (wall, monotonic) = (later(&ahead), later(&ahead));
    let log_id = with_log(
        &place,
        |options| {
            options.max_age = Some(Duration::from_secs(60));
            options.clock = Clock {
                wall: Arc::new(move || SystemTime::now() + wall()),
                monotonic: Arc::new(move || Instant::now() + monotonic()),
            };
        },
        async |log| {
            ahead.store(3600, Ordering::Relaxed);
            let mut newest = event(AuditEventKind::Denial, MCP);
            newest.event_time = Some((SystemTime::now() + Duration::from_secs(3600)).into());
            log.append_durable(newest).await.unwrap();
            while log.status().oldest < 6 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            log.log_id()
        },
    );
    let server = Server::start(&place);
    let ask = |sequence: u64| {
        place.write("cursor", format!("{{\"log_id\":\"{log_id}\",\"sequence\":{sequence}}}"));
        server.ask(&place, &["audit", "tail", "--cursor-file", "cursor", "--output", "json"])
    };
    let ran = ask(2);
    assert_eq!((ran.code, &*ran.stdout), (2, ""));
    let expected = "error: cursor file `cursor` is at sequence 2, but the server keeps records 6 to 7: 3 records \
                    were deleted by retention before they were read; to go on with the oldest record, remove \
                    `cursor`\n";
    assert_eq!(ran.stderr, expected);
    let ran = ask(99);
    assert_eq!((ran.code, &*ran.stdout), (2, ""));
    assert!(
        ran.stderr.contains("is at sequence 99, but the server keeps records 6 to 7: its end was cut off")
    );
    // Both sides of the range.
    assert_eq!(sequences(&ask(5).stdout), [6, 7]);
    assert_eq!(ask(7).code, 0);
    assert_eq!((ask(4).code, ask(8).code), (2, 2));
    // What retention deleted does not break the chain.
    let ran = server.ask(&place, &["audit", "verify", "--output", "json"]);
    assert_eq!((ran.code, &ran.json()["firstSequence"]), (0, &6.into()));
    let old = format!("3:{}", "00".repeat(32));
    let online = server.ask(&place, &["audit", "verify", "--expect-head", &old]);
    assert_eq!(server.end("TERM"), Some(0));
    for ran in [online, place.run(&["audit", "verify", "--expect-head", &old])] {
        assert_eq!(ran.code, 2);
        assert!(
            ran.stderr.contains("retention deleted record 3, and keeps those from 6 on"),
            "{}",
            ran.stderr
        );
    }
}

#[test]
fn without_a_server_it_is_worth_trying_again_later() {
    for args in [
        &[][..],
        &["--cursor-file", "cursor"],
        &["--follow", "--retries", "0"],
        &["--follow", "--retries", "2"],
    ] {
        let place = Place::new();
        let ran = place.run(&[&["audit", "tail", "--server", "http://127.217.3.9:1"], args].concat());
        assert_eq!((ran.code, &*ran.stdout), (6, ""), "{args:?}");
        assert!(ran.stderr.contains("error: could not connect to http://127.217.3.9:1"), "{}", ran.stderr);
        assert!(!place.0.path().join("cursor").exists());
    }
    let ran = Place::new().run(&["audit", "verify", "--server", "http://127.217.3.9:1"]);
    assert_eq!((ran.code, &*ran.stdout), (2, ""));
}

#[test]
fn a_cursor_file_that_cannot_be_used_is_an_error() {
    let place = place();
    let server = Server::start(&place);
    place.write("broken", "{\"log_id\":");
    let ran = server.ask(&place, &["audit", "tail", "--cursor-file", "broken"]);
    assert_eq!((ran.code, &*ran.stdout), (2, ""));
    assert!(ran.stderr.starts_with("error: `broken` is not a cursor file: "), "{}", ran.stderr);
    let ran = server.ask(&place, &["audit", "tail", "--cursor-file", "nowhere/cursor"]);
    assert_eq!((ran.code, &*ran.stdout), (2, ""), "nothing is printed that could not be remembered");
    assert!(
        ran.stderr.contains("could not write cursor file `nowhere/cursor`: No such file"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    // More than a pipe takes.
    let place = filled(400);
    let server = Server::start(&place);
    for args in [&["--output", "json"][..], &["--output", "json", "--follow"]] {
        let mut running = Running::start(&place, &server, args);
        let mut line = String::new();
        BufReader::with_capacity(16, running.child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(sequence(&line), 1);
        assert_eq!(running.code(), Some(0), "{args:?}");
    }
}

#[test]
fn a_signal_ends_it_although_the_reader_takes_nothing() {
    let place = filled(400);
    let server = Server::start(&place);
    let mut running =
        Running::start(&place, &server, &["--follow", "--output", "json", "--cursor-file", "cursor"]);
    let mut stdout = running.child.stdout.take().unwrap();
    let mut byte = [0];
    stdout.read_exact(&mut byte).unwrap();
    running.signal("TERM");
    assert_eq!(running.code(), Some(0));
    // What was not handed on comes again.
    let ran = server.ask(&place, &["audit", "tail", "--output", "json", "--cursor-file", "cursor"]);
    let again = sequences(&ran.stdout);
    let mut taken = byte.to_vec();
    stdout.read_to_end(&mut taken).unwrap();
    let taken = String::from_utf8(taken).unwrap();
    let whole = taken.matches('\n').count() as u64;
    assert!(again[0] <= whole + 1, "{} follows {whole}", again[0]);
    assert_eq!(again.last(), Some(&401));
}

#[test]
fn usage_errors_of_audit_exit_with_2() {
    for args in [
        &["audit"][..],
        &["audit", "tail", "--from", "yesterday"],
        &["audit", "tail", "--log-id", "x"],
        &["audit", "tail", "--kind", "everything"],
        &["audit", "tail", "--after", "-1"],
        &["audit", "tail", "--limit", "0"],
        &["audit", "tail", "--until", "latest"],
        &["audit", "tail", "--until", "2026-01-01T00:00:00Z", "--follow"],
        &["audit", "tail", "--state-dir", "x", "--server", "127.0.0.1:1"],
        &["audit", "verify", "--expect-head", "1:00"],
    ] {
        let ran = Place::new().run(args);
        assert_eq!((ran.code, &*ran.stdout), (2, ""), "{args:?}");
        assert!(!ran.stderr.is_empty(), "{args:?}");
    }
}
