//! How the state follows from what happened: which condition holds, why, and since when.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use super::condition_type::{CONDITION_TYPES, has_reason};
use super::{
    AudienceStatus, Condition, ConditionState, ConditionStatus, LastAttempt, LoadOutcome, MAX_LISTED,
    PolicyStatusChange, Serving, Snapshot, TrackedPolicy, kind, remove_condition, set_condition,
};
use crate::audience::normalise;
use crate::policy::AudiencePolicy;
use crate::policy::change::{Differing, differing};
use crate::policy::finding::{Code, Finding, Findings};

/// The state, and what is needed to know when things changed.
#[derive(Debug)]
pub(super) struct TrackedStatus {
    source: Arc<str>,
    policy: TrackedPolicy,
    serving: Option<Serving>,
    last_attempt: Option<LastAttempt>,
    /// Every audience that the newest attempt has a finding about, by spelling.
    troubled: BTreeMap<String, Vec<Finding>>,
    conditions: Vec<Condition>,
    /// Conditions of audiences that are or were in trouble, for their transition times.
    records: HashMap<String, Vec<Condition>>,
    /// When audiences began to serve that were not in the first set.
    appeared: HashMap<Box<str>, SystemTime>,
    first_load: Option<SystemTime>,
    /// Why requests are not answered although a policy serves, if so.
    held_back: Option<(&'static str, String)>,
    /// There is no way back.
    is_draining: bool,
}

impl TrackedStatus {
    pub(super) fn new(source: Arc<str>, policy: TrackedPolicy, now: SystemTime) -> Self {
        let mut state = Self {
            source,
            policy,
            serving: None,
            last_attempt: None,
            troubled: BTreeMap::new(),
            conditions: Vec::new(),
            records: HashMap::new(),
            appeared: HashMap::new(),
            first_load: None,
            held_back: None,
            is_draining: false,
        };
        state.show_ready(now);
        state
    }

    pub(super) fn apply(&mut self, change: PolicyStatusChange, now: SystemTime) {
        let PolicyStatusChange { serving, attempt, trouble, removal_waits_until } = change;
        if let Some(serving) = serving {
            self.serve(serving);
        }
        if let Some(outcome) = attempt {
            self.attempt(outcome, now);
        }
        self.toggle(kind::POLICY_SOURCE_UNSTABLE, trouble, now);
        let waiting = removal_waits_until.map(|until| {
            let message = format!(
                "the newest policy files remove something that serves; they are served at {}, unless they are written again before",
                seconds(until)
            );
            ("WaitingForQuiet", message)
        });
        self.toggle(kind::POLICY_REMOVAL_WAITING, waiting, now);
    }

