//! The joined store in a real NATS server: what `audit forward` publishes, and what `audit verify` and `audit tail` read of it.

use std::time::{Duration, Instant};

use serde_json::json;

use super::joined::{Crashing, append, caught_up, condition, fail_and_catch_up, recorded};
use super::serve::{Piped, place as serve_place};
use super::*;
use crate::certs::{Authority, Name};
use crate::nats::Nats;
use crate::service::DEADLINE;
use crate::tools::wanted;

/// A server with the stream that `audit forward-schema` makes.
fn with_stream() -> Nats {
    let server = Nats::start();
    make_stream(&Place::new(), &server);
    server
}

#[track_caller]
fn make_stream(place: &Place, server: &Nats) {
    let password = server.password_file(place.0.path(), "ruling");
    let made = place.run(&[
        "audit",
        "forward-schema",
        "--audit-forward",
        &server.url("admin"),
        "--audit-forward-password-file",
        &password,
    ]);
    assert_eq!((made.code, &*made.stderr), (0, ""));
}

fn forward_command(place: &Place, server: &Nats) -> Command {
    let password = server.password_file(place.0.path(), "writing");
    let url = server.url("writer");
    let args = ["audit", "forward", "--once", "--output", "json", "--audit-forward", &url];
    place.command(&[&args[..], &["--audit-forward-password-file", &password]].concat())
}

/// Runs `audit forward --once` as the one that may only write.
fn forward(place: &Place, server: &Nats) -> Ran {
    ran(forward_command(place, server))
}

/// How many records `audit forward --once` wrote; it must succeed.
#[track_caller]
fn written(place: &Place, server: &Nats) -> u64 {
    let ran = forward(place, server);
    assert_eq!((ran.code, &*ran.stderr), (0, ""), "{}", ran.stdout);
    ran.json()["written"].as_u64().unwrap()
}

/// Runs a verb on the stream as the administrator.
fn read(place: &Place, server: &Nats, args: &[&str]) -> Ran {
    let password = server.password_file(place.0.path(), "ruling");
    let url = server.url("admin");
    place.run(&[args, &["--from", &url, "--audit-forward-password-file", &password]].concat())
}

#[test]
fn every_record_is_in_the_stream_once_and_proven_there() {
    if !wanted("nats") {
        return;
    }
    let server = with_stream();
    let config = &server.request("$JS.API.STREAM.INFO.AUDIT", &json!({}))["config"];
    assert_eq!((&config["allow_atomic"], &config["deny_delete"]), (&true.into(), &true.into()));
    let (first, second) = (recorded(1200), recorded(7));
    for (place, records) in [(&first, 1201), (&second, 8)] {
        assert_eq!(written(place, &server), records);
        assert_eq!(written(place, &server), 0);
    }
    append(&second, 3);
    assert_eq!(written(&second, &server), 4);
    let verified = read(&first, &server, &["audit", "verify"]);
    assert_eq!((verified.code, &*verified.stderr), (0, ""), "{}", verified.stdout);
    assert_eq!(verified.stdout.matches("VERIFIED log").count(), 2);
    assert!(
        verified.stdout.contains("2 logs, 0 broken, 1213 good records, in 127.0.0.1:"),
        "{}",
        verified.stdout
    );

    let local = first.run(&["audit", "tail", "--state-dir", ".scopeward", "--output", "json"]);
    let merged = read(&first, &server, &["audit", "tail", "--output", "json"]);
    let lines: Vec<Value> = merged.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let times: Vec<&str> = lines.iter().map(|line| line["eventTime"].as_str().unwrap()).collect();
    assert!(times.is_sorted() && lines.len() == 1213);
    let expected: Vec<Value> = local.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let log_id = &expected[0]["logId"];
    let of_first: Vec<&Value> = lines.iter().filter(|line| line["logId"] == *log_id).collect();
    assert_eq!(of_first, expected.iter().collect::<Vec<_>>());
    let denials = read(&first, &server, &["audit", "tail", "--kind", "denial", "--output", "json"]);
    assert_eq!(denials.stdout.lines().count(), 3);
}

#[test]
fn two_that_forward_one_log_at_once_write_each_record_once() {
    if !wanted("nats") {
        return;
    }
    // In batches, and each record by itself.
    for is_atomic in [true, false] {
        let server = Nats::start();
        server.make_stream(&json!({"allow_atomic": is_atomic}));
        two_forward_one_log(&server);
    }
}

