//! Hot reload: every way in which files change, and every way in which they are broken.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use scopeward::rpc::v1;
use scopeward::server::app::AppError;
use scopeward::server::reload::StartError;

use crate::service::{POLICY, Service, condition, settings};

mod storm;

fn policy(scopes: &str) -> String {
    format!("audiences:\n  https://mcp.example.com:\n    scopesSupported: [{scopes}]\n")
}

fn generation(status: &v1::PolicyStatus) -> u64 {
    status.active.as_ref().unwrap().generation
}

/// Waits for the generation and asks whether the scope is supported then.
#[track_caller]
fn serves(service: &Service, generation: u64, scope: &'static str) -> impl Future<Output = ()> {
    let seen = service.status_when("the next generation", move |status| {
        status.active.as_ref().is_some_and(|active| active.generation == generation)
    });
    async move {
        seen.await;
        let answer = service.ask(scope).await;
        assert_eq!(answer.decision(), v1::Decision::Allow, "{scope}: {answer:?}");
        assert_eq!(answer.policy.unwrap().generation, generation);
    }
}

#[tokio::test]
async fn an_edit_in_place_and_a_rename_over_are_served() {
    let service = Service::start(&policy("a")).await;
    service.write("mcp.yaml", &policy("a, b"));
    serves(&service, 2, "b").await;
    let temporary = service.folder.path().join("new");
    fs::write(&temporary, policy("a, b, c")).unwrap();
    fs::rename(&temporary, service.policies().join("mcp.yaml")).unwrap();
    serves(&service, 3, "c").await;
    // Again: the watch is on the folder, not on the file that was replaced.
    fs::write(&temporary, policy("a, b, c, d")).unwrap();
    fs::rename(&temporary, service.policies().join("mcp.yaml")).unwrap();
    serves(&service, 4, "d").await;
}

#[tokio::test]
async fn new_moved_and_deleted_files_and_folders_are_served() {
    let service = Service::start(&policy("a")).await;
    let count = |wanted: u32| {
        service.status_when("the number of audiences", move |status| status.audience_count == wanted)
    };
    let other = "audiences: {https://other.example.com: {scopesSupported: [x]}}";
    service.write("other.yml", other);
    count(2).await;
    fs::create_dir(service.policies().join("team")).unwrap();
    fs::rename(service.policies().join("other.yml"), service.policies().join("team/other.yml")).unwrap();
    service.write("team/third.yaml", "audiences: {third: {scopesSupported: [x]}}");
    count(3).await;
    service.write("team/third_test.yaml", "not: a policy");
    service.write(".hidden.yaml", "not: a policy");
    fs::remove_file(service.policies().join("team/third.yaml")).unwrap();
    count(2).await;
    fs::rename(service.policies().join("team"), service.folder.path().join("away")).unwrap();
    count(1).await;
    fs::rename(service.folder.path().join("away"), service.policies().join("back")).unwrap();
    let status = count(2).await;
    assert_eq!(condition(&status.conditions, "PolicyAccepted"), Some(("True", "PolicyAccepted")));
}

/// What the kubelet does: a new folder with a timestamp, `..data` renamed over, the old folder removed.
fn project(volume: &Path, version: u32, text: &str) {
    let folder = format!("..2026_11_21_{version:04}");
    fs::create_dir(volume.join(&folder)).unwrap();
    fs::write(volume.join(&folder).join("mcp.yaml"), text).unwrap();
    let old = fs::read_link(volume.join("..data")).ok();
    symlink(&folder, volume.join("..data_tmp")).unwrap();
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    if !volume.join("mcp.yaml").is_symlink() {
        symlink("..data/mcp.yaml", volume.join("mcp.yaml")).unwrap();
    }
    if let Some(old) = old {
        fs::remove_dir_all(volume.join(old)).unwrap();
    }
}

#[tokio::test]
async fn a_config_map_swap_is_served_every_time() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("policies")).unwrap();
    project(&folder.path().join("policies"), 0, &policy("a"));
    let settings = settings(folder.path());
    let service = Service::start_in(folder, settings).await.unwrap();
    for (version, scopes, scope) in [(1, "a, b", "b"), (2, "a, b, c", "c"), (3, "a, b, c, d", "d")] {
        project(&service.policies(), version, &policy(scopes));
        serves(&service, u64::from(version) + 1, scope).await;
    }
}

