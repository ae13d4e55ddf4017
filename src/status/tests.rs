//! The conditions against the truth table of Kubernetes, and the tracker through its life.

use std::time::Duration;

use super::*;
use crate::policy::check::check;
use crate::policy::document::Document;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn condition(status: ConditionStatus, reason: &'static str, message: &str, time: u64) -> Condition {
    Condition {
        kind: "Ready",
        status,
        reason,
        message: message.to_owned(),
        observed_generation: 1,
        last_transition_time: at(time),
    }
}

// The truth table of `SetStatusCondition` in k8s.io/apimachinery/pkg/api/meta: what each kind of
// difference does to the transition time and to the answer "did it change".
#[test]
fn conditions_change_as_in_kubernetes() {
    use ConditionStatus::{False, True, Unknown};
    let old = condition(False, "Old", "old", 10);
    let cases = [
        ("nothing differs", condition(False, "Old", "old", 20), false, 10),
        ("reason differs", condition(False, "New", "old", 20), true, 10),
        ("message differs", condition(False, "Old", "new", 20), true, 10),
        (
            "generation differs",
            Condition { observed_generation: 2, ..condition(False, "Old", "old", 20) },
            true,
            10,
        ),
        ("status turns True", condition(True, "Old", "old", 20), true, 20),
        ("status turns Unknown", condition(Unknown, "New", "new", 20), true, 20),
    ];
    for (name, new, changed, time) in cases {
        let mut conditions = vec![old.clone()];
        assert_eq!(set_condition(&mut conditions, new.clone()), changed, "{name}");
        let expected = Condition { last_transition_time: at(time), ..new };
        assert_eq!(conditions, [expected], "{name}");
    }
    let mut conditions = Vec::new();
    assert!(set_condition(&mut conditions, old.clone()), "a new type is appended");
    assert_eq!(conditions, std::slice::from_ref(&old));
    let other = Condition { kind: "Other", ..old };
    assert!(set_condition(&mut conditions, other.clone()));
    assert_eq!(conditions.len(), 2);
    assert!(remove_condition(&mut conditions, "Ready"));
    assert!(!remove_condition(&mut conditions, "Ready"));
    assert_eq!(conditions, [other]);
}

// metav1.Condition: `type` is a qualified name, `reason` matches ^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$.
#[test]
fn types_and_reasons_fit_the_published_patterns() {
    let tracker = tracker();
    let mut seen = Vec::new();
    let mut look = |tracker: &StatusTracker| {
        let snapshot = tracker.snapshot();
        seen.extend(snapshot.conditions.clone());
        seen.extend(snapshot.audience_statuses.iter().flat_map(|status| status.conditions.clone()));
    };
    look(&tracker);
    serve(&tracker, GOOD, 1, 10);
    look(&tracker);
    for text in [BAD_BASELINE, "audiences: ["] {
        reject(&tracker, text, 20);
        look(&tracker);
    }
    attempt(&tracker, LoadOutcome::Missing { reason: "gone".to_owned() }, 30);
    tracker.toggle(kind::AUDIT_DEGRADED, Some(("AuditAppendFailed", "disk full".to_owned())), at(30));
    tracker.drain(at(40));
    look(&tracker);
    assert!(seen.len() > 20);
    for condition in seen {
        let alphanumeric = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        assert!(
            condition_type::has_reason(condition.kind, condition.reason) && alphanumeric(condition.kind),
            "{condition:?}"
        );
        assert!(alphanumeric(condition.reason), "{condition:?}");
        assert!(condition.reason.starts_with(|first: char| first.is_ascii_uppercase()), "{condition:?}");
        assert!(!condition.message.is_empty() && condition.message.len() <= 32768, "{condition:?}");
    }
}

const GOOD: &str = "audiences: {one: {scopesSupported: [a, b]}, two: {scopesSupported: [a]}}";
const BAD_BASELINE: &str = "audiences: {one: {scopesSupported: [a], baselineClientScopes: [offline_access]}, two: {scopesSupported: [a]}}";

fn tracker() -> StatusTracker {
    StatusTracker::new("policies".into(), false, at(0))
}

