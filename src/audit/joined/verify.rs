//! The walk over every chain of the joined store.

use uuid::Uuid;

use super::row::ReadRow;
use super::store::JoinedStore;
use super::{Columns, JoinedError};
use crate::audit::chain::{BadRecord, ChainProblem, ChainWalk, VerifyReport, decode};
use crate::audit::record::{Head, Tip};

/// What was found of one log.
pub type JoinedReport = VerifyReport;

/// Walks the chain of one log: gapless, unaltered, nothing twice, each column as the record says, and the head that was kept elsewhere. The
/// walk begins with the oldest record that is there. A log without records has an empty report.
///
/// # Errors
///
/// The store cannot be read. A chain that does not hold is a report.
pub async fn verify_joined(
    store: &JoinedStore,
    log_id: Uuid,
    expected: Option<Head>,
) -> Result<JoinedReport, JoinedError> {
    let mut walk: Option<ChainWalk> = None;
    let mut reader = store.read(log_id).await?;
    loop {
        let rows = reader.page().await?;
        let Some(first) = rows.first() else { break };
        let walk = match &mut walk {
            Some(walk) => walk,
            None => {
                let before =
                    Head { sequence: first.stored.sequence.saturating_sub(1), hash: first.prev_hash };
                let walk = walk.insert(ChainWalk::new(log_id, Tip { head: before, latest_time: i64::MIN }));
                if let Err(bad) = walk.expect(expected) {
                    return Ok(walk.clone().finish(Some(bad)).0);
                }
                walk
            }
        };
        for row in rows {
            if let Err(bad) = take(walk, row) {
                return Ok(walk.clone().finish(Some(bad)).0);
            }
        }
    }
    let mut walk = walk.unwrap_or_else(|| {
        let nothing = Head { sequence: 0, hash: crate::audit::GENESIS_HASH };
        ChainWalk::new(log_id, Tip { head: nothing, latest_time: i64::MIN })
    });
    // For a log without records: it does not have the head either.
    let found = walk.expect(expected).err();
    Ok(walk.finish(found).0)
}

fn take(walk: &mut ChainWalk, mut row: ReadRow) -> Result<(), BadRecord> {
    let bad = |problem| BadRecord { sequence: row.stored.sequence, problem };
    // The time column of a store is not here; it follows from the record.
    let time = decode(&row.stored.content, row.stored.hash).map_or(i64::MIN, |record| record.body.time());
    let wrong_link = row.prev_hash != walk.last().head.hash;
    row.stored.latest_time = walk.last().latest_time.max(time);
    let record = walk.take(&row.stored)?;
    if wrong_link {
        return Err(bad(ChainProblem::LinkBroken));
    }
    match row.differs(&Columns::of(&record.body)) {
        None => Ok(()),
        Some(column) => Err(bad(ChainProblem::ColumnChanged { column })),
    }
}