#[tokio::test]
async fn a_linked_policy_folder_is_followed_to_its_new_target() {
    let folder = tempfile::tempdir().unwrap();
    for (name, scopes) in [("one", "a"), ("two", "a, b"), ("three", "a, b, c")] {
        fs::create_dir(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join("mcp.yaml"), policy(scopes)).unwrap();
    }
    symlink("one", folder.path().join("policies")).unwrap();
    let settings = settings(folder.path());
    let service = Service::start_in(folder, settings).await.unwrap();
    for (target, generation, scope) in [("two", 2, "b"), ("three", 3, "c")] {
        let temporary = service.folder.path().join("temporary");
        symlink(target, &temporary).unwrap();
        fs::rename(&temporary, service.policies()).unwrap();
        serves(&service, generation, scope).await;
    }
    fs::write(service.folder.path().join("three/mcp.yaml"), policy("a, b, c, d")).unwrap();
    serves(&service, 4, "d").await;
}

#[tokio::test]
async fn a_vanished_folder_leaves_the_last_good_set_and_recovers() {
    let service = Service::start(&policy("a")).await;
    fs::rename(service.policies(), service.folder.path().join("away")).unwrap();
    let status = service
        .status_when("the source is missing", |status| {
            condition(&status.conditions, "PolicyAccepted") == Some(("False", "PolicySourceMissing"))
        })
        .await;
    assert_eq!(condition(&status.conditions, "Ready"), Some(("True", "PolicyLoaded")));
    assert_eq!(service.ask("a").await.decision(), v1::Decision::Allow);
    assert_eq!(service.get("/readyz").await.0, 200);
    // Deleted and made again, with other content.
    fs::create_dir(service.policies()).unwrap();
    service.write("mcp.yaml", &policy("a, b"));
    serves(&service, 2, "b").await;
}

#[tokio::test]
async fn a_removal_is_served_after_quiet_and_a_touch_changes_nothing() {
    let service = Service::start(&policy("a, b")).await;
    service.write("other.yaml", "audiences: {other: {scopesSupported: [x]}}");
    service.status_when("two audiences", |status| status.audience_count == 2).await;
    let before = service.status().await;
    let temporary = service.folder.path().join("same");
    fs::write(&temporary, policy("a, b")).unwrap();
    fs::rename(&temporary, service.policies().join("mcp.yaml")).unwrap();
    fs::remove_file(service.policies().join("other.yaml")).unwrap();
    let after = service.status_when("one audience", |status| status.audience_count == 1).await;
    assert_eq!(generation(&after), generation(&before) + 1, "the touch made no generation");
    let moved = |status: &v1::PolicyStatus| {
        status.conditions.iter().map(|condition| condition.last_transition_time).collect::<Vec<_>>()
    };
    assert_eq!(moved(&before), moved(&after), "no condition changed its status");
}

#[tokio::test]
async fn a_rescan_finds_changes_without_events() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("policies")).unwrap();
    fs::write(folder.path().join("policies/mcp.yaml"), policy("a")).unwrap();
    let mut settings = settings(folder.path());
    // No event comes through in the time of the test.
    settings.debounce = Duration::from_secs(3600);
    settings.rescan_interval = Duration::from_millis(300);
    let service = Service::start_in(folder, settings).await.unwrap();
    service.write("mcp.yaml", &policy("a, b"));
    serves(&service, 2, "b").await;
}

#[tokio::test]
async fn sighup_looks_at_once() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("policies")).unwrap();
    fs::write(folder.path().join("policies/mcp.yaml"), policy("a")).unwrap();
    // Neither an event nor a rescan comes through in the time of the test.
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_scopeward"))
        .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .args(["--debounce", "1h", "--rescan-interval", "1h"])
        .arg("--policies")
        .arg(folder.path().join("policies"))
        .arg("--state-dir")
        .arg(folder.path().join("state"))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut ready)
        .unwrap();
    assert!(ready.contains("ready"), "{ready}");
    fs::write(folder.path().join("policies/mcp.yaml"), policy("a, b")).unwrap();
    let hangup = std::process::Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap();
    // The log says what is served.
    let log = std::io::BufReader::new(child.stderr.take().unwrap());
    let seen = tokio::task::spawn_blocking(move || {
        std::io::BufRead::lines(log).map_while(Result::ok).any(|line| line.contains("generation=2"))
    });
    let seen = tokio::time::timeout(crate::service::DEADLINE, seen).await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(hangup.success());
    assert!(
        seen.expect("the second generation serves in time").unwrap(),
        "the log tells of a second generation"
    );
}

