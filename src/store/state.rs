//! What an attempt to load means: one pure machine, from an attempt and a moment to everything that follows.
//!
//! Does no I/O and reads no clock: the moments are passed in, and durations are measured on the monotonic one. What it
//! says ([`Transition`]) is done elsewhere, in one place. Knows nothing of status, audit, metrics and logs but what they
//! need to be told.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::Active;
use crate::difference::changes;
use crate::policy::PolicySet;
use crate::policy::change::Change;
use crate::policy::check::Accepted;
use crate::policy::finding::Findings;
use crate::policy::outline::Outlines;

/// How long trouble lasts before a condition says so: files that keep changing while they are read, errors of the system.
pub const TROUBLE_AFTER: Duration = Duration::from_secs(5);
/// How long a removal waits for quiet before a condition says so. It keeps waiting.
pub const REMOVAL_TROUBLE_AFTER: Duration = Duration::from_secs(30);
/// How soon to look again after files kept changing while they were read.
const UNSTABLE_RETRY: Duration = Duration::from_millis(100);
/// How soon to look again after a transient error of the system.
const TRANSIENT_RETRY: Duration = Duration::from_millis(500);
/// Most changes that are named.
pub const MAX_NAMED_CHANGES: usize = 50;

/// A moment on two clocks: the monotonic one measures, the other is for people.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Never goes back, and does not jump.
    pub instant: Instant,
    /// What a wall clock says.
    pub time: SystemTime,
}

/// An attempt to load.
#[derive(Debug)]
pub struct Attempt {
    /// What was found.
    pub found: Found,
    /// The newest moment at which something that counts is known to have been written; `None` for never.
    pub last_write: Option<Instant>,
}

/// What an attempt to load found.
#[derive(Debug)]
pub enum Found {
    /// The same bytes as in the last attempt that was judged: see [`ReloadState::has_judged`].
    Known,
    /// The files are a valid set.
    Valid {
        /// The set.
        accepted: Accepted,
        /// SHA-256 over the bytes of all files.
        bytes: [u8; 32],
    },
    /// The files are not.
    Invalid {
        /// What is wrong.
        findings: Findings,
        /// SHA-256 over the bytes of all files.
        bytes: [u8; 32],
    },
    /// The named directory is not there, or cannot be read, for this reason.
    Missing(String),
    /// The files kept changing while they were read.
    Unstable {
        /// Some of the files that changed, for people.
        names: Vec<String>,
    },
    /// The system had an error that says nothing about the policy, such as having no file descriptor left.
    Failed(String),
}

/// Everything that follows from an attempt.
#[derive(Debug, Default)]
pub struct Transition {
    /// Requests are answered by this set from now on.
    pub serve: Option<Arc<Active>>,
    /// What the status shows from now on, if anything of it changed.
    pub status: Option<StatusChange>,
    /// A policy change to audit.
    pub change: Option<PolicyChange>,
    /// What became of the attempt, if it was judged.
    pub verdict: Option<Verdict>,
    /// What to log, in this order.
    pub log: Vec<LogLine>,
    /// When to look again at the latest, if there is a reason to.
    pub look_again: Option<Instant>,
}

/// What became of an attempt that was judged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// A new set serves.
    Accepted,
    /// Other bytes, the same meaning.
    Unchanged,
    /// The files are not valid, or not there.
    Rejected,
}

/// The state to show: all of it but the newest attempt, which is there only if it is a new one.
#[derive(Clone, Debug)]
pub struct StatusChange {
    /// What serves.
    pub serving: Option<Arc<Active>>,
    /// What a new attempt came to.
    pub attempt: Option<AttemptOutcome>,
    /// What is wrong with the source of the policy, beyond the files themselves.
    pub trouble: Option<SourceTrouble>,
    /// Since something is removed, the newest files wait until this moment, if they do.
    pub removal_waits_until: Option<SystemTime>,
}

/// What an attempt came to.
#[derive(Clone, Debug)]
pub enum AttemptOutcome {
    /// A set serves, or the files mean what serves.
    Accepted {
        /// Warnings.
        warnings: Findings,
    },
    /// The files are not valid.
    Rejected {
        /// What is wrong.
        findings: Findings,
        /// SHA-256 over the bytes.
        bytes: [u8; 32],
    },
    /// The source is not there.
    Missing {
        /// Why.
        reason: String,
    },
}

