//! The slow walk over the whole chain of an open log, page by page whenever the writer has nothing
//! else to do: after each start and then once a day.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::chain::{BadRecord, ChainProblem, ChainWalk};
use super::ledger::Ledger;
use super::record::Tip;

/// How much one step reads.
const STEP_ROWS: usize = 256;
const STEP_BYTES: usize = 512 << 10;
/// The least time between two steps, and between two walks.
const STEP_PAUSE: Duration = Duration::from_millis(20);
const WALK_PAUSE: Duration = Duration::from_secs(24 * 60 * 60);

/// Where the walk is.
#[derive(Debug)]
pub(super) struct ChainCheck {
    log_id: Uuid,
    walk: Option<ChainWalk>,
    next: Instant,
}

/// What a whole walk found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum WalkResult {
    Intact,
    Bad(BadRecord),
}

impl ChainCheck {
    /// A walk begins at once.
    pub(super) const fn new(log_id: Uuid, now: Instant) -> Self {
        Self { log_id, walk: None, next: now }
    }

    /// When the next step is due.
    pub(super) const fn next(&self) -> Instant {
        self.next
    }

    /// Takes one step, if it is due. `tip` is the end of what is durable. `Some` at the end of a
    /// walk. A store that cannot be read for another reason than damage is tried again.
    pub(super) fn step(&mut self, ledger: &mut dyn Ledger, tip: Tip, now: Instant) -> Option<WalkResult> {
        if now < self.next {
            return None;
        }
        self.next = now + STEP_PAUSE;
        let base = ledger.base().ok()?;
        let walk = self.walk.get_or_insert_with(|| ChainWalk::new(self.log_id, base));
        if base.head.sequence > walk.last().head.sequence {
            // Retention has overtaken the walk.
            walk.skip_to(base);
        }
        let after = walk.last().head.sequence;
        let found = match ledger.page(after, tip.head.sequence, STEP_ROWS, STEP_BYTES) {
            Ok(rows) => match rows.iter().try_for_each(|row| walk.take(row).map(drop)) {
                Err(bad) => WalkResult::Bad(bad),
                Ok(()) if walk.last().head.sequence >= tip.head.sequence => WalkResult::Intact,
                Ok(()) if rows.is_empty() => {
                    let problem = ChainProblem::EndsEarly { newest: after };
                    WalkResult::Bad(BadRecord { sequence: after + 1, problem })
                }
                Ok(()) => return None,
            },
            Err(error) => {
                let error = super::AuditError::from(error);
                if !error.is_damage() {
                    self.next = now + Duration::from_secs(1);
                    return None;
                }
                let problem = ChainProblem::Unreadable(error.to_string());
                WalkResult::Bad(BadRecord { sequence: after + 1, problem })
            }
        };
        self.walk = None;
        self.next = now + WALK_PAUSE;
        Some(found)
    }
}