/// Every kind of broken edit: what is written, and the code of the finding that must be there.
const BROKEN: [(&str, &str); 7] = [
    ("audiences: [", "YamlSyntax"),
    ("audiences: {a: {scopesSupported: [x], colour: red}}", "UnknownKey"),
    (
        "audiences: {a: {scopesSupported: [openid], baselineClientScopes: [offline_access]}}",
        "BaselineScopeNotSupported",
    ),
    (
        "audiences: {a: {scopesSupported: [x], baselineClientScopes: [x], privilegedScopes: [x]}}",
        "BaselineScopePrivileged",
    ),
    ("audiences: {HTTPS://MCP.example.com/: {scopesSupported: [x]}}", "DuplicateAudience"),
    ("audiences: {a: {scopesSupported: [null]}}", "WrongType"),
    ("defaultAudience: nowhere", "DefaultAudienceNotDeclared"),
];

#[tokio::test]
async fn a_broken_edit_leaves_the_last_good_set_and_says_so_everywhere() {
    let service = Service::start(POLICY).await;
    for (text, code) in BROKEN {
        service.write("broken.yaml", text);
        let status = service
            .status_when("the finding", |status| {
                let attempt = status.last_attempt.as_ref().unwrap();
                !attempt.accepted && attempt.findings.iter().any(|finding| finding.code == code)
            })
            .await;
        let finding = &status.last_attempt.as_ref().unwrap().findings[0];
        // Of two declarations the first in the order of the files stands, and the other is the finding.
        let (file, line) = if code == "DuplicateAudience" { ("mcp.yaml", 2) } else { ("broken.yaml", 1) };
        assert!(finding.file.ends_with(file) && finding.line == line, "{finding:?}");
        assert_eq!(
            condition(&status.conditions, "PolicyAccepted"),
            Some(("False", "PolicyRejected")),
            "{code}"
        );
        assert_eq!(
            condition(&status.conditions, "ServingLastGood"),
            Some(("True", "PolicyNotAccepted")),
            "{code}"
        );
        if code.starts_with("Baseline") {
            assert_eq!(condition(&status.conditions, "BaselineScopesValid"), Some(("False", code)), "{code}");
        }
        let accepted =
            status.conditions.iter().find(|condition| condition.r#type == "PolicyAccepted").unwrap();
        assert!(accepted.message.contains("the next restart would fail"), "{}", accepted.message);

        assert_eq!(service.ask("openid offline_access").await.decision(), v1::Decision::Allow);
        assert_eq!(service.get("/livez").await.0, 200);
        assert_eq!(service.get("/readyz").await.0, 200, "a bad new policy leaves readiness true");
        let (_, verbose) = service.get("/readyz?verbose").await;
        assert!(verbose.contains(&accepted.message), "equal words: {verbose}");
        let (_, json) = service.get("/status.json").await;
        assert!(json.contains(code), "{json}");
        assert_eq!(service.metric("scopeward_policy_last_reload_successful ").await, Some(0.0));
        let line = "scopeward_condition{type=\"PolicyAccepted\",status=\"False\"} ";
        assert_eq!(service.metric(line).await, Some(1.0));

        // A restart would not come up.
        let refused = Service::start_in(tempfile::tempdir().unwrap(), {
            let mut other = settings(service.folder.path());
            other.state_dir = service.folder.path().join("other-state");
            other
        });
        match refused.await {
            Err(AppError::Policy(StartError::Invalid { findings, .. })) => {
                assert!(findings.iter().any(|finding| finding.code.as_str() == code));
            }
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("{code}: the restart came up"),
        }
    }
    fs::remove_file(service.policies().join("broken.yaml")).unwrap();
    let status = service
        .status_when("going back", |status| {
            condition(&status.conditions, "PolicyAccepted") == Some(("True", "PolicyAccepted"))
        })
        .await;
    assert_eq!(generation(&status), 1, "going back to what serves is no new generation");
    let findings = status.last_attempt.unwrap().findings;
    assert!(findings.iter().all(|finding| finding.severity == "warning"), "{findings:?}");
    assert_eq!(service.metric("scopeward_policy_reloads_total{result=\"accepted\"} ").await, Some(1.0));
}

#[tokio::test]
async fn unreadable_files_and_an_empty_folder_are_broken_edits_too() {
    let service = Service::start(POLICY).await;
    let path = service.policies().join("odd.yaml");
    for (make, code) in [
        (Box::new(|path: &Path| fs::write(path, [0x61, 0xFF]).unwrap()) as Box<dyn Fn(&Path)>, "FileNotUtf8"),
        (Box::new(|path: &Path| fs::create_dir(path).unwrap()), "FileNotRegular"),
        (Box::new(|path: &Path| symlink("nowhere", path).unwrap()), "FileUnreadable"),
    ] {
        make(&path);
        service
            .status_when(code, |status| {
                let findings = &status.last_attempt.as_ref().unwrap().findings;
                findings.iter().any(|finding| finding.code == code)
            })
            .await;
        assert_eq!(service.ask("openid").await.decision(), v1::Decision::Allow);
        if path.is_dir() { fs::remove_dir(&path).unwrap() } else { fs::remove_file(&path).unwrap() }
    }
    fs::remove_file(service.policies().join("mcp.yaml")).unwrap();
    service
        .status_when("the empty folder", |status| {
            let findings = &status.last_attempt.as_ref().unwrap().findings;
            findings.iter().any(|finding| finding.code == "NoAudience")
        })
        .await;
    assert_eq!(service.ask("openid").await.decision(), v1::Decision::Allow);
}

#[tokio::test]
async fn a_start_from_last_good_serves_it_and_says_so() {
    let service = Service::start(POLICY).await;
    let digest = service.status().await.active.unwrap().digest;
    let folder = service.stop().await;
    fs::write(folder.path().join("policies/mcp.yaml"), "audiences: [").unwrap();
    let mut settings = settings(folder.path());
    settings.start_from_last_good = true;
    let service = Service::start_in(folder, settings).await.unwrap();
    let status = service.status().await;
    assert_eq!(status.active.as_ref().unwrap().digest, digest);
    assert_eq!(condition(&status.conditions, "ServingLastGood"), Some(("True", "PolicyNotAccepted")));
    assert_eq!(condition(&status.conditions, "PolicyAccepted"), Some(("False", "PolicyRejected")));
    assert_eq!(service.ask("openid offline_access").await.decision(), v1::Decision::Allow);
    service.write("mcp.yaml", POLICY);
    let status = service
        .status_when("mended", |status| {
            condition(&status.conditions, "PolicyAccepted") == Some(("True", "PolicyAccepted"))
        })
        .await;
    assert_eq!(condition(&status.conditions, "ServingLastGood"), None);
    // A damaged copy is no policy.
    let folder = service.stop().await;
    fs::write(folder.path().join("policies/mcp.yaml"), "audiences: [").unwrap();
    fs::write(folder.path().join("state/last-good.json"), "{}").unwrap();
    let mut settings = crate::service::settings(folder.path());
    settings.start_from_last_good = true;
    match Service::start_in(folder, settings).await {
        Err(AppError::Policy(StartError::NoLastGood { .. })) => {}
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("a damaged copy came up"),
    }
}

/// Waits for something outside of the service.
async fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = std::time::Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < crate::service::DEADLINE, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_last_good_policy_that_could_not_be_saved_is_saved_later() {
    let service = Service::start(&policy("a")).await;
    // Stands in for a full disk: the file that is written first cannot be made.
    let state = service.folder.path().join("state");
    let in_the_way = state.join("last-good.json.new");
    // The first set is written while it serves already.
    let digest = service.status().await.active.unwrap().digest;
    let before = wait_for("the first copy", || {
        fs::read_to_string(state.join("last-good.json")).ok().filter(|text| text.contains(&digest))
    })
    .await;
    wait_for("nothing to be in the way", || fs::create_dir(&in_the_way).ok()).await;
    service.write("mcp.yaml", &policy("a, b"));
    let failing = service
        .status_when("the condition", |status| condition(&status.conditions, "LastGoodNotSaved").is_some())
        .await;
    assert_eq!(condition(&failing.conditions, "LastGoodNotSaved"), Some(("True", "WriteFailed")));
    assert_eq!(generation(&failing), 2, "the edit is served all the same");
    assert_eq!(fs::read_to_string(state.join("last-good.json")).unwrap(), before);
    fs::remove_dir(&in_the_way).unwrap();
    let saved = service
        .status_when("saved", |status| condition(&status.conditions, "LastGoodNotSaved").is_none())
        .await;
    let digest = saved.active.unwrap().digest;
    assert!(fs::read_to_string(state.join("last-good.json")).unwrap().contains(&digest));
}

#[tokio::test]
async fn the_audit_says_what_a_policy_change_changed() {
    use scopeward::rpc::v1::audit_service_client::AuditServiceClient;
    use scopeward::rpc::v1::stream_audit_events_response::Message;
    let service = Service::start(&policy("a")).await;
    service.write("mcp.yaml", &policy("a, b"));
    serves(&service, 2, "b").await;
    let request = v1::StreamAuditEventsRequest {
        kinds: vec![v1::AuditEventKind::PolicyChange.into()],
        follow: true,
        ..Default::default()
    };
    let mut stream = AuditServiceClient::new(service.channel.clone())
        .stream_audit_events(request)
        .await
        .unwrap()
        .into_inner();
    let mut changes = Vec::new();
    while changes.len() < 2 {
        let next = tokio::time::timeout(crate::service::DEADLINE, stream.message()).await.unwrap();
        if let Some(Message::Event(event)) = next.unwrap().unwrap().message {
            changes.push(event.policy_change.unwrap());
        }
    }
    assert_eq!(
        (changes[0].accepted, changes[0].change_count),
        (true, 0),
        "the first set has nothing to differ from"
    );
    assert!(changes[1].changes[0].contains("scopesSupported +b"), "{changes:?}");
    assert_eq!((changes[1].change_count, changes[1].widening_count), (1, 1));
}

#[tokio::test]
async fn a_recovery_leaves_an_event_and_conditions_that_are_over_are_0() {
    use scopeward::rpc::v1::audit_service_client::AuditServiceClient;
    use scopeward::rpc::v1::stream_audit_events_response::Message;
    let service = Service::start(&policy("openid")).await;
    let last_good = "scopeward_condition{type=\"ServingLastGood\",status=\"True\"} ";
    assert_eq!(service.metric(last_good).await, Some(0.0), "from the start");
    service.write("mcp.yaml", "audiences: [");
    let is_rejected = |status: &v1::PolicyStatus| condition(&status.conditions, "ServingLastGood").is_some();
    service.status_when("the rejection", is_rejected).await;
    assert_eq!(service.metric(last_good).await, Some(1.0));
    service.write("mcp.yaml", &policy("openid"));
    service.status_when("the recovery", move |status| !is_rejected(status)).await;
    assert_eq!(service.metric(last_good).await, Some(0.0));
    let request = v1::StreamAuditEventsRequest {
        kinds: vec![v1::AuditEventKind::PolicyChange.into()],
        follow: true,
        ..Default::default()
    };
    let mut client = AuditServiceClient::new(service.channel.clone());
    let mut stream = client.stream_audit_events(request).await.unwrap().into_inner();
    let mut changes = Vec::new();
    while changes.len() < 3 {
        let next = tokio::time::timeout(crate::service::DEADLINE, stream.message()).await.unwrap();
        if let Some(Message::Event(event)) = next.unwrap().unwrap().message {
            let change = event.policy_change.unwrap();
            let is_same = event.policy.unwrap().digest == change.previous_digest;
            changes.push((change.accepted, change.change_count, is_same));
        }
    }
    assert_eq!(changes, [(true, 0, false), (false, 0, true), (true, 0, true)]);
}

#[tokio::test]
async fn a_removal_that_waits_is_in_the_status_with_its_end() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("policies")).unwrap();
    fs::write(folder.path().join("policies/mcp.yaml"), policy("a, b")).unwrap();
    let mut settings = settings(folder.path());
    settings.removal_quiet = Duration::from_secs(3600);
    let service = Service::start_in(folder, settings).await.unwrap();
    service.write("mcp.yaml", &policy("a"));
    let is_waiting =
        |status: &v1::PolicyStatus| condition(&status.conditions, "PolicyRemovalWaiting").is_some();
    let status = service.status_when("the removal waits", is_waiting).await;
    let waiting =
        status.conditions.iter().find(|condition| condition.r#type == "PolicyRemovalWaiting").unwrap();
    assert!(waiting.message.contains("remove something that serves; they are served at 2"), "{waiting:?}");
    assert_eq!(generation(&status), 1);
    service.write("mcp.yaml", &policy("a, b"));
    service.status_when("nothing is removed", move |status| !is_waiting(status)).await;
}