/// Why files cannot be judged or served, though nothing is known to be wrong with them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SourceTrouble {
    /// They kept changing while they were read, for [`TROUBLE_AFTER`].
    KeepsChanging {
        /// Some of those that change.
        names: Vec<String>,
    },
    /// A removal waits for quiet, and they have been written all the time for [`REMOVAL_TROUBLE_AFTER`].
    NeverQuiet,
    /// The system has had errors for [`TROUBLE_AFTER`].
    Failing {
        /// Of the newest one.
        error: String,
    },
}

impl SourceTrouble {
    /// A CamelCase constant.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::KeepsChanging { .. } => "FilesKeepChanging",
            Self::NeverQuiet => "RemovalNeverQuiet",
            Self::Failing { .. } => "ReadsFail",
        }
    }
}

impl std::fmt::Display for SourceTrouble {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::KeepsChanging { names } if names.is_empty() => {
                formatter.write_str("the policy files keep changing, so they cannot be read")
            }
            Self::KeepsChanging { names } => {
                write!(
                    formatter,
                    "the policy files keep changing, so they cannot be read: {}",
                    names.join(", ")
                )
            }
            Self::NeverQuiet => formatter.write_str(
                "the policy files remove something and are written all the time, so they do not serve",
            ),
            Self::Failing { error } => write!(formatter, "the policy files cannot be read for now: {error}"),
        }
    }
}

/// A policy change for the audit.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PolicyChange {
    /// Whether the new files serve.
    pub accepted: bool,
    /// What serves now.
    pub generation: u64,
    /// The digest of what serves now; empty if nothing does.
    pub digest: String,
    /// The digest of what served before; empty if nothing did.
    pub previous_digest: String,
    /// Findings of the attempt.
    pub finding_count: usize,
    /// What changed, in words: the first [`MAX_NAMED_CHANGES`]. Empty for a rejected policy and for the first one.
    pub changes: Vec<String>,
    /// How many changes there are.
    pub change_count: usize,
    /// How many of them are widening.
    pub widening_count: usize,
}

/// A line for the log.
#[derive(Clone, Debug)]
pub enum LogLine {
    /// A set serves.
    Accepted {
        /// Which one.
        active: Arc<Active>,
        /// How many warnings it has.
        warnings: usize,
        /// The first of them; empty if there is none.
        first_warning: String,
        /// What changed.
        change: PolicyChange,
    },
    /// The last good set, kept on disk, serves.
    Restored {
        /// Which one.
        active: Arc<Active>,
    },
    /// The files are not valid or not there; what served before keeps serving.
    Rejected {
        /// How many findings there are.
        findings: usize,
        /// The first error, or why the source is missing.
        first: String,
        /// What serves, if anything does.
        active: Option<Arc<Active>>,
    },
    /// The files are what serves, after they were not.
    Recovered {
        /// What serves.
        active: Arc<Active>,
    },
    /// A removal waits for quiet.
    Waiting,
    /// Something is wrong with the source.
    Troubled(SourceTrouble),
    /// That is over.
    Untroubled,
}

/// Decides what attempts mean. One for each process, in one hand.
#[derive(Debug)]
pub struct ReloadState {
    removal_quiet: Duration,
    serving: Option<ServingSet>,
    generation: u64,
    last: Option<Judged>,
    pending: Option<Pending>,
    /// Since when files have kept changing while they were read, or the system has had errors.
    unreadable_since: Option<Instant>,
    trouble: Option<SourceTrouble>,
    /// The quiet that a removal waits for, as the status shows it: since when, and its end for people.
    shown_quiet: Option<(Instant, SystemTime)>,
}

#[derive(Debug)]
struct ServingSet {
    active: Arc<Active>,
    outlines: Outlines,
}

/// What the last attempt that was judged looked like.
#[derive(Debug, PartialEq)]
enum Judged {
    Accepted([u8; 32]),
    Rejected([u8; 32]),
    Missing(String),
}

/// A valid set that takes something away and waits for quiet.
#[derive(Debug)]
struct Pending {
    /// `None` while the files are something that cannot serve.
    bytes: Option<[u8; 32]>,
    since: Instant,
    quiet_since: Instant,
}

