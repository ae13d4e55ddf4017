//! Reloading: looks at the policy files when something may have changed, and does what follows from it.
//!
//! What follows is decided by [`ReloadState`]. Here, and nowhere else, it is done: requests get another set, status, metrics,
//! log and audit are told, the last good copy on disk is replaced.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tracing::{info, warn};

use super::console::served::{PolicyFile, Served, ServedPolicy};
use super::memory;
use super::metrics::{Metrics, Reload};
use super::traces::Traces;
use crate::hex;
use crate::policy::finding::Findings;
use crate::status::{self, LoadOutcome, Serving, StatusTracker};
use crate::store::last_good::{self, LastGoodError, RestoredPolicy};
use crate::store::load::{Loaded, Loader, Look};
use crate::store::read::{ReadError, SourceFile};
use crate::store::state::{
    Attempt, AttemptOutcome, Found, LogLine, Moment, PolicyChange, ReloadState, StatusChange, Transition,
    Verdict,
};
use crate::store::watch_targets::WatchTargets;
use crate::store::{Active, Current};

mod last_good_copy;
pub(super) mod task;

use last_good_copy::LastGoodCopy;
pub(super) use last_good_copy::{SavingJob, SavingOutcome};

/// Most changes that one log line names.
const LOGGED_CHANGES: usize = 20;
/// From so many bytes of files on, memory is given back to the system after an attempt.
const LARGE_BYTES: usize = 128 << 10;

/// Why there is nothing to serve at the start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A named path cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The policy is not valid.
    #[error("the policy is not valid")]
    Invalid {
        /// What is wrong.
        findings: Findings,
        /// The files, for showing the lines.
        files: Vec<SourceFile>,
    },
    /// The policy is not usable and the last good one is not either.
    #[error("the policy is not usable, and {last_good}")]
    NoLastGood {
        /// Why there is no last good one.
        last_good: LastGoodError,
        /// What is wrong with the policy; empty if it could not be read.
        findings: Findings,
        /// The files, for showing the lines.
        files: Vec<SourceFile>,
    },
}

/// Where policy changes go to be audited; must not block.
pub type Observer = Box<dyn Fn(PolicyChange) + Send>;

/// Looks at the files and does what follows.
pub struct Reloader {
    loader: Loader,
    state: ReloadState,
    /// Of all the stamps at the last look: another value means that something was written.
    stamps: Option<u64>,
    /// The files of the last attempt that was judged had [`LARGE_BYTES`] or more.
    was_large: bool,
    /// The texts of a large set are in memory until they are on disk.
    has_texts: bool,
    current: Current,
    tracker: Arc<StatusTracker>,
    /// What is told of the policy that serves and of no other.
    serving: Option<ServingParts>,
}

/// Whom the policy that serves concerns in addition.
struct ServingParts {
    metrics: Metrics,
    traces: Option<Traces>,
    observer: Observer,
    starts_from_last_good: bool,
    last_good: LastGoodCopy,
    /// Where the console finds what serves.
    served: Option<Served>,
}

impl std::fmt::Debug for Reloader {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Reloader").field("loader", &self.loader).finish_non_exhaustive()
    }
}

/// A look at the files that is to be judged.
struct Looked {
    found: Found,
    files: Vec<SourceFile>,
    stamps: Option<u64>,
}

impl Reloader {
    /// Joins the parts; nothing is read yet.
    #[must_use]
    #[expect(clippy::too_many_arguments, reason = "each is another part, and there is one caller")]
    pub fn new(
        loader: Loader,
        removal_quiet: Duration,
        current: Current,
        tracker: Arc<StatusTracker>,
        metrics: Metrics,
        traces: Option<Traces>,
        observer: Observer,
        state_dir: PathBuf,
        starts_from_last_good: bool,
    ) -> Self {
        Self {
            loader,
            state: ReloadState::new(removal_quiet),
            stamps: None,
            was_large: false,
            has_texts: false,
            current,
            tracker,
            serving: Some(ServingParts {
                metrics,
                traces,
                observer,
                starts_from_last_good,
                last_good: LastGoodCopy::new(state_dir),
                served: None,
            }),
        }
    }