fn read(text: &str) -> Result<crate::policy::check::Accepted, Findings> {
    let file: Arc<str> = "policies/a.yaml".into();
    check(&file, &[Document::read(&file, text)])
}

fn serve(tracker: &StatusTracker, text: &str, generation: u64, time: u64) {
    let set = read(text).unwrap().set;
    let serving = Serving {
        generation,
        digest: set.digest().to_string(),
        load_time: at(time),
        audiences: Arc::clone(set.audiences()),
    };
    let attempt = Some(LoadOutcome::Accepted { warnings: Findings::new() });
    tracker.apply(
        PolicyStatusChange { serving: Some(serving), attempt, trouble: None, removal_waits_until: None },
        at(time),
    );
}

fn attempt(tracker: &StatusTracker, outcome: LoadOutcome, time: u64) {
    let serving = tracker.snapshot().serving.clone();
    tracker.apply(
        PolicyStatusChange { serving, attempt: Some(outcome), trouble: None, removal_waits_until: None },
        at(time),
    );
}

fn reject(tracker: &StatusTracker, text: &str, time: u64) {
    let findings = read(text).unwrap_err();
    attempt(tracker, LoadOutcome::Rejected { findings, digest: "sha256:00".to_owned() }, time);
}

#[test]
fn a_policy_accepted_while_draining_does_not_make_it_ready() {
    let tracker = tracker();
    serve(&tracker, GOOD, 1, 10);
    tracker.drain(at(20));
    serve(&tracker, BASE_CHANGED, 2, 30);
    assert!(!tracker.is_ready());
    is(&tracker.snapshot().conditions, kind::READY, ConditionStatus::False, "Draining", 20);
}

const BASE_CHANGED: &str = "audiences: {one: {scopesSupported: [a, b, c]}}";

#[track_caller]
fn is(conditions: &[Condition], kind: &str, status: ConditionStatus, reason: &str, since: u64) {
    let found = conditions.iter().find(|condition| condition.kind == kind);
    let found = found.unwrap_or_else(|| panic!("{kind} is not there"));
    assert_eq!(
        (found.status, found.reason, found.last_transition_time),
        (status, reason, at(since)),
        "{kind}"
    );
}

#[test]
fn a_bad_baseline_is_false_with_its_reason_and_goes_back() {
    use ConditionStatus::{False, True, Unknown};
    let tracker = tracker();
    serve(&tracker, GOOD, 1, 10);
    let before = tracker.snapshot();
    is(&before.conditions, kind::READY, True, "PolicyLoaded", 10);
    is(&before.conditions, kind::BASELINE_SCOPES_VALID, True, "BaselineScopesSupported", 10);

    reject(&tracker, BAD_BASELINE, 20);
    let now = tracker.snapshot();
    is(&now.conditions, kind::READY, True, "PolicyLoaded", 10);
    is(&now.conditions, kind::POLICY_ACCEPTED, False, "PolicyRejected", 20);
    is(&now.conditions, kind::BASELINE_SCOPES_VALID, False, "BaselineScopeNotSupported", 20);
    is(&now.conditions, kind::SERVING_LAST_GOOD, True, "PolicyNotAccepted", 20);
    let message =
        |kind: &str| now.conditions.iter().find(|condition| condition.kind == kind).unwrap().message.clone();
    assert!(message(kind::BASELINE_SCOPES_VALID).contains("`offline_access` at one"));
    assert!(message(kind::POLICY_ACCEPTED).contains("the next restart would fail"));
    assert!(message(kind::POLICY_ACCEPTED).contains("policies/a.yaml:1:"));
    assert_eq!(now.audience_statuses[0].audience, "one", "those in trouble come first");
    is(
        &now.audience_statuses[0].conditions,
        kind::BASELINE_SCOPES_VALID,
        False,
        "BaselineScopeNotSupported",
        20,
    );
    is(&now.audience_statuses[0].conditions, kind::READY, True, "PolicyLoaded", 10);
    is(
        &now.audience_statuses[1].conditions,
        kind::BASELINE_SCOPES_VALID,
        True,
        "BaselineScopesSupported",
        10,
    );
    is(&now.audience_statuses[1].conditions, kind::POLICY_ACCEPTED, Unknown, "PolicyNotAccepted", 20);
    assert_eq!(now.last_attempt.as_ref().unwrap().finding_count, 1);

    reject(&tracker, BAD_BASELINE, 25);
    is(&tracker.snapshot().conditions, kind::POLICY_ACCEPTED, False, "PolicyRejected", 20);

    attempt(&tracker, LoadOutcome::Accepted { warnings: Findings::new() }, 30);
    let after = tracker.snapshot();
    is(&after.conditions, kind::POLICY_ACCEPTED, True, "PolicyAccepted", 30);
    assert!(after.conditions.iter().all(|condition| condition.kind != kind::SERVING_LAST_GOOD));
    is(
        &after.audience_statuses[0].conditions,
        kind::BASELINE_SCOPES_VALID,
        True,
        "BaselineScopesSupported",
        30,
    );
}