impl ReloadState {
    /// Nothing serves yet. `removal_quiet` is how long files from which something disappeared must not be written before they
    /// serve.
    #[must_use]
    pub const fn new(removal_quiet: Duration) -> Self {
        Self {
            removal_quiet,
            serving: None,
            generation: 0,
            last: None,
            pending: None,
            unreadable_since: None,
            trouble: None,
            shown_quiet: None,
        }
    }

    /// Returns `true` if bytes were judged already, so that there is no need to judge them again.
    #[must_use]
    pub fn has_judged(&self, bytes: &[u8; 32]) -> bool {
        let judged = match &self.last {
            Some(Judged::Accepted(last) | Judged::Rejected(last)) => last == bytes,
            Some(Judged::Missing(_)) | None => false,
        };
        self.pending.is_none() && judged
    }

    /// Serves a set that does not come from the policy source (a last good one, kept on disk).
    ///
    /// The next attempt is judged whatever its bytes are.
    pub fn restore(&mut self, accepted: Accepted, now: Moment) -> Transition {
        let change = PolicyChange { accepted: true, ..PolicyChange::default() };
        let (active, change) = self.swap(accepted.set, accepted.outlines, change, now);
        self.last = None;
        Transition {
            serve: Some(Arc::clone(&active)),
            status: Some(self.status(None)),
            change: Some(change),
            log: vec![LogLine::Restored { active }],
            ..Transition::default()
        }
    }

    /// Judges an attempt.
    ///
    /// A set that means what serves makes no new generation. Files from which something disappeared that is written in what
    /// serves have to be left alone first: a half-written file is often a valid, shorter policy. Any write starts that wait
    /// again; after [`REMOVAL_TROUBLE_AFTER`] the status says so, and what serves stays. The first set serves at once.
    pub fn apply(&mut self, attempt: Attempt, now: Moment) -> Transition {
        let mut transition = self.judge(attempt, now);
        let quiet = self.pending.as_ref().filter(|pending| pending.bytes.is_some());
        let quiet_since = quiet.map(|pending| pending.quiet_since);
        if quiet_since != self.shown_quiet.map(|(since, _)| since) {
            self.shown_quiet = quiet_since.map(|since| {
                let passed = now.instant.saturating_duration_since(since);
                (since, now.time + self.removal_quiet.saturating_sub(passed))
            });
            let shown = transition.status.unwrap_or_else(|| self.status(None));
            transition.status =
                Some(StatusChange { removal_waits_until: self.removal_waits_until(), ..shown });
        }
        transition
    }

    fn removal_waits_until(&self) -> Option<SystemTime> {
        self.shown_quiet.map(|(_, until)| until)
    }

    fn judge(&mut self, attempt: Attempt, now: Moment) -> Transition {
        let Attempt { found, last_write } = attempt;
        if let (Some(pending), Some(write)) = (&mut self.pending, last_write) {
            pending.quiet_since = pending.quiet_since.max(write);
        }
        match found {
            Found::Known => self.settled(None, Transition::default()),
            Found::Valid { accepted, bytes } => self.valid(accepted, bytes, now),
            Found::Invalid { findings, bytes } => {
                self.interrupt(now);
                let judged = Judged::Rejected(bytes);
                let first = findings.first_error().map(ToString::to_string).unwrap_or_default();
                self.reject(judged, findings.count(), first, AttemptOutcome::Rejected { findings, bytes })
            }
            Found::Missing(reason) => {
                self.interrupt(now);
                let judged = Judged::Missing(reason.clone());
                self.reject(judged, 0, reason.clone(), AttemptOutcome::Missing { reason })
            }
            Found::Unstable { names } => {
                if let Some(pending) = &mut self.pending {
                    pending.bytes = None;
                    pending.quiet_since = now.instant;
                }
                self.unreadable(SourceTrouble::KeepsChanging { names }, UNSTABLE_RETRY, now)
            }
            Found::Failed(error) => self.unreadable(SourceTrouble::Failing { error }, TRANSIENT_RETRY, now),
        }
    }