    /// Puts what serves into `served` too, with its files.
    #[must_use]
    pub(super) fn shown_by(mut self, served: Served) -> Self {
        if let Some(serving) = &mut self.serving {
            serving.served = Some(served);
        }
        self
    }

    /// For a shadow policy, which serves nobody: `tracker` is its own, nothing is audited or kept on disk, and a policy
    /// that is not valid is none. Nothing is read yet.
    #[must_use]
    pub fn for_shadow(
        loader: Loader,
        removal_quiet: Duration,
        current: Current,
        tracker: Arc<StatusTracker>,
    ) -> Self {
        let state = ReloadState::new(removal_quiet);
        Self {
            loader,
            state,
            stamps: None,
            was_large: false,
            has_texts: false,
            current,
            tracker,
            serving: None,
        }
    }

    fn starts_from_last_good(&self) -> bool {
        self.serving.as_ref().is_some_and(|serving| serving.starts_from_last_good)
    }

    /// What is to be watched, as of the newest look.
    #[must_use]
    pub const fn watch_targets(&self) -> &WatchTargets {
        self.loader.watch_targets()
    }

    /// Loads the first set. Blocks.
    ///
    /// # Errors
    /// [`StartError`] if there is nothing to serve.
    pub fn start(&mut self) -> Result<(), StartError> {
        let started = Instant::now();
        let Looked { found, files, stamps } = match self.loader.load() {
            Ok(loaded) => judged(loaded),
            Err(error) if self.starts_from_last_good() => unread(error),
            Err(error) => return Err(error.into()),
        };
        self.stamps = stamps;
        if !matches!(found, Found::Valid { .. }) {
            let findings = match &found {
                Found::Invalid { findings, .. } => findings.clone(),
                _ => Findings::new(),
            };
            let Some(serving) = self.serving.as_ref().filter(|serving| serving.starts_from_last_good) else {
                return Err(StartError::Invalid { findings, files });
            };
            let RestoredPolicy { accepted, files: kept } =
                match last_good::restore(serving.last_good.state_dir()) {
                    Ok(restored) => restored,
                    Err(last_good) => return Err(StartError::NoLastGood { last_good, findings, files }),
                };
            let transition = self.state.restore(accepted, now());
            self.perform(transition, &[], started);
            let file = |(path, text)| PolicyFile::restored(path, text);
            self.show(self.current.load_full(), || kept.into_iter().map(file).collect());
        }
        let transition = self.state.apply(Attempt { found, last_write: None }, now());
        self.perform(transition, &files, started);
        Ok(())
    }

    /// Looks once; returns when to look again at the latest, if there is a reason to. Blocks.
    ///
    /// `last_event` is when the newest event came that can have to do with the policy.
    pub fn look(&mut self, last_event: Option<Instant>) -> Option<Instant> {
        let started = Instant::now();
        let state = &self.state;
        let Looked { found, files, stamps } = match self.loader.load_unless(|bytes| state.has_judged(bytes)) {
            Ok(Look { stamps, loaded: Some(loaded) }) => Looked { stamps: Some(stamps), ..judged(loaded) },
            Ok(Look { stamps, loaded: None }) => {
                Looked { found: Found::Known, files: Vec::new(), stamps: Some(stamps) }
            }
            Err(error) => unread(error),
        };
        let now = now();
        let is_written = stamps.is_none() || stamps != self.stamps;
        self.stamps = stamps;
        let last_write = if is_written { Some(now.instant) } else { last_event };
        let transition = self.state.apply(Attempt { found, last_write }, now);
        let planned = self.perform(transition, &files, started);
        if !files.is_empty() {
            let is_large = is_large(&files);
            drop(files);
            // What the attempt before left for comparison was dropped in this one.
            if std::mem::replace(&mut self.was_large, is_large) || is_large {
                memory::give_back();
            }
        }
        planned
    }

    /// Starts to write the last good policy to disk, if that is due: what is returned is to be run by the caller, whose looks
    /// need not wait for it, and its outcome is to be given to [`Reloader::saved`].
    pub(super) fn start_saving(&mut self) -> Option<SavingJob> {
        self.serving.as_mut()?.last_good.start(Instant::now())
    }

