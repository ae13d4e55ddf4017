//! `audit verify`: what it proves, and what it names.

use super::*;
use crate::segments::remove_record;

#[test]
fn verify_agrees_offline_and_through_a_server() {
    let place = filled(3);
    let offline = place.run(&["audit", "verify", "--output", "json"]).json();
    assert_eq!(
        (&offline["verified"], &offline["records"], &offline["bad"]),
        (&true.into(), &3.into(), &Value::Null)
    );
    assert_eq!((&offline["firstSequence"], &offline["lastSequence"]), (&1.into(), &3.into()));
    let kept = format!("3:{}", offline["headHash"].as_str().unwrap());
    let server = Server::start(&place);
    server.expand(&place);
    // Nobody else can read a store that a server has.
    let busy = place.run(&["audit", "verify"]);
    assert_eq!(busy.code, 2);
    assert!(
        busy.stderr.contains("`.scopeward/audit` is in use by a running server; use --server"),
        "{}",
        busy.stderr
    );
    let mut asked: Vec<(Vec<String>, i32, String)> = Vec::new();
    let mut ran = |args: &[&str]| {
        let online = server.ask(&place, &[&["audit", "verify"], args].concat());
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        asked.push((args, online.code, online.stdout.clone()));
        online
    };
    let now = ran(&["--output", "json"]);
    assert_eq!((now.code, &now.json()["lastSequence"]), (0, &5.into()));
    let text = ran(&["--expect-head", &kept]);
    assert_eq!(text.code, 0);
    let head = format!("5:{}", now.json()["headHash"].as_str().unwrap());
    assert_eq!(
        text.stdout,
        format!(
            "VERIFIED log {}\n  records   5, sequences 1 to 5\n  gaps      0, missing events 0\n  head      {head}\n",
            now.json()["logId"].as_str().unwrap()
        )
    );
    assert_eq!(ran(&["--expect-head", &head]).code, 0);
    let wrong = ran(&["--expect-head", &kept.replacen("3:", "4:", 1), "--output", "json"]);
    assert_eq!((wrong.code, &wrong.json()["bad"]["sequence"]), (1, &4.into()));
    let later = ran(&["--expect-head", &kept.replacen("3:", "6:", 1)]);
    assert_eq!(later.code, 1);
    assert!(later.stdout.contains("record 6: removed: the chain ends at record 5"), "{}", later.stdout);
    assert_eq!(server.end("TERM"), Some(0));
    for (args, code, stdout) in asked {
        let mut all = vec!["audit", "verify"];
        all.extend(args.iter().map(String::as_str));
        let offline = place.run(&all);
        assert_eq!((offline.code, found(&offline.stdout)), (code, found(&stdout)), "{args:?}");
    }
}

/// What was found, without what only one of the two ways knows: what was acknowledged, and what to do.
fn found(output: &str) -> Vec<&str> {
    let differs = |line: &&str| {
        ["known ", "next ", "\"acknowledged\":", "\"nextStep\":"]
            .iter()
            .any(|start| line.trim_start().starts_with(start))
    };
    output.lines().filter(|line| !differs(line)).collect()
}

/// What a start checks is the end of the log, so a server may have a bad record before that.
#[test]
fn what_is_good_before_a_bad_record_is_handed_on_and_counted() {
    let place = place();
    with_log(
        &place,
        |_| {},
        async |log| {
            for _ in 0..1200 {
                log.enqueue(event(AuditEventKind::Denial, MCP));
            }
            log.append_durable(event(AuditEventKind::Expansion, MCP)).await.unwrap();
        },
    );
    change_record(&place.0.path().join(".scopeward"), 53, |content| content.fill(0));
    let server = Server::start(&place);
    let ran = server.ask(&place, &["audit", "verify", "--output", "json"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    let report = ran.json();
    assert_eq!((&report["bad"]["sequence"], &report["records"]), (&53.into(), &52.into()));
    let ran = server.ask(&place, &["audit", "tail", "--output", "json", "--cursor-file", "cursor"]);
    assert_eq!(ran.code, 2);
    assert_eq!(sequences(&ran.stdout), (1..=52).collect::<Vec<_>>());
    assert!(ran.stderr.contains("the audit log is damaged at sequence 53"), "{}", ran.stderr);
}

#[test]
fn verify_names_a_record_in_which_one_byte_was_changed() {
    let place = filled(5);
    let flip = || {
        change_record(&place.0.path().join(".scopeward"), 3, |content| *content.last_mut().unwrap() ^= 1);
    };
    flip();

    let ran = place.run(&["audit", "verify"]);
    assert_eq!((ran.code, &*ran.stderr), (1, ""));
    assert!(
        ran.stdout.contains("\n  bad       record 3: content changed: it does not have the stored hash\n"),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.starts_with("BROKEN log "), "{}", ran.stdout);
    for line in ["good      2, sequences 1 to 2", "known     record 5 was the last acknowledged"] {
        assert!(ran.stdout.contains(&format!("\n  {line}\n")), "{}", ran.stdout);
    }
    let next = "scopeward serve --state-dir .scopeward --set-aside-broken-audit";
    assert!(ran.stdout.contains(next), "{}", ran.stdout);
    let ran = place.run(&["audit", "verify", "--output", "json"]);
    assert_eq!((ran.code, &ran.json()["bad"]["sequence"]), (1, &3.into()));

    flip();
    assert_eq!(place.run(&["audit", "verify"]).code, 0);
    remove_record(&place.0.path().join(".scopeward"), 2);
    let ran = place.run(&["audit", "verify"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stdout.contains("record 2: removed: the next record is 3"), "{}", ran.stdout);
}

#[test]
fn verify_takes_the_store_or_the_server_and_a_flag_before_the_environment() {
    let place = filled(1);
    let code = |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = place.command(&[&["audit", "verify"], args].concat());
        command.envs(variables.iter().copied());
        let Output { status, .. } = command.output().unwrap();
        status.code().unwrap()
    };
    let (here, nowhere) =
        (("SCOPEWARD_STATE_DIR", ".scopeward"), ("SCOPEWARD_SERVER", "http://127.217.3.9:1"));
    assert_eq!(code(&[], &[]), 0);
    assert_eq!(code(&["--state-dir", ".scopeward"], &[nowhere]), 0);
    assert_eq!(code(&["--server", nowhere.1], &[here]), 2);
    assert_eq!(code(&[], &[nowhere]), 2);
    assert_eq!(code(&[], &[here, nowhere]), 0);
    assert_eq!(code(&["--state-dir", ".scopeward", "--server", nowhere.1], &[]), 2);
    assert_eq!(code(&["--state-dir", "elsewhere"], &[]), 2);
}
