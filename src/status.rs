//! The state of the service in words: conditions, the last attempt, what serves.
//!
//! The tracker is told what happened and when; it reads no file and no clock. Each change makes one [`Snapshot`], which
//! gRPC, `/status.json`, the metrics and the command line all show: none of them sees half a change.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::watch;

use crate::policy::AudiencePolicy;
use crate::policy::finding::{Finding, Findings};

mod condition;
pub mod condition_type;
mod state;

pub use condition::{Condition, ConditionStatus, kind, remove_condition, set_condition};

use state::TrackedStatus;

/// Most audience statuses in one status.
pub const MAX_LISTED: usize = 1000;

/// The policy that serves.
#[derive(Clone, Debug)]
pub struct Serving {
    /// Its generation, from 1.
    pub generation: u64,
    /// Its digest.
    pub digest: String,
    /// When it began to serve.
    pub load_time: SystemTime,
    /// Its audiences, sorted.
    pub audiences: Arc<[Arc<AudiencePolicy>]>,
}

/// The newest attempt to load a policy.
#[derive(Clone, Debug)]
pub struct LastAttempt {
    /// When.
    pub attempt_time: SystemTime,
    /// Whether the files are what serves, or mean the same.
    pub accepted: bool,
    /// Of the meaning if accepted, of the bytes if rejected; empty if nothing could be read.
    pub digest: String,
    /// At most [`crate::policy::finding::MAX_FINDINGS`], errors first.
    pub findings: Arc<[Finding]>,
    /// How many there were.
    pub finding_count: usize,
}

/// The conditions of one audience.
#[derive(Clone, Debug)]
pub struct AudienceStatus {
    /// The audience as spelled in the policy.
    pub audience: String,
    /// One per type.
    pub conditions: Vec<Condition>,
}

/// The whole state at one moment. Made once for each change, and shared by all who read it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What serves; `None` before the first set.
    pub serving: Option<Serving>,
    /// The policy directory as configured.
    pub source: Arc<str>,
    /// The newest attempt; `None` before the first.
    pub last_attempt: Option<LastAttempt>,
    /// Of the whole, in the order of [`condition_type::CONDITION_TYPES`].
    pub conditions: Vec<Condition>,
    /// At most [`MAX_LISTED`], those in trouble first, then sorted by audience.
    pub audience_statuses: Vec<AudienceStatus>,
    /// How many audiences there are.
    pub audience_status_count: usize,
}

/// A change of what serves, of the newest attempt, or of the trouble with the source: shown as one.
#[derive(Clone, Debug)]
pub struct PolicyStatusChange {
    /// What serves from now on; `None` before the first set.
    pub serving: Option<Serving>,
    /// What a new attempt came to, if there is one.
    pub attempt: Option<LoadOutcome>,
    /// Why the source cannot be judged or served for now, if so: reason and message.
    pub trouble: Option<(&'static str, String)>,
    /// Since something is removed, the newest files wait until this moment, if they do.
    pub removal_waits_until: Option<SystemTime>,
}

/// What one attempt came to.
#[derive(Clone, Debug)]
pub enum LoadOutcome {
    /// A set serves, or the files mean what serves.
    Accepted {
        /// Warnings.
        warnings: Findings,
    },
    /// The files are not valid.
    Rejected {
        /// Every finding.
        findings: Findings,
        /// `sha256:` over the bytes.
        digest: String,
    },
    /// The source is not there.
    Missing {
        /// Why.
        reason: String,
    },
}

impl Snapshot {
    /// Returns `true` if requests are answered.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.conditions.iter().any(|one| one.kind == kind::READY && one.status == ConditionStatus::True)
    }
}

/// The status of a condition, its reason and its message.
pub type ConditionState = (ConditionStatus, &'static str, String);

/// Whose state is tracked, which decides what messages say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TrackedPolicy {
    /// The policy that serves; whether a restart may serve the last good one.
    Serving {
        /// It may.
        starts_from_last_good: bool,
    },
    /// The shadow policy.
    Shadow,
}

/// Keeps the state and tells watchers when it changes.
#[derive(Debug)]
pub struct StatusTracker {
    state: Mutex<TrackedStatus>,
    newest: watch::Sender<Arc<Snapshot>>,
}

impl StatusTracker {
    /// An empty tracker: nothing serves yet.
    #[must_use]
    pub fn new(source: Arc<str>, starts_from_last_good: bool, now: SystemTime) -> Self {
        Self::of(source, TrackedPolicy::Serving { starts_from_last_good }, now)
    }

    /// An empty tracker for a policy.
    #[must_use]
    pub fn of(source: Arc<str>, policy: TrackedPolicy, now: SystemTime) -> Self {
        let state = TrackedStatus::new(source, policy, now);
        let newest = watch::Sender::new(Arc::new(state.snapshot()));
        Self { state: Mutex::new(state), newest }
    }

    /// The newest snapshot, and each one that follows unless a later one follows at once.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.newest.subscribe()
    }

    /// The state now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.newest.borrow())
    }

    /// The state now, of the audiences with these names or aliases alone: what serves, findings and audience statuses.
    #[must_use]
    pub fn snapshot_of(&self, names: &[Box<str>]) -> Snapshot {
        self.lock().snapshot_of(names)
    }

    /// Returns `true` if requests are answered.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.newest.borrow().is_ready()
    }

    /// Takes over what serves, what an attempt came to, and trouble with the source: watchers see all of it or nothing.
    pub fn apply(&self, change: PolicyStatusChange, now: SystemTime) {
        let mut state = self.lock();
        state.apply(change, now);
        self.publish(&state);
    }

    /// Notes that a condition which is only there when true holds (with reason and message) or not.
    /// Nobody is told if nothing changed.
    pub fn toggle(&self, kind: &'static str, holds: Option<(&'static str, String)>, now: SystemTime) {
        let state = holds.map(|(reason, message)| (ConditionStatus::True, reason, message));
        self.show(kind, state, now);
    }

    /// Notes the state of a condition, which is not there without one. Nobody is told if nothing changed.
    pub fn show(&self, kind: &'static str, state: Option<ConditionState>, now: SystemTime) {
        let mut tracked = self.lock();
        if tracked.show(kind, state, now) {
            self.publish(&tracked);
        }
    }

    /// Notes a condition that always has a status. Returns `true` if something changed; nobody is told otherwise.
    pub fn set(
        &self,
        kind: &'static str,
        status: ConditionStatus,
        reason: &'static str,
        message: String,
        now: SystemTime,
    ) -> bool {
        let mut state = self.lock();
        let changed = state.set(kind, status, reason, message, now);
        if changed {
            self.publish(&state);
        }
        changed
    }

    /// Notes why requests are not answered although a policy serves, or that nothing holds them back.
    pub fn hold_back(&self, why: Option<(&'static str, String)>, now: SystemTime) {
        let mut state = self.lock();
        if state.hold_back(why, now) {
            self.publish(&state);
        }
    }

    /// Notes that no new requests are taken any more.
    pub fn drain(&self, now: SystemTime) {
        let mut state = self.lock();
        if state.drain(now) {
            self.publish(&state);
        }
    }

    /// Under the lock, so that snapshots come in the order of the changes.
    fn publish(&self, state: &TrackedStatus) {
        self.newest.send_replace(Arc::new(state.snapshot()));
    }

    fn lock(&self) -> MutexGuard<'_, TrackedStatus> {
        // Nothing in here panics half way; a poisoned tracker still says more than none.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
