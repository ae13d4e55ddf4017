//! Reading the store of a state directory in the place of a server's stream.

use std::path::Path;
use std::time::SystemTime;

use anyhow::anyhow;

use super::refusal::{out_of_range, replaced};
use super::selection::Choice;
use super::{ReadingEnd, TailRun};
use crate::audit::{self, AuditError, Cursor, Scan};
use crate::rpc::v1::AuditStart;
use crate::rpc::v1::stream_audit_events_request::Start;

impl TailRun {
    /// Reads to the newest record.
    pub(super) async fn read_store(&mut self, state_dir: &Path) -> Result<ReadingEnd, ReadingEnd> {
        let place = self.sink.received().cloned();
        let (start, log_id) = match place {
            Some(Cursor { log_id, sequence }) => (audit::Start::After(sequence), log_id),
            None => (self.start()?, self.request.log_id.clone()),
        };
        let path = audit::store_of(state_dir);
        let scan =
            Scan::open(&path, start, &log_id).map_err(|error| self.not_from_there(error, start, &path))?;
        let log_id = scan.log_id().to_string();
        let mut through = scan.position().sequence;
        // A file that cannot be written is found out before anything is printed.
        self.sink.move_to(Cursor { log_id: log_id.clone(), sequence: through });
        self.sink.save()?;
        for record in scan {
            if self.stop.is_cancelled() {
                return Ok(ReadingEnd::Stopped);
            }
            let record = record?;
            let sequence = record.body.sequence();
            let message = record.into_message();
            match self.selection.choose(&message) {
                Choice::End => break,
                Choice::Print => self.sink.take(message)?,
                Choice::Pass => self.sink.move_to(Cursor { log_id: log_id.clone(), sequence }),
            }
            through = sequence;
            if self.sink.is_full() {
                self.flush().await?;
            }
        }
        self.sink.move_to(Cursor { log_id, sequence: through });
        self.flush().await?;
        Ok(ReadingEnd::Done)
    }

    /// The start that was asked for.
    fn start(&self) -> Result<audit::Start, ReadingEnd> {
        Ok(match &self.request.start {
            Some(Start::AfterSequence(sequence)) => audit::Start::After(*sequence),
            Some(Start::Position(position)) if *position == i32::from(AuditStart::Latest) => {
                audit::Start::Latest
            }
            Some(Start::StartTime(time)) => audit::Start::Time(SystemTime::try_from(*time)?),
            Some(Start::Position(_)) | None => audit::Start::Earliest,
        })
    }

    fn not_from_there(&self, error: AuditError, start: audit::Start, path: &Path) -> ReadingEnd {
        let store = format!("the store `{}`", path.display());
        let words = match (error, start) {
            (AuditError::OutOfRange { oldest, newest, .. }, audit::Start::After(sequence)) => {
                out_of_range(sequence, &self.origin, &store, oldest, newest)
            }
            (AuditError::ForeignLog { given, actual }, _) => {
                replaced(&given, &self.origin, &format!("{store} is of log `{actual}`"))
            }
            (error, _) => return ReadingEnd::Failed(error.into()),
        };
        ReadingEnd::Failed(anyhow!(words))
    }
}
