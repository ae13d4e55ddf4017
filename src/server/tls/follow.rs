//! Follows the files of TLS: what is right is used for the next handshake, what is wrong leaves the last good material in use.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prost_types::Timestamp;
use tracing::{info, warn};

use super::{CurrentTls, TlsError, TlsFault, TlsFile, TlsMaterial, TlsRole};
use crate::server::follow::FollowedFiles;
use crate::server::metrics::Metrics;
use crate::status::{ConditionStatus, StatusTracker, kind};

/// Looks at the files whenever it is asked to.
#[derive(Debug)]
pub(in crate::server) struct TlsFollower {
    current: CurrentTls,
    followed: FollowedFiles,
    /// What is wrong, as it was found by the look before.
    found_wrong: Option<String>,
    is_failing: bool,
    tracker: Arc<StatusTracker>,
    metrics: Metrics,
}

impl TlsFollower {
    /// Shows what `current` has.
    pub(in crate::server) fn new(current: CurrentTls, tracker: Arc<StatusTracker>, metrics: Metrics) -> Self {
        let followed = FollowedFiles::new(current.files.paths());
        let follower = Self { current, followed, found_wrong: None, is_failing: false, tracker, metrics };
        follower.show_good(SystemTime::now());
        follower
    }

    /// Reads the files at the next look, changed or not.
    pub(in crate::server) const fn forget_state(&mut self) {
        self.followed.forget_state();
    }

    /// Looks once.
    ///
    /// A certificate and its key are two files, which nobody replaces at once: what is wrong counts only if the next look finds
    /// the same.
    pub(in crate::server) fn look(&mut self, now: SystemTime) {
        let changed = self.followed.look(now);
        if changed || self.found_wrong.is_some() {
            match self.load(now) {
                Ok(new) => self.take(new, now),
                Err(error) => self.refuse(&error, now),
            }
        }
        self.show_expiry(now);
    }

    fn load(&self, now: SystemTime) -> Result<TlsMaterial, TlsError> {
        let new = TlsMaterial::load(&self.current.files)?;
        let is_over = |material: &TlsMaterial| material.expiry(TlsRole::Server).is_some_and(|end| end <= now);
        if is_over(&new) && !is_over(&self.current.config.load()) {
            return Err(TlsError::new(
                TlsFile::Certificate,
                &self.current.files.certificate,
                TlsFault::Expired,
            ));
        }
        Ok(new)
    }

    fn take(&mut self, new: TlsMaterial, now: SystemTime) {
        self.found_wrong = None;
        let is_new = new.digest != self.current.config.load().digest;
        if is_new {
            self.current.config.store(Arc::new(new));
            let end = self.current.config.load().expiry(TlsRole::Server).map(shown_time).unwrap_or_default();
            info!(not_after = end, "new TLS material is used from now on");
        }
        if is_new || self.is_failing {
            self.is_failing = false;
            self.show_good(now);
        }
    }

    fn refuse(&mut self, error: &TlsError, now: SystemTime) {
        let message = error.to_string();
        if self.found_wrong.as_ref() == Some(&message) {
            let changed = self.tracker.set(
                kind::TLS_MATERIAL_VALID,
                ConditionStatus::False,
                error.reason(),
                format!("{message}; what was read before stays in use, a restart would fail"),
                now,
            );
            if changed {
                warn!(error = message, "TLS files are not valid, the last good ones stay in use");
            }
            self.is_failing = true;
        }
        self.found_wrong = Some(message);
    }

    fn show_good(&self, now: SystemTime) {
        let material = self.current.config.load();
        if material.is_key_exposed {
            let path = self.current.files.private_key.display();
            warn!(%path, "every user of this machine may read the private key; take the permission away with chmod");
        }
        let message = "certificate, key and client CA are in use as they are in the files".to_owned();
        self.tracker.set(kind::TLS_MATERIAL_VALID, ConditionStatus::True, "TlsMaterialLoaded", message, now);
        self.metrics.tls_not_after(&material.expiries);
    }

    fn show_expiry(&self, now: SystemTime) {
        let material = self.current.config.load();
        let soon = material.expiries.iter().filter(|(_, end)| *end <= now + EXPIRES_SOON);
        let soon: Vec<_> = soon
            .map(|(role, end)| (*end <= now, format!("{role} is valid until {}", shown_time(*end))))
            .collect();
        let shown = (!soon.is_empty()).then(|| {
            let reason = if soon.iter().any(|(is_over, _)| *is_over) {
                "CertificateExpired"
            } else {
                "CertificateExpiresSoon"
            };
            (reason, soon.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join("; "))
        });
        self.tracker.toggle(kind::TLS_CERTIFICATE_EXPIRING, shown, now);
    }
}

fn shown_time(time: SystemTime) -> String {
    Timestamp::from(time).to_string()
}

/// When an expiry is near enough to tell somebody.
const EXPIRES_SOON: Duration = Duration::from_secs(7 * 24 * 60 * 60);
