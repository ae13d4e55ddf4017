//! The joined store in a real PostgreSQL: what `audit forward` writes, and what `audit verify` and `audit tail` read of it.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use scopeward::audit::forward::Forwarder;
use scopeward::audit::joined::{JoinedTarget, TargetContext};
use scopeward::proto::v1::AuditEventKind;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::audit::{event, sequences, with_log};
use super::serve::{Piped, place as serve_place};
use super::*;
use crate::certs::{Authority, Name};
use crate::postgres::Postgres;
use crate::tools::wanted;

/// A place whose stopped store has so many expansions, one denial after them.
pub(super) fn recorded(count: usize) -> Place {
    let place = Place::new();
    append(&place, count);
    place
}

pub(super) fn append(place: &Place, count: usize) {
    with_log(
        place,
        |_| {},
        async |log| {
            for _ in 0..count {
                log.enqueue(event(AuditEventKind::Expansion, MCP));
            }
            log.append_durable(event(AuditEventKind::Denial, MCP)).await.unwrap();
        },
    );
}

/// Runs `audit forward --once`, which must succeed.
#[track_caller]
pub(super) fn forward(place: &Place, server: &Postgres) -> Value {
    let password = server.password_file(place.0.path());
    let args = ["audit", "forward", "--once", "--output", "json", "--audit-forward", &server.url("writer")];
    let ran =
        place.run(&[&args[..], &["--audit-forward-password-file", password.to_str().unwrap()]].concat());
    assert_eq!((ran.code, &*ran.stderr), (0, ""), "{}", ran.stdout);
    ran.json()
}

/// A store, and a server that forwards to it with a password of this file and these variables.
pub(super) fn forwarding(variables: &[(&str, &OsStr)]) -> (Postgres, Place, PathBuf, Piped) {
    let store = Postgres::start();
    let place = serve_place();
    let password = store.password_file(place.0.path());
    let url = store.url("writer");
    let flags = ["--audit-forward", &url, "--audit-forward-password-file", password.to_str().unwrap()];
    let server = Piped::start_with(&place, &flags, variables);
    (store, place, password, server)
}

#[test]
fn every_record_is_in_the_joined_store_once_and_proven_there() {
    if !wanted("postgres") {
        return;
    }
    let server = Postgres::start();
    let (first, second) = (recorded(1500), recorded(7));
    for (place, records) in [(&first, 1501), (&second, 8)] {
        let report = forward(place, &server);
        assert_eq!((&report["written"], &report["forwardedSequence"]), (&records.into(), &records.into()));
        // Nothing is written twice.
        assert_eq!(forward(place, &server)["written"], 0);
    }
    append(&second, 3);
    assert_eq!(forward(&second, &server)["written"], 4);
    let url = server.url("postgres");
    let verified = first.run(&["audit", "verify", "--from", &url]);
    assert_eq!((verified.code, &*verified.stderr), (0, ""), "{}", verified.stdout);
    assert_eq!(verified.stdout.matches("VERIFIED log").count(), 2);
    assert!(
        verified.stdout.contains("2 logs, 0 broken, 1513 good records, in 127.0.0.1:"),
        "{}",
        verified.stdout
    );

    let local = first.run(&["audit", "tail", "--state-dir", ".scopeward", "--output", "json"]);
    let merged = first.run(&["audit", "tail", "--from", &url, "--output", "json"]);
    let log_id =
        local.stdout.lines().next().map(|line| serde_json::from_str::<Value>(line).unwrap()["logId"].clone());
    let own = |line: &&str| Some(&serde_json::from_str::<Value>(line).unwrap()["logId"]) == log_id.as_ref();
    let of_first: Vec<&str> = merged.stdout.lines().filter(own).collect();
    assert_eq!(of_first, local.stdout.lines().collect::<Vec<_>>());
    assert_eq!(merged.stdout.lines().count(), 1513);
    let denials =
        first.run(&["audit", "tail", "--from", &url, "--kind", "denial", "--limit", "2", "--output", "json"]);
    assert_eq!(sequences(&denials.stdout).len(), 2);

    let unasked = server.query("SELECT scope, origin, rule, times, clients FROM scopeward_unasked_per_rule");
    assert_eq!(unasked, "offline_access|BASELINE|loopback|1510|1");
    let rows = server.query("SELECT requested_scopes, granted_scopes, refused_scopes, reason FROM scopeward_audit WHERE kind = 'DENIAL' LIMIT 1");
    assert_eq!(rows, "{openid}|{}|{admin}|UNSUPPORTED");
}

