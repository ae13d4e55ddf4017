//! The task that waits for a reason to look at the policy files, and has them looked at.

use std::fs;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Reloader, SavingJob, SavingOutcome};
use crate::server::background::{BackgroundError, in_background};
use crate::server::memory;
use crate::server::metrics::Metrics;
use crate::server::task_request::TaskRequestListener;
use crate::status::{StatusTracker, kind};
use crate::store::watch::{FolderWatch, Hints, WatchState, static_source};

/// The task that looks at the policy files.
#[derive(Debug)]
pub(in crate::server) struct Task {
    pub(in crate::server) reloader: Reloader,
    pub(in crate::server) folders: FolderWatch,
    pub(in crate::server) hints: Hints,
    /// Asks for a look whether something seems to have changed or not.
    pub(in crate::server) rereads: TaskRequestListener,
    pub(in crate::server) tracker: Arc<StatusTracker>,
    /// Of the policy that serves.
    pub(in crate::server) metrics: Option<Metrics>,
}

/// How often a look is repeated at once because a new folder came up; after that the hints decide.
const MAX_LOOKS: usize = 5;

impl Task {
    /// Looks until it is told to stop. What was accepted is on disk when this ends, if it can be written.
    ///
    /// # Errors
    /// A look panicked or could not begin, or the writing of the last good policy.
    pub(in crate::server) async fn run(self, stop: CancellationToken) -> Result<(), BackgroundError> {
        let Self { mut reloader, mut folders, hints, mut rereads, tracker, metrics } = self;
        let mut state = WatchState::Events;
        // The folders were armed by the first load already: look once more for what happened since.
        hints.hint();
        let mut planned: Option<Instant> = None;
        let mut saving: Option<Saving> = None;
        let mut is_first = true;
        'looks: loop {
            if *folders.state() != state {
                state = folders.state().clone();
                match &state {
                    WatchState::Events => info!("file events are back"),
                    WatchState::PollingOnly(reason) => {
                        warn!(reason, "no file events, changes are found by the rescan only");
                    }
                }
            }
            if let Some(metrics) = &metrics {
                metrics.watching(state == WatchState::Events);
            }
            // Waits on while something is written, so that no hint is lost in the middle of its debounce.
            let reason = hints.next(planned);
            tokio::pin!(reason);
            // Done once it is dropped, after the look.
            let _request = loop {
                if saving.is_none() {
                    saving = reloader.start_saving().map(save);
                }
                tokio::select! {
                    () = stop.cancelled() => break 'looks,
                    outcome = finished(&mut saving) => {
                        saving = None;
                        reloader = saved(reloader, outcome?).await?;
                    }
                    () = due(reloader.next_saving()) => {}
                    _ = &mut reason => break None,
                    request = rereads.next() => break Some(request),
                }
            };
            let (tracker, events) = (Arc::clone(&tracker), hints.clone());
            let is_start = std::mem::take(&mut is_first);
            (reloader, folders, planned) = in_background("reload", move || {
                let mut planned = None;
                // A directory that was moved away and back has lost its watch: it has to have one before the look.
                folders.before_walk(reloader.watch_targets());
                for _ in 0..MAX_LOOKS {
                    planned = reloader.look(events.last_event());
                    // A directory that came up while we looked may hold what we have not seen.
                    if !folders.arm(reloader.watch_targets()) {
                        break;
                    }
                }
                if let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") {
                    let fixed = static_source(reloader.watch_targets().files(), &mounts);
                    let fixed = fixed.map(|message| ("SingleFileMount", message));
                    tracker.toggle(kind::POLICY_SOURCE_STATIC, fixed, SystemTime::now());
                }
                if is_start {
                    // Everything runs that has to be started.
                    memory::forget_program();
                }
                (reloader, folders, planned)
            })
            .await?;
        }
        if let Some(saving) = saving {
            reloader = saved(reloader, saving.await?).await?;
        }
        if let Some(job) = reloader.start_saving() {
            saved(reloader, save(job).await?).await?;
        }
        Ok(())
    }
}

/// A last good policy that is being written.
type Saving = Pin<Box<dyn Future<Output = Result<SavingOutcome, BackgroundError>> + Send>>;

fn save(job: SavingJob) -> Saving {
    Box::pin(in_background("last-good", move || job.run()))
}

/// Hands an outcome over, after which the texts of a large policy are forgotten.
async fn saved(mut reloader: Reloader, outcome: SavingOutcome) -> Result<Reloader, BackgroundError> {
    in_background("reload", move || {
        reloader.saved(outcome);
        reloader
    })
    .await
}

/// That a moment has come; never if there is none.
async fn due(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// The outcome of what is being written; never if nothing is.
async fn finished(saving: &mut Option<Saving>) -> Result<SavingOutcome, BackgroundError> {
    match saving {
        Some(saving) => saving.await,
        None => std::future::pending().await,
    }
}
