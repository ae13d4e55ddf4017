//! The part of the server that keeps the shadow policy: loads it as the serving one is loaded, decides what was answered
//! again, and shows its state among the conditions.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use super::reload::Reloader;
use super::reload::task::Task;
use super::supervisor::PartResult;
use super::task_request::TaskRequests;
use crate::rpc::shadow::{Shadow, ShadowQuestion};
use crate::status::{StatusTracker, kind};
use crate::store::load::Loader;
use crate::store::read::ReadSettings;
use crate::store::watch::{FolderWatch, Hints};

/// What the part needs to run, and to run again.
#[derive(Clone, Debug)]
pub(super) struct ShadowPart {
    pub(super) shadow: Shadow,
    pub(super) questions: Arc<Mutex<mpsc::Receiver<ShadowQuestion>>>,
    pub(super) policies: PathBuf,
    pub(super) debounce: Duration,
    pub(super) removal_quiet: Duration,
    pub(super) rescan_interval: Duration,
    pub(super) read: ReadSettings,
    pub(super) rereads: TaskRequests,
    /// Where the conditions of the server are.
    pub(super) tracker: Arc<StatusTracker>,
}

impl ShadowPart {
    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// If a look at the files or a comparison panicked.
    pub(super) async fn run(self, stop: CancellationToken) -> PartResult {
        let Self {
            shadow,
            questions,
            policies,
            debounce,
            removal_quiet,
            rescan_interval,
            read,
            rereads,
            tracker,
        } = self;
        tracker.toggle(kind::SHADOW_STALLED, None, SystemTime::now());
        let hints = Hints::new(debounce, rescan_interval);
        let task = Task {
            reloader: Reloader::for_shadow(
                Loader::new(vec![policies], read),
                removal_quiet,
                Arc::clone(shadow.current()),
                Arc::clone(shadow.tracker()),
            ),
            folders: FolderWatch::new(hints.clone()),
            hints,
            rereads: rereads.listen(),
            tracker: Arc::clone(shadow.tracker()),
            metrics: None,
        };
        let mirror = mirror(shadow.tracker(), &tracker);
        tokio::select! {
            ended = task.run(stop) => ended.map_err(|error| error.to_string()),
            ended = compare(&shadow, &questions) => ended,
            () = mirror => Ok(()),
        }
    }
}

/// Decides what was answered again, off the serving threads.
async fn compare(shadow: &Shadow, questions: &Mutex<mpsc::Receiver<ShadowQuestion>>) -> PartResult {
    let mut questions = questions.lock().await;
    loop {
        let mut taken = Vec::new();
        if questions.recv_many(&mut taken, AT_ONCE).await == 0 {
            // The services are gone, and with them all who ask.
            return std::future::pending().await;
        }
        let shadow = shadow.clone();
        let comparing = tokio::task::spawn_blocking(move || {
            for question in taken {
                shadow.compare(&question);
            }
        });
        comparing.await.map_err(|error| error.to_string())?;
    }
}

/// Shows the conditions of the shadow among those of the server, each with `Shadow` before its name.
async fn mirror(shadow: &StatusTracker, tracker: &StatusTracker) {
    let mut changes = shadow.watch();
    loop {
        let snapshot = Arc::clone(&changes.borrow_and_update());
        for (of_shadow, shown) in SHOWN {
            let found = snapshot.conditions.iter().find(|condition| condition.kind == of_shadow);
            let state = found.map(|found| (found.status, found.reason, found.message.clone()));
            tracker.show(shown, state, SystemTime::now());
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Which conditions of the shadow are shown as which.
const SHOWN: [(&str, &str); 5] = [
    (kind::POLICY_ACCEPTED, kind::SHADOW_POLICY_ACCEPTED),
    (kind::BASELINE_SCOPES_VALID, kind::SHADOW_BASELINE_SCOPES_VALID),
    (kind::SERVING_LAST_GOOD, kind::SHADOW_SERVING_LAST_GOOD),
    (kind::POLICY_SOURCE_STATIC, kind::SHADOW_POLICY_SOURCE_STATIC),
    (kind::POLICY_SOURCE_UNSTABLE, kind::SHADOW_POLICY_SOURCE_UNSTABLE),
];
/// Questions that are decided before others are asked for.
const AT_ONCE: usize = 64;