#[test]
fn what_somebody_changed_in_the_joined_store_is_named() {
    if !wanted("postgres") {
        return;
    }
    let server = Postgres::start();
    let place = recorded(9);
    let url = server.url("postgres");
    for (statement, sequence, words) in [
        (
            "UPDATE scopeward_audit SET client_id = 'other' WHERE sequence = 4",
            4,
            "its column `client_id` does not say",
        ),
        ("UPDATE scopeward_audit SET added_scopes = '{}' WHERE sequence = 5", 5, "its column `added_scopes`"),
        (
            "UPDATE scopeward_audit SET event_time = event_time + interval '1 s' WHERE sequence = 5",
            5,
            "`event_time`",
        ),
        ("UPDATE scopeward_audit SET record = record || '\\x00' WHERE sequence = 6", 6, "content changed"),
        ("UPDATE scopeward_audit SET hash = prev_hash WHERE sequence = 6", 6, "content changed"),
        ("UPDATE scopeward_audit SET prev_hash = hash WHERE sequence = 7", 7, "link broken"),
        ("DELETE FROM scopeward_audit WHERE sequence = 8", 8, "the next record is 9"),
        ("UPDATE scopeward_audit SET sequence = 20 WHERE sequence = 10", 10, "the next record is 20"),
    ] {
        forward(&place, &server);
        server.query(statement);
        let report = place.run(&["audit", "verify", "--from", &url, "--output", "json"]);
        assert_eq!(report.code, 1, "{statement}");
        let bad = &report.json()["bad"];
        assert_eq!(bad["sequence"], sequence, "{statement}: {bad}");
        assert!(bad["problem"].as_str().unwrap().contains(words), "{statement}: {bad}");
        server.query("TRUNCATE scopeward_audit");
    }
}

#[test]
fn a_head_that_was_kept_elsewhere_is_found_in_the_joined_store() {
    if !wanted("postgres") {
        return;
    }
    let server = Postgres::start();
    let (place, other) = (recorded(9), recorded(2));
    let head_of = |place: &Place| {
        let local = place.run(&["audit", "verify", "--output", "json"]).json();
        let text = |name: &str| local[name].as_str().unwrap().to_owned();
        format!("{}:{}:{}", text("logId"), local["headSequence"], text("headHash"))
    };
    let (head, other_head) = (head_of(&place), head_of(&other));
    append(&place, 3);
    forward(&place, &server);
    forward(&other, &server);
    let url = server.url("postgres");
    let verify = |heads: &[&str]| {
        let mut args = vec!["audit", "verify", "--from", &url];
        args.extend(heads.iter().flat_map(|head| ["--expect-head", head]));
        place.run(&args)
    };
    assert_eq!(verify(&[&head, &other_head]).code, 0);
    // The whole end of a log is gone, which leaves no trace in the chain.
    server.query("DELETE FROM scopeward_audit WHERE sequence > 8");
    let cut = verify(&[&head, &other_head]);
    assert!(cut.code == 1 && cut.stdout.contains("removed: the chain ends at record 8"), "{}", cut.stdout);
    server.query(&format!(
        "DELETE FROM scopeward_audit WHERE log_id = '{}'",
        other_head.split(':').next().unwrap()
    ));
    let gone = verify(&[&other_head]);
    assert!(gone.code == 1 && gone.stdout.contains("removed: the chain ends at record 0"), "{}", gone.stdout);
    server.query("DELETE FROM scopeward_audit WHERE sequence < 5");
    let oldest = head.replacen(":10:", ":2:", 1);
    let old = verify(&[&oldest]);
    assert!(old.code == 2 && old.stderr.contains("could not be compared"), "{}{}", old.stdout, old.stderr);
    for (heads, words) in [
        (&[head.split_once(':').unwrap().1][..], "needs the id of its log with --from"),
        (&[&*head, &*oldest], "may be given once for each log"),
    ] {
        let refused = verify(heads);
        assert!(refused.code == 2 && refused.stderr.contains(words), "{}", refused.stderr);
    }
    let elsewhere = place.run(&["audit", "verify", "--expect-head", &other_head]);
    assert!(elsewhere.code == 2, "{}", elsewhere.stdout);
}