    fn valid(&mut self, accepted: Accepted, bytes: [u8; 32], now: Moment) -> Transition {
        let Accepted { set, warnings, outlines, .. } = accepted;
        if self.has_judged(&bytes) {
            return self.settled(None, Transition::default());
        }
        let Some(serving) = &self.serving else {
            let change = PolicyChange::default();
            return self.accept(set, outlines, bytes, warnings, change, now);
        };
        let changed = changes(&serving.active.set, &set);
        let is_same = serving.active.set.digest() == set.digest();
        // Also where it makes no difference now: it may make one together with the next edit.
        if serving.outlines.say_more_than(&outlines)
            && let Some(waiting) = self.must_wait(bytes, now)
        {
            return waiting;
        }
        match &self.serving {
            Some(serving) if is_same => {
                // What has no meaning for decisions may be new all the same, such as a description.
                let Active { generation, load_time, .. } = *serving.active;
                self.unchanged(Active { set, generation, load_time }, outlines, bytes, warnings)
            }
            _ => self.accept(set, outlines, bytes, warnings, named(&changed), now),
        }
    }

    fn unchanged(
        &mut self,
        active: Active,
        outlines: Outlines,
        bytes: [u8; 32],
        warnings: Findings,
    ) -> Transition {
        let active = Arc::new(active);
        let recovered = !matches!(self.last, Some(Judged::Accepted(_)));
        self.serving = Some(ServingSet { active: Arc::clone(&active), outlines });
        self.pending = None;
        self.last = Some(Judged::Accepted(bytes));
        let (mut change, mut log) = (None, Vec::new());
        if recovered {
            let digest = active.set.digest().to_string();
            change = Some(PolicyChange {
                accepted: true,
                generation: active.generation,
                previous_digest: digest.clone(),
                digest,
                finding_count: warnings.count(),
                ..PolicyChange::default()
            });
            log.push(LogLine::Recovered { active: Arc::clone(&active) });
        }
        let verdict = Some(Verdict::Unchanged);
        let transition = Transition { serve: Some(active), change, verdict, log, ..Transition::default() };
        self.settled(Some(AttemptOutcome::Accepted { warnings }), transition)
    }

    fn accept(
        &mut self,
        set: PolicySet,
        outlines: Outlines,
        bytes: [u8; 32],
        warnings: Findings,
        change: PolicyChange,
        now: Moment,
    ) -> Transition {
        let warning_count = warnings.count();
        let change = PolicyChange { accepted: true, finding_count: warning_count, ..change };
        let (active, change) = self.swap(set, outlines, change, now);
        self.pending = None;
        self.last = Some(Judged::Accepted(bytes));
        let line = LogLine::Accepted {
            active: Arc::clone(&active),
            warnings: warning_count,
            first_warning: warnings.first().map(ToString::to_string).unwrap_or_default(),
            change: change.clone(),
        };
        let transition = Transition {
            serve: Some(active),
            change: Some(change),
            verdict: Some(Verdict::Accepted),
            log: vec![line],
            ..Transition::default()
        };
        self.settled(Some(AttemptOutcome::Accepted { warnings }), transition)
    }

    fn reject(
        &mut self,
        judged: Judged,
        findings: usize,
        first: String,
        outcome: AttemptOutcome,
    ) -> Transition {
        if self.last.as_ref() == Some(&judged) {
            return self.settled(None, Transition::default());
        }
        self.last = Some(judged);
        let active = self.serving.as_ref().map(|serving| Arc::clone(&serving.active));
        let digest = active.as_ref().map(|active| active.set.digest().to_string()).unwrap_or_default();
        let change = PolicyChange {
            generation: self.generation,
            previous_digest: digest.clone(),
            digest,
            finding_count: findings,
            ..PolicyChange::default()
        };
        let transition = Transition {
            change: Some(change),
            verdict: Some(Verdict::Rejected),
            log: vec![LogLine::Rejected { findings, first, active }],
            ..Transition::default()
        };
        self.settled(Some(outcome), transition)
    }

    /// The files could be read: what was wrong with their source is over.
    fn settled(&mut self, attempt: Option<AttemptOutcome>, mut transition: Transition) -> Transition {
        self.unreadable_since = None;
        let was_troubled = self.trouble.take().is_some();
        if was_troubled {
            transition.log.push(LogLine::Untroubled);
        }
        if was_troubled || attempt.is_some() {
            transition.status = Some(self.status(attempt));
        }
        transition
    }