#[test]
fn what_cannot_be_read_leaves_the_baseline_unknown() {
    let tracker = tracker();
    serve(&tracker, GOOD, 1, 10);
    reject(&tracker, "audiences: [", 20);
    let conditions = tracker.snapshot().conditions.clone();
    is(&conditions, kind::BASELINE_SCOPES_VALID, ConditionStatus::Unknown, "PolicyNotReadable", 20);
    attempt(&tracker, LoadOutcome::Missing { reason: "cannot read `policies`".to_owned() }, 30);
    let conditions = tracker.snapshot().conditions.clone();
    is(&conditions, kind::POLICY_ACCEPTED, ConditionStatus::False, "PolicySourceMissing", 20);
}

#[test]
fn lists_are_bounded_and_counted() {
    let tracker = tracker();
    let audiences: Vec<String> =
        (0..1500).map(|n| format!("a{n}: {{scopesSupported: [x], baselineClientScopes: [y]}}")).collect();
    serve(&tracker, GOOD, 1, 10);
    reject(&tracker, &format!("audiences: {{{}}}", audiences.join(", ")), 20);
    let snapshot = tracker.snapshot();
    let attempt = snapshot.last_attempt.as_ref().unwrap();
    assert_eq!((attempt.findings.len(), attempt.finding_count), (1000, 1500));
    assert_eq!(
        (snapshot.audience_statuses.len(), snapshot.audience_status_count),
        (1000, 1002),
        "those of the findings that are kept, and the two that serve"
    );
}

#[test]
fn whoever_knows_some_audiences_sees_those_however_many_others_there_are() {
    let tracker = tracker();
    let others = |baseline: &str| {
        let one = |n| format!("a{n}: {{scopesSupported: [x], baselineClientScopes: [{baseline}]}}");
        (0..1500).map(one).collect::<Vec<_>>().join(", ")
    };
    let policy = |baseline, own| {
        format!("audiences: {{{}, z: {{scopesSupported: [{own}], aliases: [z-alias]}}}}", others(baseline))
    };
    serve(&tracker, &policy("x", "x"), 1, 10);
    let own = |names: &[&str]| {
        let names: Vec<Box<str>> = names.iter().map(|name| (*name).into()).collect();
        tracker.snapshot_of(&names)
    };
    let seen = |snapshot: &Snapshot| {
        let names: Vec<_> = snapshot.audience_statuses.iter().map(|status| status.audience.clone()).collect();
        (names, snapshot.audience_status_count, snapshot.serving.as_ref().unwrap().audiences.len())
    };
    let listed =
        |name: &str| tracker.snapshot().audience_statuses.iter().any(|status| status.audience == name);
    assert!(!listed("z"), "it comes after the most that are listed");
    assert_eq!(seen(&own(&["z"])), (vec!["z".to_owned()], 1, 1));
    assert_eq!(seen(&own(&["z-alias"])), (vec!["z".to_owned()], 1, 1));
    assert_eq!(seen(&own(&["z", "a3", "nowhere"])), (vec!["a3".to_owned(), "z".to_owned()], 2, 2));
    assert_eq!(seen(&own(&[])), (vec![], 0, 0));

    // Those in trouble are first, and findings of others are neither shown nor counted.
    reject(&tracker, &policy("x", "\"a b\""), 20);
    let snapshot = own(&["a3", "z-alias"]);
    assert_eq!(seen(&snapshot), (vec!["z".to_owned(), "a3".to_owned()], 2, 2));
    is(
        &snapshot.audience_statuses[0].conditions,
        kind::POLICY_ACCEPTED,
        ConditionStatus::False,
        "PolicyRejected",
        20,
    );
    assert_eq!(snapshot.last_attempt.unwrap().finding_count, 1);
    reject(&tracker, &policy("y", "x"), 30);
    let snapshot = own(&["z"]);
    is(
        &snapshot.audience_statuses[0].conditions,
        kind::POLICY_ACCEPTED,
        ConditionStatus::Unknown,
        "PolicyNotAccepted",
        30,
    );
    let attempt = snapshot.last_attempt.unwrap();
    assert_eq!((attempt.findings.len(), attempt.finding_count), (0, 0));
}