    /// When writing the last good policy is to be tried again, if it failed.
    pub(super) fn next_saving(&self) -> Option<Instant> {
        self.serving.as_ref()?.last_good.next()
    }

    /// Takes the outcome of writing the last good policy.
    pub(super) fn saved(&mut self, outcome: SavingOutcome) {
        let Some(serving) = &mut self.serving else { return };
        if serving.last_good.finish(outcome, &self.tracker, now()) {
            // The texts were needed for the copy alone: the console reads them when somebody asks.
            self.loader.forget_texts();
            if let Some(served) = serving.served.as_ref().and_then(|served| served.load_full()) {
                served.forget_texts();
            }
            if std::mem::take(&mut self.has_texts) {
                memory::give_back();
            }
        }
    }

    /// Does what follows from an attempt; returns when to look again.
    fn perform(&mut self, transition: Transition, files: &[SourceFile], started: Instant) -> Option<Instant> {
        let Transition { serve, status, change, verdict, log, look_again } = transition;
        let now = now();
        // Of the attempt, if there was one, which all attempts with a verdict have.
        let (generation, findings) = status.as_ref().map(shown_numbers).unwrap_or_default();
        if let Some(active) = &serve {
            if let Some(serving) = &self.serving {
                serving.metrics.follow(&active.set);
            }
            self.current.store(Some(Arc::clone(active)));
            self.show(serve.clone(), || files.iter().map(PolicyFile::of).collect());
        }
        if let Some(status) = status {
            self.tracker.apply(shown(status), now.time);
        }
        for line in log {
            self.log(line, started.elapsed());
        }
        let Some(serving) = &mut self.serving else {
            if serve.is_some() {
                self.loader.forget_texts();
            }
            return look_again;
        };
        if let Some(verdict) = verdict {
            let result = match verdict {
                Verdict::Accepted => Reload::Accepted,
                Verdict::Unchanged => Reload::Unchanged,
                Verdict::Rejected => Reload::Rejected,
            };
            serving.metrics.reloaded(result, started.elapsed());
            if let Some(traces) = &serving.traces {
                traces.reloaded(result, generation, findings, started.elapsed());
            }
        }
        if let Some(change) = change {
            (serving.observer)(change);
        }
        if let (Some(active), Some(Verdict::Accepted)) = (serve, verdict) {
            serving.last_good.keep(&active, files.to_vec());
            self.has_texts |= is_large(files);
        }
        look_again
    }

    /// Shows the console, if there is one, what serves.
    fn show(&self, active: Option<Arc<Active>>, files: impl FnOnce() -> Vec<PolicyFile>) {
        let Some(serving) = &self.serving else { return };
        if let (Some(served), Some(active)) = (&serving.served, active) {
            let policy = ServedPolicy::new(active, files(), serving.last_good.state_dir());
            served.store(Some(Arc::new(policy)));
        }
    }

    fn log(&self, line: LogLine, took: Duration) {
        if self.serving.is_none() {
            return log_shadow(line, took);
        }
        let restart = if self.starts_from_last_good() {
            "the next restart would serve the last good policy"
        } else {
            "the next restart would fail"
        };
        match line {
            LogLine::Accepted { active, warnings, first_warning, change } => {
                log_accepted(&active, warnings, &first_warning, &change, took);
            }
            LogLine::Restored { active } => warn!(
                generation = active.generation,
                digest = %active.set.digest(),
                "started from the last good policy"
            ),
            LogLine::Rejected { findings, first, active } => warn!(
                findings,
                first,
                generation = active.as_ref().map_or(0, |active| active.generation),
                "policy rejected, last good set keeps serving; {restart}"
            ),
            LogLine::Recovered { active } => info!(
                generation = active.generation,
                digest = %active.set.digest(),
                "policy files are valid again and mean what serves"
            ),
            LogLine::Waiting => info!("policy removes something, waiting until it is no longer written"),
            LogLine::Troubled(trouble) => warn!(reason = trouble.reason(), "{trouble}"),
            LogLine::Untroubled => info!("policy files can be read and judged again"),
        }
    }
}