#[tokio::test]
async fn a_link_out_of_the_directory_is_a_finding_and_shows_nothing_of_its_target() {
    const SECRET: &str = "hunter2";
    for allowed in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("policies")).unwrap();
        fs::write(folder.path().join("policies/mcp.yaml"), POLICY).unwrap();
        fs::write(folder.path().join("shadow"), format!("root:{SECRET}:19000\n{SECRET}: [")).unwrap();
        let mut settings = settings(folder.path());
        settings.allow_outside_links = allowed;
        let service = Service::start_in(folder, settings).await.unwrap();
        symlink(service.folder.path().join("shadow"), service.policies().join("link.yaml")).unwrap();
        let code = if allowed { "YamlSyntax" } else { "LinkLeadsOutside" };
        let status = service
            .status_when(code, move |status| {
                let findings = &status.last_attempt.as_ref().unwrap().findings;
                findings.iter().any(|finding| finding.code == code)
            })
            .await;
        assert!(!format!("{status:?}").contains(SECRET), "{status:?}");
        let (_, json) = service.get("/status.json").await;
        assert!(json.contains(code) && !json.contains(SECRET), "{json}");
        // No later edit is lost because of it.
        fs::remove_file(service.policies().join("link.yaml")).unwrap();
        service.write("mcp.yaml", &policy("a, b, openid, offline_access"));
        service.status_when("the edit", |status| generation(status) == 2).await;
    }
}

