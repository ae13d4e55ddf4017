//! Reloading: looks at the policy files when something may have changed, and tells everybody who
//! wants to know what became of it: status, metrics, log, audit, the last good copy on disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tracing::{debug, error, info, warn};

use super::metrics::{Metrics, Reload};
use crate::hex;
use crate::policy::change::Change;
use crate::policy::finding::Findings;
use crate::status::{Board, Outcome, Serving};
use crate::store::last_good::{self, LastGoodError};
use crate::store::load::{Loaded, Loader};
use crate::store::read::{ReadError, SourceFile};
use crate::store::{Active, Attempt, Keeper, Verdict};

pub(super) mod task;

/// How soon to look again after files kept changing while they were read.
const UNSTABLE_RETRY: Duration = Duration::from_millis(100);
/// Most changes that one log line names.
const LOGGED_CHANGES: usize = 20;

/// A policy change for the audit.
#[derive(Clone, Debug)]
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
}

/// Why there is nothing to serve at the start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A named path cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The policy is not valid.
    #[error("the policy is not valid")]
    Invalid {
        /// Every finding.
        findings: Findings,
        /// The files, for showing the lines.
        files: Vec<SourceFile>,
    },
    /// The policy is not usable and the last good one is not either.
    #[error("the policy is not usable, and {last_good}")]
    NoLastGood {
        /// Why there is no last good one.
        last_good: LastGoodError,
        /// Every finding of the policy; empty if it could not be read.
        findings: Findings,
        /// The files, for showing the lines.
        files: Vec<SourceFile>,
    },
}

/// Where policy changes go to be audited; must not block.
pub type Observer = Box<dyn Fn(PolicyChange) + Send>;

/// Looks at the files and tells everybody.
pub struct Reloader {
    loader: Loader,
    keeper: Keeper,
    board: Arc<Board>,
    metrics: Metrics,
    observer: Observer,
    state_dir: PathBuf,
    starts_from_last_good: bool,
}

impl std::fmt::Debug for Reloader {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Reloader").field("loader", &self.loader).finish_non_exhaustive()
    }
}

impl Reloader {
    /// Joins the parts; nothing is read yet.
    #[must_use]
    pub fn new(
        loader: Loader,
        keeper: Keeper,
        board: Arc<Board>,
        metrics: Metrics,
        observer: Observer,
        state_dir: PathBuf,
        starts_from_last_good: bool,
    ) -> Self {
        Self { loader, keeper, board, metrics, observer, state_dir, starts_from_last_good }
    }

    /// The named paths.
    #[must_use]
    pub fn paths(&self) -> &[PathBuf] {
        self.loader.paths()
    }

    /// Loads the first set. Blocks.
    ///
    /// # Errors
    /// [`StartError`] if there is nothing to serve.
    pub fn start(&mut self) -> Result<(), StartError> {
        let started = Instant::now();
        let (attempt, bytes, files) = match self.loader.load() {
            Ok(loaded) => split(loaded),
            Err(error) if self.starts_from_last_good && !matches!(error, ReadError::Unstable { .. }) => {
                (Attempt::Missing(error.to_string()), [0; 32], Vec::new())
            }
            Err(error) => return Err(error.into()),
        };
        if let Attempt::Valid(_) = &attempt {
            self.judge(attempt, bytes, &files, started);
            return Ok(());
        }
        let findings = match &attempt {
            Attempt::Invalid(findings) => findings.clone(),
            _ => Findings::new(),
        };
        if !self.starts_from_last_good {
            return Err(StartError::Invalid { findings, files });
        }
        match last_good::restore(&self.state_dir) {
            Err(last_good) => Err(StartError::NoLastGood { last_good, findings, files }),
            Ok(set) => {
                let active = self.keeper.restore(set, SystemTime::now());
                self.board.serve(serving(&active));
                warn!(
                    generation = active.generation,
                    digest = %active.set.digest(),
                    "started from the last good policy"
                );
                (self.observer)(PolicyChange {
                    accepted: true,
                    generation: active.generation,
                    digest: active.set.digest().to_string(),
                    previous_digest: String::new(),
                    finding_count: 0,
                });
                self.judge(attempt, bytes, &files, started);
                Ok(())
            }
        }
    }