    /// Returns `true` if something changed.
    pub(super) fn toggle(
        &mut self,
        kind: &'static str,
        holds: Option<(&'static str, String)>,
        now: SystemTime,
    ) -> bool {
        self.show(kind, holds.map(|(reason, message)| (ConditionStatus::True, reason, message)), now)
    }

    /// Returns `true` if something changed.
    pub(super) fn show(
        &mut self,
        kind: &'static str,
        state: Option<ConditionState>,
        now: SystemTime,
    ) -> bool {
        match state {
            Some((status, reason, message)) => self.set(kind, status, reason, message, now),
            None => remove_condition(&mut self.conditions, kind),
        }
    }

    /// Returns `true` if something changed.
    pub(super) fn drain(&mut self, now: SystemTime) -> bool {
        self.is_draining = true;
        self.show_ready(now)
    }

    /// Returns `true` if something changed.
    pub(super) fn hold_back(&mut self, why: Option<(&'static str, String)>, now: SystemTime) -> bool {
        self.held_back = why;
        self.show_ready(now)
    }

    /// Returns `true` if something changed.
    fn show_ready(&mut self, now: SystemTime) -> bool {
        let (status, reason, message) = if self.is_draining {
            (ConditionStatus::False, "Draining", "the process is shutting down".to_owned())
        } else if self.serving.is_none() {
            (ConditionStatus::False, "PolicyNotLoaded", "no policy is loaded yet".to_owned())
        } else if let Some((reason, message)) = &self.held_back {
            (ConditionStatus::False, *reason, message.clone())
        } else {
            (ConditionStatus::True, "PolicyLoaded", "requests are answered".to_owned())
        };
        self.set(kind::READY, status, reason, message, now)
    }

    fn serve(&mut self, serving: Serving) {
        let now = serving.load_time;
        self.note_audiences(&serving);
        self.serving = Some(serving);
        self.first_load.get_or_insert(now);
        self.show_ready(now);
    }

    fn generation(&self) -> u64 {
        self.serving.as_ref().map_or(0, |serving| serving.generation)
    }

    pub(super) fn set(
        &mut self,
        kind: &'static str,
        status: ConditionStatus,
        reason: &'static str,
        message: String,
        now: SystemTime,
    ) -> bool {
        debug_assert!(has_reason(kind, reason), "not in the table of conditions: {kind} {reason}");
        let observed_generation = self.generation();
        let new = Condition { kind, status, reason, message, observed_generation, last_transition_time: now };
        set_condition(&mut self.conditions, new)
    }

    /// Remembers since when audiences serve that are new in this set, and forgets those that are gone.
    fn note_audiences(&mut self, serving: &Serving) {
        let Some(before) = &self.serving else { return };
        for pair in differing(&before.audiences, &serving.audiences) {
            match pair {
                Differing::Added(new) => _ = self.appeared.insert(new.audience.clone(), serving.load_time),
                Differing::Removed(gone) => {
                    self.appeared.remove(&gone.audience);
                    self.records.remove(&*gone.audience);
                }
                Differing::Changed(..) => {}
            }
        }
    }

    fn attempt(&mut self, outcome: LoadOutcome, now: SystemTime) {
        let (what, restart) = match self.policy {
            TrackedPolicy::Serving { starts_from_last_good: true } => {
                ("serving", "the next restart would serve the last good policy")
            }
            TrackedPolicy::Serving { .. } => ("serving", "the next restart would fail"),
            TrackedPolicy::Shadow => ("being compared", "after the next restart nothing would be compared"),
        };
        let keeps = match (&self.serving, self.policy) {
            (Some(serving), _) => format!("generation {} keeps {what}; {restart}", serving.generation),
            (None, TrackedPolicy::Serving { .. }) => "nothing serves".to_owned(),
            (None, TrackedPolicy::Shadow) => "nothing is compared".to_owned(),
        };
        let (accepted, digest, mut findings) = match outcome {
            LoadOutcome::Accepted { warnings } => {
                let digest = self.serving.as_ref().map(|serving| serving.digest.clone()).unwrap_or_default();
                let message = match warnings.count() {
                    0 => "the policy files are what serves".to_owned(),
                    count => format!("the policy files are what serves; {}", counted(count, "warning")),
                };
                self.set(kind::POLICY_ACCEPTED, ConditionStatus::True, "PolicyAccepted", message, now);
                remove_condition(&mut self.conditions, kind::SERVING_LAST_GOOD);
                (true, digest, warnings)
            }
            LoadOutcome::Rejected { findings, digest } => {
                let errors = findings.error_count();
                let first =
                    findings.first_error().map(|finding| format!(", first {finding}")).unwrap_or_default();
                let message =
                    format!("the policy files are not valid: {}{first}; {keeps}", counted(errors, "error"));
                self.set(kind::POLICY_ACCEPTED, ConditionStatus::False, "PolicyRejected", message, now);
                (false, digest, findings)
            }
            LoadOutcome::Missing { reason } => {
                let message = format!("{reason}; {keeps}");
                self.set(kind::POLICY_ACCEPTED, ConditionStatus::False, "PolicySourceMissing", message, now);
                (false, String::new(), Findings::new())
            }
        };
        if !accepted && self.serving.is_some() {
            let generation = self.generation();
            let message = format!(
                "generation {generation} keeps {what}; the newest policy files are not in use; {restart}"
            );
            self.set(kind::SERVING_LAST_GOOD, ConditionStatus::True, "PolicyNotAccepted", message, now);
        }
        let missing = !accepted && findings.is_empty();
        self.judge_baseline(&findings, missing, now);

        self.troubled.clear();
        for finding in findings.iter().filter(|finding| finding.is_error() && !finding.audience.is_empty()) {
            // Under the spelling that serves, so that an audience with another spelling is not listed twice.
            let known = self.find(&finding.audience).map(|audience| audience.audience.to_string());
            let name = known.unwrap_or_else(|| finding.audience.clone());
            self.troubled.entry(name).or_default().push(finding.clone());
        }
        findings.sort_by_key(|finding| finding.severity());
        let finding_count = findings.count();
        self.last_attempt = Some(LastAttempt {
            attempt_time: now,
            accepted,
            digest,
            findings: findings.into_vec().into(),
            finding_count,
        });
        self.update_records(now);
    }

    fn judge_baseline(&mut self, findings: &[Finding], missing: bool, now: SystemTime) {
        let (status, reason, message) = match baseline_verdict(findings) {
            Some((reason, message)) => (ConditionStatus::False, reason, message),
            None if missing => {
                let message = "the policy files cannot be read".to_owned();
                (ConditionStatus::Unknown, "PolicySourceMissing", message)
            }
            None => match findings.iter().find(|finding| hides_content(finding.code)) {
                Some(finding) => {
                    let message = format!("unknown until this is fixed: {finding}");
                    (ConditionStatus::Unknown, "PolicyNotReadable", message)
                }
                None => {
                    let message =
                        "every baseline scope is supported and neither privileged nor forbidden".to_owned();
                    (ConditionStatus::True, "BaselineScopesSupported", message)
                }
            },
        };
        self.set(kind::BASELINE_SCOPES_VALID, status, reason, message, now);
    }

    /// Brings the conditions of every audience up to date that is or was in trouble.
    fn update_records(&mut self, now: SystemTime) {
        let names: Vec<String> = self.troubled.keys().chain(self.records.keys()).cloned().collect();
        for name in names {
            let active = self.find(&name).is_some();
            if !active && !self.troubled.contains_key(&name) {
                self.records.remove(&name);
                continue;
            }
            let mut conditions = match self.records.remove(&name) {
                Some(conditions) => conditions,
                // What it was before it came into trouble, so that the transition is seen as one.
                None if active => self.healthy(&name, true),
                None => Vec::new(),
            };
            for condition in self.audience_conditions(&name, active, now) {
                set_condition(&mut conditions, condition);
            }
            self.records.insert(name, conditions);
        }
    }

    fn find(&self, audience: &str) -> Option<&Arc<AudiencePolicy>> {
        let audiences = &self.serving.as_ref()?.audiences;
        let normal = normalise(audience).ok()?;
        let at = audiences.binary_search_by(|known| known.normal().cmp(&*normal)).ok()?;
        audiences.get(at)
    }

    fn accepted(&self) -> bool {
        self.last_attempt.as_ref().is_some_and(|attempt| attempt.accepted)
    }

    /// The conditions of an audience about which the newest attempt says nothing.
    fn healthy(&self, audience: &str, accepted: bool) -> Vec<Condition> {
        let since =
            self.appeared.get(audience).copied().or(self.first_load).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut conditions = self.audience_conditions(audience, true, since);
        // Whether the newest files are accepted concerns every audience, and turns with the whole.
        let whole = self.conditions.iter().find(|condition| condition.kind == kind::POLICY_ACCEPTED);
        for condition in conditions.iter_mut().filter(|condition| condition.kind == kind::POLICY_ACCEPTED) {
            condition.last_transition_time =
                whole.map_or(since, |whole| whole.last_transition_time.max(since));
        }
        if accepted {
            for condition in &mut conditions {
                condition.status = ConditionStatus::True;
            }
        }
        conditions
    }

    fn audience_conditions(&self, audience: &str, active: bool, now: SystemTime) -> Vec<Condition> {
        let findings = self.troubled.get(audience).map_or(&[][..], Vec::as_slice);
        let observed_generation = self.generation();
        let condition = |kind, status, reason, message| Condition {
            kind,
            status,
            reason,
            message,
            observed_generation,
            last_transition_time: now,
        };
        let ready = if active {
            condition(kind::READY, ConditionStatus::True, "PolicyLoaded", "requests are answered".to_owned())
        } else {
            let message = "the audience is not in the policy that serves".to_owned();
            condition(kind::READY, ConditionStatus::False, "AudienceNotServed", message)
        };
        let accepted = if let Some(first) = findings.first() {
            let message = format!("{}, first {first}", counted(findings.len(), "error"));
            condition(kind::POLICY_ACCEPTED, ConditionStatus::False, "PolicyRejected", message)
        } else if self.accepted() {
            let message = "the policy files are what serves".to_owned();
            condition(kind::POLICY_ACCEPTED, ConditionStatus::True, "PolicyAccepted", message)
        } else {
            let message =
                "the policy files are not accepted, because of something else than this audience".to_owned();
            condition(kind::POLICY_ACCEPTED, ConditionStatus::Unknown, "PolicyNotAccepted", message)
        };
        let baseline = match baseline_verdict(findings) {
            Some((reason, message)) => {
                condition(kind::BASELINE_SCOPES_VALID, ConditionStatus::False, reason, message)
            }
            None => {
                let message =
                    "every baseline scope is supported and neither privileged nor forbidden".to_owned();
                let reason = "BaselineScopesSupported";
                condition(kind::BASELINE_SCOPES_VALID, ConditionStatus::True, reason, message)
            }
        };
        vec![ready, accepted, baseline]
    }

    fn ordered(&self) -> Vec<Condition> {
        CONDITION_TYPES
            .iter()
            .filter_map(|one| self.conditions.iter().find(|condition| condition.kind == one.kind))
            .cloned()
            .collect()
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let mut audience_statuses: Vec<AudienceStatus> =
            self.troubled.keys().take(MAX_LISTED).map(|audience| self.audience_status(audience)).collect();
        let audiences = self.serving.as_ref().map(|serving| &serving.audiences);
        let quiet = audiences.iter().flat_map(|audiences| audiences.iter());
        let quiet = quiet.filter(|audience| !self.troubled.contains_key(&*audience.audience));
        let room = MAX_LISTED.saturating_sub(audience_statuses.len());
        audience_statuses.extend(quiet.take(room).map(|audience| self.audience_status(&audience.audience)));
        let is_active = |name: &&String| self.find(name).is_some_and(|known| *known.audience == ***name);
        let in_trouble_and_active = self.troubled.keys().filter(is_active).count();
        let active_count = audiences.map_or(0, |audiences| audiences.len());
        Snapshot {
            serving: self.serving.clone(),
            source: Arc::clone(&self.source),
            last_attempt: self.last_attempt.clone(),
            conditions: self.ordered(),
            audience_statuses,
            audience_status_count: active_count + self.troubled.len() - in_trouble_and_active,
        }
    }

    /// Of the audiences with these names or aliases alone, however many others there are.
    pub(super) fn snapshot_of(&self, names: &[Box<str>]) -> Snapshot {
        let mut own: BTreeSet<String> = names.iter().map(|name| normal(name).into_owned()).collect();
        let serving = self.serving.as_ref().map(|serving| {
            let is_own = |audience: &&Arc<AudiencePolicy>| {
                own.contains(audience.normal())
                    || audience.aliases.iter().any(|alias| own.contains(&*alias.normal))
            };
            Serving {
                audiences: serving.audiences.iter().filter(is_own).cloned().collect(),
                ..serving.clone()
            }
        });
        let active = serving.iter().flat_map(|serving| serving.audiences.iter());
        own.extend(active.clone().map(|audience| audience.normal().to_owned()));
        let is_own = |audience: &str| own.contains(&*normal(audience));
        let in_trouble: Vec<&str> =
            self.troubled.keys().map(String::as_str).filter(|audience| is_own(audience)).collect();
        let quiet =
            active.map(|audience| &*audience.audience).filter(|name| !self.troubled.contains_key(*name));
        let audiences: Vec<&str> = in_trouble.into_iter().chain(quiet).collect();
        let audience_statuses = audiences.iter().take(MAX_LISTED).map(|name| self.audience_status(name));
        let last_attempt = self.last_attempt.clone().map(|attempt| {
            let findings = attempt.findings.iter().filter(|finding| is_own(&finding.audience));
            let findings: Arc<[Finding]> = findings.cloned().collect();
            LastAttempt { finding_count: findings.len(), findings, ..attempt }
        });
        Snapshot {
            source: Arc::clone(&self.source),
            last_attempt,
            conditions: self.ordered(),
            audience_statuses: audience_statuses.collect(),
            audience_status_count: audiences.len(),
            serving,
        }
    }

    fn audience_status(&self, audience: &str) -> AudienceStatus {
        let known = self.records.get(audience).cloned();
        let conditions = known.unwrap_or_else(|| self.healthy(audience, false));
        AudienceStatus { audience: audience.to_owned(), conditions }
    }
}

/// The normal form of an audience; the text itself if it has none, as a finding may quote it.
fn normal(audience: &str) -> Cow<'_, str> {
    normalise(audience).unwrap_or(Cow::Borrowed(audience))
}

/// To the next second, in UTC, since a wait is not over before its end.
fn seconds(time: SystemTime) -> prost_types::Timestamp {
    let time = prost_types::Timestamp::from(time);
    prost_types::Timestamp { seconds: time.seconds.saturating_add(i64::from(time.nanos > 0)), nanos: 0 }
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// The reason and message if findings say that a baseline is wrong. The reason is that of the first
/// finding, the message names every scope.
fn baseline_verdict(findings: &[Finding]) -> Option<(&'static str, String)> {
    const NAMED: usize = 10;
    let reason = |code| match code {
        Code::BaselineScopeNotSupported => Some("BaselineScopeNotSupported"),
        Code::BaselineScopePrivileged => Some("BaselineScopePrivileged"),
        Code::BaselineScopeForbidden => Some("BaselineScopeForbidden"),
        Code::TooManyBaselineScopes => Some("TooManyBaselineScopes"),
        // Under `wildcard` a pattern is no scope that can be given.
        Code::BaselineScopeWildcard => Some("BaselineScopeNotSupported"),
        _ => None,
    };
    let wrong: Vec<&Finding> = findings.iter().filter(|finding| reason(finding.code).is_some()).collect();
    let first = reason(wrong.first()?.code)?;
    let mut message = wrong
        .iter()
        .take(NAMED)
        .map(|finding| format!("`{}` at {} ({})", finding.value, finding.audience, finding.code.as_str()))
        .collect::<Vec<_>>()
        .join(", ");
    if wrong.len() > NAMED {
        message.push_str(&format!(" and {} more", wrong.len() - NAMED));
    }
    Some((first, message))
}

/// Findings after which nobody knows what a file would have declared.
const fn hides_content(code: Code) -> bool {
    matches!(
        code,
        Code::FileUnreadable
            | Code::FileTooLarge
            | Code::FileNotUtf8
            | Code::FileNotRegular
            | Code::FileSizeMismatch
            | Code::LinkLeadsOutside
            | Code::DirectoryLoop
            | Code::YamlSyntax
            | Code::YamlTooDeep
            | Code::YamlTooLarge
            | Code::YamlTag
            | Code::MultipleDocuments
    )
}