#[test]
fn watchers_are_woken_by_changes_only() {
    let tracker = tracker();
    let mut changes = tracker.watch();
    tracker.toggle(kind::AUDIT_DEGRADED, None, at(1));
    assert!(!changes.has_changed().unwrap());
    tracker.toggle(kind::AUDIT_DEGRADED, Some(("AuditAppendFailed", "full".to_owned())), at(2));
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    tracker.toggle(kind::AUDIT_DEGRADED, Some(("AuditAppendFailed", "full".to_owned())), at(3));
    assert!(!changes.has_changed().unwrap());
    assert!(!tracker.is_ready());
    serve(&tracker, GOOD, 1, 10);
    assert!(tracker.is_ready());
    tracker.drain(at(20));
    assert!(!tracker.is_ready());
}

#[test]
fn an_audience_that_came_later_is_healthy_since_then() {
    let tracker = tracker();
    serve(&tracker, "audiences: {one: {scopesSupported: [a]}}", 1, 10);
    serve(&tracker, GOOD, 2, 20);
    let snapshot = tracker.snapshot();
    is(&snapshot.audience_statuses[0].conditions, kind::READY, ConditionStatus::True, "PolicyLoaded", 10);
    is(&snapshot.audience_statuses[1].conditions, kind::READY, ConditionStatus::True, "PolicyLoaded", 20);
}

// What serves, what became of the attempt and the trouble with the source change as one: whoever watches never sees
// a state that was not.
#[test]
fn a_change_is_one_snapshot_for_all_who_watch() {
    let tracker = tracker();
    let mut watching = tracker.watch();
    serve(&tracker, GOOD, 1, 10);
    let seen = Arc::clone(&watching.borrow_and_update());
    assert!(Arc::ptr_eq(&seen, &tracker.snapshot()), "all share it");
    assert!(seen.serving.is_some() && seen.last_attempt.is_some() && seen.is_ready());
    let serving = seen.serving.clone();
    let trouble = Some(("FilesKeepChanging", "a.yaml".to_owned()));
    tracker.apply(
        PolicyStatusChange { serving: serving.clone(), attempt: None, trouble, removal_waits_until: None },
        at(20),
    );
    is(
        &tracker.snapshot().conditions,
        kind::POLICY_SOURCE_UNSTABLE,
        ConditionStatus::True,
        "FilesKeepChanging",
        20,
    );
    is(&tracker.snapshot().conditions, kind::POLICY_ACCEPTED, ConditionStatus::True, "PolicyAccepted", 10);
    tracker.apply(
        PolicyStatusChange { serving, attempt: None, trouble: None, removal_waits_until: None },
        at(30),
    );
    let after = tracker.snapshot();
    assert!(after.conditions.iter().all(|condition| condition.kind != kind::POLICY_SOURCE_UNSTABLE));
    assert_eq!(seen.serving.as_ref().unwrap().generation, 1, "a snapshot stays as it was");
}