    /// Looks once; tells when to look again at the latest, if there is a reason to. Blocks.
    pub fn look(&mut self) -> Option<SystemTime> {
        let started = Instant::now();
        let keeper = &self.keeper;
        let (attempt, bytes, files) = match self.loader.load_unless(|bytes| keeper.has_judged(bytes)) {
            Ok(None) => return None,
            Ok(Some(loaded)) => split(loaded),
            Err(ReadError::Unstable { attempts }) => {
                debug!(attempts, "policy files keep changing, looking again soon");
                return Some(SystemTime::now() + UNSTABLE_RETRY);
            }
            Err(error) => (Attempt::Missing(error.to_string()), [0; 32], Vec::new()),
        };
        self.judge(attempt, bytes, &files, started)
    }

    fn judge(
        &mut self,
        attempt: Attempt,
        bytes: [u8; 32],
        files: &[SourceFile],
        started: Instant,
    ) -> Option<SystemTime> {
        let now = SystemTime::now();
        match self.keeper.judge(attempt, bytes, now) {
            Verdict::Same => {}
            Verdict::Waiting { until } => {
                debug!("policy takes something away, waiting for quiet");
                return Some(until);
            }
            Verdict::Unchanged { warnings } => {
                self.metrics.reloaded(Reload::Unchanged, started.elapsed());
                self.board.attempt(Outcome::Accepted { warnings }, now);
            }
            Verdict::Accepted { active, previous_digest, changes, warnings } => {
                self.metrics.reloaded(Reload::Accepted, started.elapsed());
                let warning_count = warnings.count();
                self.board.serve(serving(&active));
                self.board.attempt(Outcome::Accepted { warnings }, now);
                log_accepted(&active, &changes, warning_count, started.elapsed());
                (self.observer)(PolicyChange {
                    accepted: true,
                    generation: active.generation,
                    digest: active.set.digest().to_string(),
                    previous_digest: previous_digest.unwrap_or_default(),
                    finding_count: warning_count,
                });
                if let Err(error) = last_good::keep(&self.state_dir, &active.set, files) {
                    error!(%error, "the last good policy could not be kept");
                }
            }
            Verdict::Rejected { findings } => {
                let first = findings.first_error().map(ToString::to_string);
                self.reject(findings.count(), first.as_deref().unwrap_or_default());
                self.metrics.reloaded(Reload::Rejected, started.elapsed());
                self.board.attempt(
                    Outcome::Rejected { findings, digest: format!("sha256:{}", hex::encode(&bytes)) },
                    now,
                );
            }
            Verdict::Missing { reason } => {
                self.reject(0, &reason);
                self.metrics.reloaded(Reload::Rejected, started.elapsed());
                self.board.attempt(Outcome::Missing { reason }, now);
            }
        }
        None
    }

    fn reject(&self, finding_count: usize, first: &str) {
        let (serving, _) = self.board.facts();
        let (generation, digest) =
            serving.map_or((0, String::new()), |serving| (serving.generation, serving.digest));
        warn!(
            findings = finding_count,
            first,
            generation,
            "policy rejected, last good set keeps serving; {}",
            if self.starts_from_last_good {
                "the next restart would serve the last good policy"
            } else {
                "the next restart would fail"
            }
        );
        (self.observer)(PolicyChange {
            accepted: false,
            generation,
            previous_digest: digest.clone(),
            digest,
            finding_count,
        });
    }
}

fn split(loaded: Loaded) -> (Attempt, [u8; 32], Vec<SourceFile>) {
    let Loaded { bytes, outcome, files } = loaded;
    let attempt = match outcome {
        Ok(accepted) => Attempt::Valid(accepted),
        Err(findings) => Attempt::Invalid(findings),
    };
    (attempt, bytes, files)
}

fn serving(active: &Active) -> Serving {
    Serving {
        generation: active.generation,
        digest: active.set.digest().to_string(),
        load_time: active.load_time,
        audiences: Arc::clone(active.set.audiences()),
    }
}

fn log_accepted(active: &Active, changes: &[Change], warnings: usize, took: Duration) {
    let mut named: Vec<String> = changes.iter().take(LOGGED_CHANGES).map(Change::to_string).collect();
    if changes.len() > LOGGED_CHANGES {
        named.push(format!("and {} more", changes.len() - LOGGED_CHANGES));
    }
    info!(
        generation = active.generation,
        digest = %active.set.digest(),
        audiences = active.set.audiences().len(),
        warnings,
        widening = changes.iter().any(|change| change.widening),
        changes = named.join("; "),
        ?took,
        "policy accepted"
    );
}
