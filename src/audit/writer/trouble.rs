//! What the writer does while the store cannot be written: whom it refuses, when it tries again, and how it finds out what is there.

use std::collections::HashSet;
use std::time::{Duration, Instant, SystemTime};

use tracing::{info, warn};

use super::super::AuditError;
use super::super::chain::ChainWalk;
use super::super::encoding::event_id;
use super::super::ledger::LedgerError;
use super::super::record::{Body, Tip};
use super::super::repair::fill_lost;
use super::super::shared::{Degraded, DegradedReason};
use super::{Writer, WriterSettings};
use crate::backoff::Backoff;

/// The wait after a first failure, doubled up to the longest.
const FIRST_RETRY: Duration = Duration::from_millis(20);
const LONGEST_RETRY: Duration = Duration::from_secs(1);
/// Until the wait is longer than this, events that somebody waits for stay in the queue for the next
/// attempt, so that one failure refuses one batch. After that they are refused at once.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);
/// After so many failures in a row the store is opened again, and then again.
const FAILURES_TO_REOPEN: u32 = 3;

/// The store cannot be written at the moment.
pub(super) struct WriterTrouble {
    since: SystemTime,
    pub(super) error: String,
    backoff: Backoff,
    /// The wait after the last failure.
    pub(super) delay: Duration,
    pub(super) retry_at: Instant,
    /// Whether the log has a line about it.
    is_logged: bool,
}

impl Writer {
    /// How long the wait after the last failure is, while it lasts.
    pub(super) fn backoff(&self) -> Option<Duration> {
        let trouble = self.trouble.as_ref()?;
        (Instant::now() < trouble.retry_at).then_some(trouble.delay)
    }

    /// Fails those who wait for an answer, while the store is known not to work.
    pub(super) fn refuse(&mut self) {
        let Some(cause) = self.trouble.as_ref().map(|trouble| trouble.error.clone()) else {
            return;
        };
        if !self.waiting.is_awaited() {
            return;
        }
        let mut woken = Vec::new();
        for mut reply in self.shared.queue.leave_unless(&mut self.waiting, |entry, _| !entry.is_awaited) {
            woken.extend(reply.settle(Err(AuditError::NotDurable { cause: cause.clone() })));
        }
        woken.iter().for_each(|waiter| waiter.wake());
        self.release_reads_of_gone();
    }

    /// After failures: opens the store again if it is time to, and finds out what it has.
    pub(super) fn make_sure(&mut self) -> Result<(), LedgerError> {
        self.locked.check()?;
        if self.reopen {
            self.ledger.reopen()?;
            self.reopen = false;
        }
        if self.unsure {
            self.reconcile()?;
            self.unsure = false;
        }
        Ok(())
    }

    /// After a failure: finds out from the store what was written.
    ///
    /// A failed commit normally left nothing. If it did (the store was opened again and recovered
    /// the transaction), its records must not be written a second time.
    fn reconcile(&mut self) -> Result<(), LedgerError> {
        let found = self.ledger.tip()?;
        if found.head == self.tip.head {
            return Ok(());
        }
        if found.head.sequence < self.tip.head.sequence {
            return self.restore(found);
        }
        let mut stored = Vec::new();
        let mut walk = ChainWalk::new(self.settings.log_id, self.tip);
        let mut known = HashSet::new();
        while walk.last().head.sequence < found.head.sequence {
            let rows = self.ledger.rows_after(walk.last().head.sequence, 1000)?;
            if rows.is_empty() {
                return Err(LedgerError::Diverged);
            }
            for row in rows {
                let record = walk.take(&row).map_err(|_| LedgerError::Diverged)?;
                match record.body {
                    Body::Event(event) => {
                        known.insert(event.event_id);
                    }
                    Body::Gap(gap) => self.shared.losses.subtract(&gap),
                }
                stored.push(row);
            }
        }
        let tip = walk.last();
        if tip.head != found.head {
            return Err(LedgerError::Diverged);
        }
        // Nobody waits for any of them: who did was refused when the commit failed.
        self.shared.queue.leave_unless(&mut self.waiting, |_, fields| !known.contains(&event_id(fields)));
        self.release_reads_of_gone();
        self.accounted = self.ledger.accounted()?;
        let mut recent = self.shared.recent();
        stored.into_iter().for_each(|row| recent.push(row));
        drop(recent);
        self.advance(tip);
        Ok(())
    }

    /// The store has lost records that were acknowledged: puts back those that are still in memory,
    /// or gives the sequence of each to a gap.
    fn restore(&mut self, found: Tip) -> Result<(), LedgerError> {
        let WriterSettings { log_id, retention, .. } = &self.settings;
        let durable = self.tip.head.sequence;
        let lost = durable - found.head.sequence;
        let in_memory = self.shared.recent_after(found.head.sequence, usize::MAX);
        match in_memory.filter(|(place, _)| *place == found) {
            Some((_, rows)) => {
                self.ledger.begin()?;
                self.ledger.append(&rows)?;
                self.ledger.account(self.accounted)?;
                self.ledger.commit()?;
                warn!(lost, "the store had lost audit records, which were put back from memory");
            }
            None => {
                let now = (retention.clock.wall)();
                let tip = fill_lost(self.ledger.as_mut(), *log_id, found, durable, now)?;
                warn!(lost, "the store has lost audit records; gaps have their sequences");
                self.shared.figures.lost(lost);
                self.shared.recent().reset(tip);
                self.accounted = self.ledger.accounted()?;
                self.advance(tip);
            }
        }
        Ok(())
    }

    /// Notes a failure and fails those who wait. Returns false for the caller to pass on.
    pub(super) fn failed(&mut self, error: &LedgerError) -> bool {
        self.ledger.rollback();
        self.note_damage(error);
        self.unsure = true;
        self.shared.figures.error();
        let now = Instant::now();
        let trouble = self.trouble.get_or_insert_with(|| WriterTrouble {
            since: (self.settings.retention.clock.wall)(),
            error: String::new(),
            backoff: Backoff::new(FIRST_RETRY, LONGEST_RETRY),
            delay: Duration::ZERO,
            retry_at: now,
            is_logged: false,
        });
        if let Some(count) = self.write_errors.count(now) {
            warn!(%error, count, "audit log cannot be written");
            trouble.is_logged = true;
        }
        trouble.error = error.to_string();
        trouble.delay = trouble.backoff.failed();
        trouble.retry_at = now + trouble.delay;
        let reason = match error {
            LedgerError::StateDirectory(_) => DegradedReason::StateDirectoryMissing,
            _ => DegradedReason::AppendFailed,
        };
        let degraded = Degraded { since: trouble.since, reason, error: trouble.error.clone() };
        self.reopen |=
            error.wants_reopening() || trouble.backoff.failures().is_multiple_of(FAILURES_TO_REOPEN);
        self.shared.set_degraded(Some(degraded));
        self.refuse();
        // Readers get what is durable.
        self.release_reads(usize::MAX);
        false
    }

    pub(super) fn recovered(&mut self) {
        if let Some(trouble) = self.trouble.take() {
            if trouble.is_logged {
                info!(failures = trouble.backoff.failures(), "audit log is written again");
            }
            self.shared.set_degraded(None);
        }
    }
}