    /// The files could not be read, which says nothing about them.
    fn unreadable(&mut self, trouble: SourceTrouble, retry: Duration, now: Moment) -> Transition {
        let since = *self.unreadable_since.get_or_insert(now.instant);
        let mut transition = Transition { look_again: Some(now.instant + retry), ..Transition::default() };
        if now.instant.duration_since(since) >= TROUBLE_AFTER {
            self.trouble(trouble, &mut transition);
        }
        transition
    }

    fn trouble(&mut self, trouble: SourceTrouble, transition: &mut Transition) {
        // The names of the files and the words of the system may be others at each look, which is nothing new.
        if self.trouble.as_ref().map(SourceTrouble::reason) == Some(trouble.reason()) {
            return;
        }
        transition.log.push(LogLine::Troubled(trouble.clone()));
        self.trouble = Some(trouble);
        transition.status = Some(self.status(None));
    }

    /// What follows if a removal has to wait; `None` if it has waited enough.
    fn must_wait(&mut self, bytes: [u8; 32], now: Moment) -> Option<Transition> {
        let now = now.instant;
        let quiet = self.removal_quiet;
        let fresh = || Pending { bytes: Some(bytes), since: now, quiet_since: now };
        let is_new = self.pending.is_none();
        let pending = self.pending.get_or_insert_with(fresh);
        if pending.bytes.is_none() && now.duration_since(pending.quiet_since) >= quiet {
            // What could not serve was left alone: this is another edit.
            *pending = fresh();
        } else if pending.bytes != Some(bytes) {
            pending.bytes = Some(bytes);
            pending.quiet_since = now;
        }
        let Pending { since, quiet_since, .. } = *pending;
        if now.duration_since(quiet_since) >= quiet {
            return None;
        }
        let mut transition = Transition::default();
        if is_new {
            transition.log.push(LogLine::Waiting);
        }
        let trouble_at = since + REMOVAL_TROUBLE_AFTER;
        if now >= trouble_at {
            self.unreadable_since = None;
            self.trouble(SourceTrouble::NeverQuiet, &mut transition);
            transition.look_again = Some(quiet_since + quiet);
        } else {
            transition.look_again = Some((quiet_since + quiet).min(trouble_at));
            let look_again = transition.look_again;
            transition = self.settled(None, transition);
            transition.look_again = look_again;
        }
        Some(transition)
    }

    /// A pending removal that turned into something else starts its quiet time again.
    fn interrupt(&mut self, now: Moment) {
        if let Some(pending) = &mut self.pending
            && pending.bytes.take().is_some()
        {
            pending.quiet_since = now.instant;
        }
    }

    fn swap(
        &mut self,
        set: PolicySet,
        outlines: Outlines,
        change: PolicyChange,
        now: Moment,
    ) -> (Arc<Active>, PolicyChange) {
        let previous = self.serving.as_ref().map(|serving| serving.active.set.digest().to_string());
        self.generation += 1;
        let active = Arc::new(Active { set, generation: self.generation, load_time: now.time });
        self.serving = Some(ServingSet { active: Arc::clone(&active), outlines });
        let change = PolicyChange {
            generation: self.generation,
            digest: active.set.digest().to_string(),
            previous_digest: previous.unwrap_or_default(),
            ..change
        };
        (active, change)
    }

    fn status(&self, attempt: Option<AttemptOutcome>) -> StatusChange {
        let serving = self.serving.as_ref().map(|serving| Arc::clone(&serving.active));
        let removal_waits_until = self.removal_waits_until();
        StatusChange { serving, attempt, trouble: self.trouble.clone(), removal_waits_until }
    }
}

/// What differs between what serves and a new set, for people.
fn named(changes: &[Change]) -> PolicyChange {
    PolicyChange {
        changes: changes.iter().take(MAX_NAMED_CHANGES).map(Change::to_string).collect(),
        change_count: changes.len(),
        widening_count: changes.iter().filter(|change| change.widening).count(),
        ..PolicyChange::default()
    }
}

#[cfg(test)]
mod tests;