#[tokio::test]
async fn a_file_of_proc_is_a_finding_and_edits_are_still_seen() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("policies")).unwrap();
    fs::write(folder.path().join("policies/mcp.yaml"), policy("a")).unwrap();
    let mut settings = settings(folder.path());
    settings.allow_outside_links = true;
    let service = Service::start_in(folder, settings.clone()).await.unwrap();
    symlink("/proc/self/limits", service.policies().join("proc.yaml")).unwrap();
    service
        .status_when("the finding", |status| {
            let findings = &status.last_attempt.as_ref().unwrap().findings;
            findings.iter().any(|finding| finding.code == "FileSizeMismatch")
        })
        .await;
    service.write("more.yaml", "audiences: [");
    service
        .status_when("two findings", |status| status.last_attempt.as_ref().unwrap().finding_count == 2)
        .await;
    // And the last good set starts whatever the directory is.
    let folder = service.stop().await;
    settings.start_from_last_good = true;
    let service = Service::start_in(folder, settings).await.unwrap();
    assert_eq!(
        condition(&service.status().await.conditions, "ServingLastGood").map(|found| found.0),
        Some("True")
    );
    fs::remove_file(service.policies().join("proc.yaml")).unwrap();
    service.write("more.yaml", "audiences: {other: {scopesSupported: [x]}}");
    service.status_when("the edit", |status| status.audience_count == 2).await;
}