#[test]
fn what_the_joined_store_lost_is_written_again() {
    if !wanted("postgres") {
        return;
    }
    let server = Postgres::start();
    let place = recorded(2500);
    forward(&place, &server);
    for (statement, lost) in [
        ("DELETE FROM scopeward_audit WHERE sequence BETWEEN 10 AND 1200 OR sequence = 1999", 1192),
        ("DELETE FROM scopeward_audit WHERE sequence < 5 OR sequence > 2490", 15),
        // More holes than are asked for at once.
        ("DELETE FROM scopeward_audit WHERE sequence % 2 = 0", 1250),
        ("TRUNCATE scopeward_audit", 2501),
    ] {
        server.query(statement);
        assert_eq!(forward(&place, &server)["written"], lost, "{statement}");
        let verified = place.run(&["audit", "verify", "--from", &server.url("postgres")]);
        assert_eq!(verified.code, 0, "{}", verified.stdout);
        assert_eq!(server.query("SELECT count(*), max(sequence) FROM scopeward_audit"), "2501|2501");
    }
}

#[test]
fn what_a_store_lost_while_it_is_connected_is_noticed_and_written_again() {
    if !wanted("postgres") {
        return;
    }
    let server = Postgres::start();
    let place = Place::new();
    let url = server.url("postgres");
    with_log(
        &place,
        |_| {},
        async |log| {
            for _ in 0..50 {
                log.enqueue(event(AuditEventKind::Expansion, MCP));
            }
            log.append_durable(event(AuditEventKind::Expansion, MCP)).await.unwrap();
            let target = JoinedTarget::parse(&url, &TargetContext::default()).unwrap();
            let status = watch::Sender::default();
            let forwarder =
                Forwarder::new(log.clone(), target, status.clone()).check_every(Duration::from_millis(50));
            let stop = CancellationToken::new();
            let losing = async {
                let all = "SELECT count(*), max(sequence) FROM scopeward_audit";
                for lost in ["", "sequence > 40", "sequence BETWEEN 3 AND 7 OR sequence = 20", "TRUE"] {
                    if !lost.is_empty() {
                        server.query(&format!("DELETE FROM scopeward_audit WHERE {lost}"));
                    }
                    let deadline = Instant::now() + Duration::from_secs(60);
                    while status.borrow().forwarded != Some(51) || server.query(all) != "51|51" {
                        assert!(Instant::now() < deadline, "{lost}: {:?}", *status.borrow());
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    assert_eq!(status.borrow().retries, 0, "{lost}: on one connection");
                }
                stop.cancel();
            };
            tokio::join!(forwarder.run(&stop), losing);
        },
    );
    let verified = place.run(&["audit", "verify", "--from", &url]);
    assert_eq!(verified.code, 0, "{}", verified.stdout);
}

#[test]
fn what_was_deleted_here_before_the_store_had_it_is_counted_and_named() {
    if !wanted("postgres") {
        return;
    }
    let server = Postgres::start();
    let place = recorded(5);
    forward(&place, &server);
    append(&place, 10);
    with_log(
        &place,
        |options| options.max_age = Some(Duration::from_nanos(1)),
        async |log| {
            let deadline = Instant::now() + Duration::from_secs(60);
            while log.status().oldest <= 17 {
                assert!(Instant::now() < deadline, "{:?}", log.status());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        },
    );
    append(&place, 0);
    let report = forward(&place, &server);
    assert_eq!((&report["missing"], &report["written"]), (&11.into(), &1.into()), "{report}");
    let verified = place.run(&["audit", "verify", "--from", &server.url("postgres")]);
    assert_eq!(verified.code, 1);
    assert!(verified.stdout.contains("the next record is 18"), "{}", verified.stdout);
}

#[test]
fn a_store_that_answers_slowly_delays_nobody_and_gets_everything() {
    if !wanted("postgres") {
        return;
    }
    let (store, _place, _, server) = forwarding(&[]);
    caught_up(&server, 1.0);
    // No transaction ends before the gate opens.
    store.query(
        "CREATE TABLE gate (is_open boolean NOT NULL); INSERT INTO gate VALUES (false); GRANT SELECT ON gate TO writer;
         CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN WHILE NOT (SELECT is_open FROM gate) LOOP PERFORM pg_sleep(0.02); END LOOP; RETURN NULL; END';
         CREATE TRIGGER slow AFTER INSERT ON scopeward_audit FOR EACH STATEMENT EXECUTE FUNCTION wait()",
    );
    server.expand(40);
    assert!(server.metric("scopeward_audit_forward_lag") >= 40.0);
    store.query("UPDATE gate SET is_open = true");
    caught_up(&server, 41.0);
    assert!(server.metric("scopeward_audit_forward_retries_total") == 0.0);
}

#[test]
fn logs_are_merged_by_the_time_of_their_records() {
    if !wanted("postgres") {
        return;
    }
    let server = Postgres::start();
    let (first, second) = (recorded(2), recorded(1));
    append(&first, 1);
    append(&second, 2);
    append(&first, 0);
    forward(&second, &server);
    forward(&first, &server);
    let merged = first.run(&["audit", "tail", "--from", &server.url("postgres"), "--output", "json"]);
    let lines: Vec<Value> = merged.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let first_id = &lines[0]["logId"];
    let order: String = lines.iter().map(|line| if line["logId"] == *first_id { 'a' } else { 'b' }).collect();
    assert_eq!(order, "aaabbaabbba");
    let times: Vec<&str> = lines.iter().map(|line| line["eventTime"].as_str().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn two_servers_with_one_log_id_are_found() {
    if !wanted("postgres") {
        return;
    }
    let server = Postgres::start();
    let (place, copy) = (recorded(3), Place::new());
    let password = server.password_file(place.0.path());
    let copied =
        Command::new("cp").arg("-r").arg(place.0.path().join(".scopeward")).arg(copy.0.path()).status();
    assert!(copied.unwrap().success());
    append(&place, 2);
    append(&copy, 2);
    forward(&place, &server);
    let args = [
        "audit",
        "forward",
        "--once",
        "--audit-forward",
        &server.url("writer"),
        "--audit-forward-password-file",
    ];
    let refused = copy.run(&[&args[..], &[password.to_str().unwrap()]].concat());
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("has another record 7 of log"), "{}", refused.stderr);
    // A disk that was put back ends before the store does.
    let older = recorded(1);
    let log_id =
        older.run(&["audit", "verify", "--output", "json"]).json()["logId"].as_str().unwrap().to_owned();
    server.query(&format!(
        "INSERT INTO scopeward_audit SELECT '{log_id}', sequence + 5, prev_hash, hash, record, event_time, kind, decision_id, correlation_id, \
         caller, client_id, client_name, audiences, requested_scopes, granted_scopes, added_scopes, added_origins, added_rules, \
         refused_scopes, reason, policy_digest, missing_events, forwarded_time FROM scopeward_audit WHERE sequence = 1"
    ));
    let refused = older.run(&[&args[..], &[password.to_str().unwrap()]].concat());
    assert_eq!(refused.code, 2);
    assert!(
        refused.stderr.contains("which ends with 2 here: the state directory was put back"),
        "{}",
        refused.stderr
    );
}

#[test]
fn a_store_that_cannot_be_used_is_named_with_what_is_wrong() {
    if !wanted("postgres") {
        return;
    }
    let server = Postgres::start();
    let place = recorded(1);
    let url = server.url("writer");
    let wrong = place.0.path().join("wrong");
    fs::write(&wrong, "guess").unwrap();
    let run = |url: &str, file: Option<&str>| {
        let mut args = vec!["audit", "forward", "--once", "--audit-forward", url];
        args.extend(file.iter().flat_map(|file| ["--audit-forward-password-file", file]));
        let ran = place.run(&args);
        assert_eq!((ran.code, &*ran.stdout), (2, ""), "{url}");
        ran.stderr
    };
    let password = server.password_file(place.0.path());
    let password = password.to_str().unwrap();
    for (url, file, words) in [
        (&*url, Some(wrong.to_str().unwrap()), "password authentication failed for user \"writer\""),
        (&*url, None, "password"),
        (&*url, Some("nowhere"), "could not read the password file `nowhere`"),
        (&*url.replace("/audit", "/other"), Some(password), "database \"other\" does not exist"),
        ("postgres://w@127.0.0.1:1/audit", Some(password), "cannot be reached"),
        ("postgres://w@db.example/audit", Some(password), "?sslrootcert=FILE"),
        ("mysql://w@db.example/audit", Some(password), "write it as postgres://"),
    ] {
        let stderr = run(url, file);
        assert!(stderr.contains(words) && !stderr.contains("writing"), "{url}: {stderr}");
    }
    // A role that may not make tables is told how they are made.
    server.query("REVOKE ALL ON SCHEMA public FROM public; ALTER DATABASE audit OWNER TO postgres; GRANT USAGE ON SCHEMA public TO writer");
    assert!(run(&url, Some(password)).contains("refused: permission denied for schema public"));
    assert_eq!(place.run(&["audit", "forward-schema", "--audit-forward", &server.url("postgres")]).code, 0);
    server.query(
        "GRANT SELECT, INSERT ON scopeward_audit TO writer; GRANT SELECT ON scopeward_audit_schema TO writer",
    );
    forward(&place, &server);
    server.query("UPDATE scopeward_audit_schema SET version = 9");
    assert!(run(&url, Some(password)).contains("has schema 9, and this version of scopeward uses schema 2"));
    let verify = place.run(&["audit", "verify", "--from", &server.url("postgres")]);
    assert!(verify.code == 2 && verify.stderr.contains("has schema 9"), "{}", verify.stderr);
}

#[test]
fn connections_to_the_joined_store_are_encrypted_and_verified() {
    if !wanted("postgres") {
        return;
    }
    let server = Postgres::start();
    let place = recorded(1);
    let folder = place.0.path();
    let password = server.password_file(folder);
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    fs::write(folder.join("ours.pem"), ours.pem()).unwrap();
    fs::write(folder.join("others.pem"), others.pem()).unwrap();
    let own = ours.issue(&[Name::Dns("scopeward")]).write(folder, "own");
    let client = format!("&sslcert={}&sslkey={}", own.chain.display(), own.key.display());
    let url = server.url("writer").replace("127.0.0.1", "localhost");
    let run = |query: &str| {
        let url = format!("{url}?{query}");
        let args = ["audit", "forward", "--once", "--audit-forward", &url, "--audit-forward-password-file"];
        place.run(&[&args[..], &[password.to_str().unwrap()]].concat())
    };
    #[track_caller]
    fn refused(ran: &Ran, words: &str) {
        assert!(ran.code == 2 && ran.stderr.contains(words), "{}", ran.stderr);
    }
    let trusted = "sslmode=verify-full&sslrootcert=ours.pem";
    refused(&run(trusted), "server does not support TLS");
    server.encrypt(&ours.issue(&[Name::Dns("localhost")]), None);
    for mode in ["verify-full", "verify-ca", "require"] {
        let ran = run(&format!("sslmode={mode}&sslrootcert=ours.pem"));
        assert_eq!((ran.code, &*ran.stderr), (0, ""), "{mode}");
    }
    refused(&run("sslmode=disable"), "no encryption");
    refused(&run("sslmode=prefer"), "`sslmode`: it must be `disable` or `verify-full`");
    refused(&run("sslmode=verify-full"), "?sslrootcert=FILE");
    refused(&run("sslmode=verify-full&sslrootcert=nowhere.pem"), "nowhere.pem");
    let others_ca = run("sslmode=require&sslrootcert=others.pem");
    refused(&others_ca, "has a certificate that is not trusted");
    refused(&others_ca, "UnknownIssuer");
    server.encrypt(&ours.issue(&[Name::Dns("db.example.com")]), None);
    refused(&run(trusted), "certificate not valid for name \"localhost\"");
    server.encrypt(&ours.issue_expired(&[Name::Dns("localhost")]), None);
    refused(&run(trusted), "certificate expired");
    server.encrypt(&ours.issue(&[Name::Dns("localhost")]), Some(&ours));
    refused(&run(trusted), "certificate");
    let ran = run(&format!("{trusted}{client}"));
    assert_eq!((ran.code, &*ran.stderr), (0, ""));
    refused(&run(&format!("{trusted}&sslcert=own.pem")), "needs both `sslcert` and `sslkey`");
}

/// Waits until the server says that the joined store has everything, with the newest record that it has.
#[track_caller]
pub(super) fn caught_up(server: &Piped, newest: f64) {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let at = |name: &str| server.metric(name);
        let is_there = at("scopeward_audit_forward_lag") == 0.0
            && at("scopeward_audit_forward_last_success_timestamp_seconds") > 0.0
            && at("scopeward_audit_durable_sequence") >= newest;
        if is_there {
            return;
        }
        assert!(Instant::now() < deadline, "{} records behind", at("scopeward_audit_forward_lag"));
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What can be stopped and crash.
pub(super) trait Crashing {
    /// Sends a signal to all of it.
    fn signal(&self, signal: &str);
    /// Ends it at once.
    fn kill(&mut self);
}

impl Crashing for Postgres {
    fn signal(&self, signal: &str) {
        Self::signal(self, signal);
    }

    fn kill(&mut self) {
        Self::kill(self);
    }
}

/// Records something at each server, kills the first with records on the way and starts it again, and lets the joined store hang
/// and then crash: every call is answered meanwhile, and the condition says why records wait. The store is down at the end.
pub(super) fn fail_and_catch_up(
    servers: &mut [Piped],
    places: &[Place],
    start: &impl Fn(&Place) -> Piped,
    store: &mut impl Crashing,
) {
    for (at, server) in servers.iter().enumerate() {
        server.expand(20 * (at + 1));
        caught_up(server, 20.0 * (at as f64 + 1.0));
    }
    servers[0].expand(50);
    servers[0].signal("KILL");
    servers[0].end();
    servers[0] = start(&places[0]);

    store.signal("-STOP");
    servers.iter().for_each(|server| server.expand(30));
    store.signal("-CONT");
    store.kill();
    servers.iter().for_each(|server| server.expand(30));
    let why = servers[1].status_when(&places[1], "the outage", |status| {
        condition(status, "AuditForwardingBehind") == Some("DestinationUnreachable")
    });
    assert!(!why.to_string().contains("writing"), "{why}");
}

#[test]
fn replicas_that_are_killed_and_a_store_that_fails_lose_nothing_and_hold_up_nothing() {
    if !wanted("postgres") {
        return;
    }
    let mut store = Postgres::start();
    let places = [serve_place(), serve_place(), serve_place()];
    let password = store.password_file(places[0].0.path());
    let url = store.url("writer");
    let flags = ["--audit-forward", &url, "--audit-forward-password-file", password.to_str().unwrap()];
    let start = |place: &Place| Piped::start(place, &flags);
    let mut servers: Vec<Piped> = places.iter().map(start).collect();
    fail_and_catch_up(&mut servers, &places, &start, &mut store);
    // A replica stops in order meanwhile, and goes on from there at its next start.
    servers[2].signal("TERM");
    assert_eq!(servers[2].end().code(), Some(0), "{}", servers[2].errors());
    store.resume();
    servers[2] = start(&places[2]);
    for server in &servers {
        caught_up(server, 50.0);
        assert!(server.metric("scopeward_audit_forward_missing_records_total") == 0.0);
    }
    servers[1]
        .status_when(&places[1], "no outage", |status| condition(status, "AuditForwardingBehind").is_none());
    for server in &mut servers {
        server.signal("TERM");
        assert_eq!(server.end().code(), Some(0), "{}", server.errors());
    }

    // The joined store is the union of the logs: nothing is missing, nothing is there twice, every chain holds.
    let mut all = 0;
    for place in &places {
        let local = place.run(&["audit", "verify", "--output", "json"]).json();
        let (log_id, records) = (local["logId"].as_str().unwrap(), local["records"].as_u64().unwrap());
        let there = store.query(&format!(
            "SELECT count(*), encode((array_agg(hash ORDER BY sequence DESC))[1], 'hex') FROM scopeward_audit WHERE log_id = '{log_id}'"
        ));
        assert_eq!(there, format!("{records}|{}", local["headHash"].as_str().unwrap()));
        all += records;
    }
    let verified = places[0].run(&["audit", "verify", "--from", &store.url("postgres")]);
    assert_eq!(verified.code, 0, "{}", verified.stdout);
    assert!(
        verified.stdout.contains(&format!("3 logs, 0 broken, {all} good records")),
        "{}",
        verified.stdout
    );
}

#[test]
fn records_that_come_one_after_the_other_share_transactions() {
    if !wanted("postgres") {
        return;
    }
    let (store, _place, _, server) = forwarding(&[]);
    caught_up(&server, 1.0);
    let begin = Instant::now();
    server.expand(200);
    caught_up(&server, 201.0);
    // One at once, and then one for each time of gathering, however long the machine took.
    let most = begin.elapsed().as_millis() / 100 + 2;
    let made = store.query("SELECT count(DISTINCT xmin::text) FROM scopeward_audit WHERE sequence > 1");
    assert!(made.parse::<u128>().unwrap() <= most, "{made} transactions, and not {most}");
}

#[test]
fn a_schema_that_changes_under_a_running_server_is_named_and_waited_for() {
    if !wanted("postgres") {
        return;
    }
    let (store, place, _, server) = forwarding(&[]);
    server.expand(5);
    caught_up(&server, 5.0);
    store.query("UPDATE scopeward_audit_schema SET version = 9");
    store.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'writer'");
    server.expand(5);
    let behind = |reason: Option<&str>| {
        server.status_when(&place, "the condition", |status| {
            condition(status, "AuditForwardingBehind") == reason
        })
    };
    let status = behind(Some("SchemaNotUsable"));
    assert!(
        status.to_string().contains("has schema 9, and this version of scopeward uses schema 2"),
        "{status}"
    );
    store.query("UPDATE scopeward_audit_schema SET version = 2");
    caught_up(&server, 10.0);
    behind(None);
}

#[test]
fn a_password_in_the_environment_is_never_shown() {
    let place = serve_place();
    let url = "postgres://writer:hunter2@127.0.0.1:1/audit";
    let mut command = place.command(&["serve", "--print-config"]);
    command.env("SCOPEWARD_AUDIT_FORWARD", url);
    let printed = ran(command);
    assert_eq!(printed.code, 0, "{}", printed.stderr);
    assert!(printed.stdout.contains("postgres://writer@127.0.0.1:1/audit"), "{}", printed.stdout);
    let variable = ("SCOPEWARD_AUDIT_FORWARD", OsStr::new(url));
    let mut server = Piped::start_with(&place, &["--log", "debug"], &[variable]);
    let status = server.status_when(&place, "the outage", |status| {
        condition(status, "AuditForwardingBehind") == Some("DestinationUnreachable")
    });
    server.signal("TERM");
    assert_eq!(server.end().code(), Some(0));
    let errors = server.errors();
    assert!(errors.contains("audit records could not be forwarded"), "{errors}");
    assert!(!format!("{}{}{errors}{status}", printed.stdout, printed.stderr).contains("hunter2"), "{errors}");
    let refused = place.run(&["serve", "--audit-forward", url]);
    assert_eq!(refused.code, 2);
    assert!(
        refused.stderr.contains("PGPASSWORD") && !refused.stderr.contains("hunter2"),
        "{}",
        refused.stderr
    );
}

/// The reason of a condition, if it is there.
pub(super) fn condition<'s>(status: &'s Value, kind: &str) -> Option<&'s str> {
    let conditions = status["conditions"].as_array()?;
    conditions.iter().find(|one| one["type"] == kind)?["reason"].as_str()
}