/// The same of a shadow policy, in words that cannot be taken for those of the policy that serves.
fn log_shadow(line: LogLine, took: Duration) {
    match line {
        LogLine::Accepted { active, warnings, first_warning: _, change: _ } => info!(
            generation = active.generation,
            digest = %active.set.digest(),
            audiences = active.set.audiences().len(),
            warnings,
            ?took,
            "shadow policy accepted"
        ),
        LogLine::Rejected { findings, first, active } => warn!(
            findings,
            first,
            generation = active.as_ref().map_or(0, |active| active.generation),
            "shadow policy rejected, the one before is compared, if there is one"
        ),
        LogLine::Recovered { active } => info!(
            generation = active.generation,
            digest = %active.set.digest(),
            "shadow policy files are valid again and mean what is compared"
        ),
        LogLine::Troubled(trouble) => warn!(reason = trouble.reason(), "shadow: {trouble}"),
        LogLine::Untroubled => info!("shadow policy files can be read and judged again"),
        // The last good policy is never compared.
        LogLine::Restored { .. } | LogLine::Waiting => {}
    }
}

/// Reads both clocks.
fn now() -> Moment {
    Moment { instant: Instant::now(), time: SystemTime::now() }
}

/// Returns `true` if there is so much text in memory that it is worth while to give it back.
fn is_large(files: &[SourceFile]) -> bool {
    files.iter().map(|file| file.text().len()).sum::<usize>() >= LARGE_BYTES
}

fn judged(loaded: Loaded) -> Looked {
    let Loaded { bytes, stamps, outcome, files } = loaded;
    let found = match outcome {
        Ok(accepted) => Found::Valid { accepted, bytes },
        Err(findings) => Found::Invalid { findings, bytes },
    };
    Looked { found, files, stamps: Some(stamps) }
}

fn unread(error: ReadError) -> Looked {
    let found = match error {
        ReadError::Unstable { names, .. } => Found::Unstable { names },
        error if error.is_transient() => Found::Failed(error.to_string()),
        error => Found::Missing(error.to_string()),
    };
    Looked { found, files: Vec::new(), stamps: None }
}

/// The generation that serves, 0 before the first, and the findings of the attempt.
fn shown_numbers(change: &StatusChange) -> (u64, usize) {
    let generation = change.serving.as_ref().map_or(0, |active| active.generation);
    let findings = change.attempt.as_ref().map_or(0, |attempt| match attempt {
        AttemptOutcome::Accepted { warnings: findings } | AttemptOutcome::Rejected { findings, .. } => {
            findings.count()
        }
        AttemptOutcome::Missing { .. } => 0,
    });
    (generation, findings)
}

/// What the status shows.
fn shown(change: StatusChange) -> status::PolicyStatusChange {
    let StatusChange { serving, attempt, trouble, removal_waits_until } = change;
    status::PolicyStatusChange {
        serving: serving.map(|active| Serving {
            generation: active.generation,
            digest: active.set.digest().to_string(),
            load_time: active.load_time,
            audiences: Arc::clone(active.set.audiences()),
        }),
        attempt: attempt.map(|attempt| match attempt {
            AttemptOutcome::Accepted { warnings } => LoadOutcome::Accepted { warnings },
            AttemptOutcome::Rejected { findings, bytes } => {
                LoadOutcome::Rejected { findings, digest: format!("sha256:{}", hex::encode(&bytes)) }
            }
            AttemptOutcome::Missing { reason } => LoadOutcome::Missing { reason },
        }),
        trouble: trouble.map(|trouble| (trouble.reason(), trouble.to_string())),
        removal_waits_until,
    }
}

fn log_accepted(
    active: &Active,
    warnings: usize,
    first_warning: &str,
    change: &PolicyChange,
    took: Duration,
) {
    let mut named: Vec<&str> = change.changes.iter().take(LOGGED_CHANGES).map(String::as_str).collect();
    let more = change.change_count.saturating_sub(named.len());
    let rest = format!("and {more} more");
    if more > 0 {
        named.push(&rest);
    }
    info!(
        generation = active.generation,
        digest = %active.set.digest(),
        audiences = active.set.audiences().len(),
        warnings,
        first_warning,
        widening = change.widening_count > 0,
        changes = named.join("; "),
        ?took,
        "policy accepted"
    );
}