/// The soft limit of open files of a process, from outside of it.
fn limit_files(pid: u32, limit: &str) {
    let set = std::process::Command::new("prlimit")
        .args(["--pid", &pid.to_string(), &format!("--nofile={limit}:")])
        .status()
        .unwrap();
    assert!(set.success());
}

#[tokio::test]
async fn out_of_file_descriptors_is_no_verdict_about_the_policy() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("policies")).unwrap();
    fs::write(folder.path().join("policies/mcp.yaml"), policy("a")).unwrap();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_scopeward"))
        .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .args(["--debounce", "20ms", "--rescan-interval", "1h"])
        .arg("--policies")
        .arg(folder.path().join("policies"))
        .arg("--state-dir")
        .arg(folder.path().join("state"))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut ready)
        .unwrap();
    assert!(ready.contains("ready"), "{ready}");
    let log = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut lines = std::io::BufRead::lines(log).map_while(Result::ok);
    // Nothing can be opened any more.
    limit_files(child.id(), "3");
    fs::write(folder.path().join("policies/mcp.yaml"), policy("a, b")).unwrap();
    let id = child.id();
    let seen = tokio::task::spawn_blocking(move || {
        let mut seen = Vec::new();
        for line in lines.by_ref() {
            // After five seconds the log says so; then there are descriptors again.
            if line.contains("reason=\"ReadsFail\"") {
                limit_files(id, "1024");
            }
            let is_served = line.contains("generation=2");
            seen.push(line);
            if is_served {
                break;
            }
        }
        seen
    });
    let seen = tokio::time::timeout(crate::service::DEADLINE, seen).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let seen = seen.expect("the edit is served in time").unwrap();
    let all = seen.join("\n");
    assert!(all.contains("ReadsFail") && all.contains("generation=2"), "{all}");
    assert!(!all.contains("policy rejected"), "{all}");
}