fn two_forward_one_log(server: &Nats) {
    let (place, copy) = (recorded(2000), Place::new());
    let copied =
        Command::new("cp").arg("-r").arg(place.0.path().join(".scopeward")).arg(copy.0.path()).status();
    assert!(copied.unwrap().success());
    let both: Vec<Child> = [&place, &copy]
        .map(|place| {
            forward_command(place, server).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .into();
    for child in both {
        let done = child.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&done.stderr);
        let was_later = errors.contains("has other records of this log than it said");
        assert!(done.status.success() || was_later, "{errors}");
    }
    _ = forward(&place, server);
    assert_eq!((written(&copy, server), server.messages()), (0, 2001));
    assert_eq!(read(&place, server, &["audit", "verify"]).code, 0);
    // They go different ways from here: the second one is found.
    append(&place, 2);
    append(&copy, 2);
    assert_eq!(written(&place, server), 3);
    let refused = forward(&copy, server);
    assert!(
        refused.code == 2 && refused.stderr.contains("has another record 2004 of log"),
        "{}",
        refused.stderr
    );
}

#[test]
fn a_batch_that_is_refused_in_its_middle_is_not_there_at_all() {
    if !wanted("nats") {
        return;
    }
    let server = Nats::start();
    // There is room for a part of it, and none is made.
    let limited = json!({"allow_atomic": true, "max_msgs": 10, "discard": "new"});
    server.make_stream(&limited);
    let place = recorded(30);
    let refused = forward(&place, &server);
    assert!(refused.code == 2 && refused.stderr.contains("maximum messages exceeded"), "{}", refused.stderr);
    assert_eq!(server.messages(), 0);
    server.change_stream(&json!({"allow_atomic": true}));
    assert_eq!((written(&place, &server), server.messages()), (31, 31));
    assert_eq!(read(&place, &server, &["audit", "verify"]).code, 0);
}

#[test]
fn what_the_stream_lost_is_written_again_or_named() {
    if !wanted("nats") {
        return;
    }
    let server = Nats::start();
    server.make_stream(&json!({}));
    let place = recorded(30);
    assert_eq!(written(&place, &server), 31);
    // Its end, as after a crash between two syncs.
    for sequence in [31, 30, 29] {
        server.request("$JS.API.STREAM.MSG.DELETE.AUDIT", &json!({"seq": sequence}));
    }
    assert_eq!(written(&place, &server), 3);
    // One in the middle, which a stream takes at its end alone.
    server.request("$JS.API.STREAM.MSG.DELETE.AUDIT", &json!({"seq": 10}));
    append(&place, 1);
    let named = forward(&place, &server);
    assert_eq!((named.code, &named.json()["lost"], &named.json()["written"]), (1, &1.into(), &2.into()));
    let verified = read(&place, &server, &["audit", "verify"]);
    assert!(
        verified.code == 1 && verified.stdout.contains("removed: the next record is 11"),
        "{}",
        verified.stdout
    );
    // The oldest, as somebody who makes room does.
    server.request("$JS.API.STREAM.PURGE.AUDIT", &json!({"seq": 5}));
    assert_eq!(forward(&place, &server).json()["lost"], 5);
    server.request("$JS.API.STREAM.PURGE.AUDIT", &json!({"filter": "scopeward.audit.>"}));
    assert_eq!((written(&place, &server), server.messages()), (33, 33));
    assert_eq!(read(&place, &server, &["audit", "verify"]).code, 0);
}

#[test]
fn what_somebody_published_there_is_named() {
    if !wanted("nats") {
        return;
    }
    let server = with_stream();
    let place = recorded(3);
    written(&place, &server);
    let log_id =
        place.run(&["audit", "verify", "--output", "json"]).json()["logId"].as_str().unwrap().to_owned();
    server.request(&format!("scopeward.audit.{log_id}"), &json!({"eventTime": "now"}));
    let refused = forward(&place, &server);
    assert!(refused.code == 2 && refused.stderr.contains("content changed"), "{}", refused.stderr);
    let verified = read(&place, &server, &["audit", "verify"]);
    assert!(verified.code == 1 && verified.stdout.contains("good      4"), "{}", verified.stdout);
}

#[test]
fn a_stream_that_cannot_be_used_is_named_with_what_is_wrong() {
    if !wanted("nats") {
        return;
    }
    let server = Nats::start();
    let place = recorded(1);
    let run = |url: &str, password: &str| {
        let file = server.password_file(place.0.path(), password);
        let ran = place.run(&[
            "audit",
            "forward",
            "--once",
            "--audit-forward",
            url,
            "--audit-forward-password-file",
            &file,
        ]);
        assert_eq!((ran.code, &*ran.stdout), (2, ""), "{url}");
        assert!(!ran.stderr.contains(password), "{}", ran.stderr);
        ran.stderr
    };
    let url = server.url("writer");
    for (url, password, words) in [
        (&*url, "guess", "refused: authorization violation"),
        (&*server.url(""), "a-token", "refused: authorization violation"),
        (&*url, "writing", "has no stream `AUDIT`; create it with `scopeward audit forward-schema"),
        ("nats://w@127.0.0.1:1/AUDIT", "writing", "cannot be reached"),
        ("nats://w@db.example/AUDIT", "writing", "?sslrootcert=FILE"),
        ("nats://w@127.0.0.1", "writing", "name the stream"),
        // It may not look at other streams.
        (&*url.replace("AUDIT", "OTHER"), "writing", "Permissions Violation"),
    ] {
        let stderr = run(url, password);
        assert!(stderr.contains(words), "{url}: {stderr}");
    }
    for (settings, words) in [
        (json!({"max_age": 3_600_000_000_000_u64}), "its max_age is 3600 s, and must be 0"),
        (json!({"max_msgs": 1000}), "it deletes old messages at max_msgs 1000"),
        (json!({"max_bytes": 1_000_000, "retention": "workqueue"}), "its retention must be `limits`"),
        (json!({"max_bytes": 1_000_000}), "it deletes old messages at max_bytes 1000000"),
        (json!({"max_msgs_per_subject": 5}), "at max_msgs_per_subject 5"),
        (json!({"storage": "memory"}), "its storage must be `file`"),
        (json!({"subjects": ["other.*"]}), "its subjects do not cover `scopeward.audit.*`"),
    ] {
        server.make_stream(&settings);
        let stderr = run(&url, "writing");
        assert!(
            stderr.contains("stream `AUDIT` does not keep every record") && stderr.contains(words),
            "{stderr}"
        );
        server.delete_stream();
    }
    // One that refuses what does not fit keeps all that it took.
    server.make_stream(&json!({"max_msgs": 1, "discard": "new"}));
    assert!(run(&url, "writing").contains("maximum messages exceeded"));
    assert_eq!(server.messages(), 1);
}

#[test]
fn connections_to_nats_are_encrypted_and_verified() {
    if !wanted("nats") {
        return;
    }
    let place = recorded(1);
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    fs::write(place.0.path().join("ours.pem"), ours.pem()).unwrap();
    fs::write(place.0.path().join("others.pem"), others.pem()).unwrap();
    let files = ours.issue(&[Name::Dns("nats.example.com")]).write(place.0.path(), "server");
    // The test itself speaks without TLS.
    let tls =
        format!("tls {{ cert_file: {:?}, key_file: {:?} }}\nallow_non_tls: true", files.chain, files.key);
    let server = Nats::start_with("127.0.0.1", &tls);
    server.make_stream(&json!({}));
    let file = server.password_file(place.0.path(), "writing");
    let run = |url: &str, ca: &str| {
        let url = format!("{url}?sslmode=verify-full&sslrootcert={ca}.pem");
        place.run(&[
            "audit",
            "forward",
            "--once",
            "--audit-forward",
            &url,
            "--audit-forward-password-file",
            &file,
        ])
    };
    let url = server.url("writer");
    let trusted = run(&url, "ours");
    assert_eq!((trusted.code, &*trusted.stderr, server.messages()), (0, "", 2));
    for (url, ca, words) in [
        (&*url, "others", "UnknownIssuer"),
        (&*url.replace("127.0.0.1", "localhost"), "ours", "certificate not valid for name \"localhost\""),
    ] {
        let refused = run(url, ca);
        assert!(
            refused.code == 2 && refused.stderr.contains("has a certificate that is not trusted"),
            "{}",
            refused.stderr
        );
        assert!(refused.stderr.contains(words), "{}", refused.stderr);
    }
}

impl Crashing for Nats {
    fn signal(&self, signal: &str) {
        Self::signal(self, signal);
    }

    fn kill(&mut self) {
        Self::kill(self);
    }
}

#[test]
fn servers_that_are_killed_and_a_nats_server_that_loses_everything_lose_nothing() {
    if !wanted("nats") {
        return;
    }
    let mut store = with_stream();
    let places = [serve_place(), serve_place()];
    let password = store.password_file(places[0].0.path(), "writing");
    let url = store.url("writer");
    let flags = ["--audit-forward", &url, "--audit-forward-password-file", &password];
    let start = |place: &Place| Piped::start(place, &flags);
    let mut servers: Vec<Piped> = places.iter().map(start).collect();
    fail_and_catch_up(&mut servers, &places, &start, &mut store);
    store.resume();
    servers.iter().for_each(|server| caught_up(server, 80.0));

    // Its disk is lost, and the stream with it.
    store.kill();
    store.wipe();
    store.resume();
    servers[1].status_when(&places[1], "the missing stream", |status| {
        condition(status, "AuditForwardingBehind") == Some("StreamNotUsable")
    });
    make_stream(&places[0], &store);
    servers.iter().for_each(|server| server.expand(10));
    let all = |store: &Nats, servers: &[Piped]| {
        let recorded: f64 =
            servers.iter().map(|server| server.metric("scopeward_audit_durable_sequence")).sum();
        store.messages() as f64 == recorded
    };
    let deadline = Instant::now() + DEADLINE;
    while !all(&store, &servers) {
        assert!(Instant::now() < deadline, "{} messages", store.messages());
        std::thread::sleep(Duration::from_millis(20));
    }
    servers[1]
        .status_when(&places[1], "no outage", |status| condition(status, "AuditForwardingBehind").is_none());
    for server in &mut servers {
        server.signal("TERM");
        assert_eq!(server.end().code(), Some(0), "{}", server.errors());
    }
    let records: u64 = places
        .iter()
        .map(|place| place.run(&["audit", "verify", "--output", "json"]).json()["records"].as_u64().unwrap())
        .sum();
    let verified = read(&places[0], &store, &["audit", "verify"]);
    assert!(
        verified.stdout.contains(&format!("2 logs, 0 broken, {records} good records")),
        "{}",
        verified.stdout
    );
}
