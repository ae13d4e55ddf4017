//! Reading the logs of many servers from the joined store, merged by time.

use std::time::{SystemTime, UNIX_EPOCH};

use super::selection::Choice;
use super::{ReadingEnd, TailRun};
use crate::audit::joined::{JoinedStore, JoinedTarget};
use crate::rpc::v1::AuditStart;
use crate::rpc::v1::stream_audit_events_request::Start;

impl TailRun {
    /// Reads to the newest record that was there when it was reached.
    pub(super) async fn read_joined(&mut self, target: &JoinedTarget) -> Result<ReadingEnd, ReadingEnd> {
        let time = match &self.request.start {
            Some(Start::StartTime(time)) => SystemTime::try_from(*time)?,
            Some(Start::Position(position)) if *position == i32::from(AuditStart::Latest) => {
                SystemTime::now()
            }
            _ => UNIX_EPOCH,
        };
        let store = JoinedStore::connect(target).await?;
        store.check_schema().await?;
        let mut reader = store.read_merged(time).await?;
        let wanted = self.request.log_id.clone();
        loop {
            let records = reader.page().await?;
            if records.is_empty() {
                break;
            }
            for (at, record) in records {
                if self.stop.is_cancelled() {
                    return Ok(ReadingEnd::Stopped);
                }
                if !wanted.is_empty() && at.log_id.to_string() != wanted {
                    continue;
                }
                let message = record.into_message();
                match self.selection.choose(&message) {
                    Choice::End => {
                        self.flush().await?;
                        return Ok(ReadingEnd::Done);
                    }
                    Choice::Print => self.sink.take(message)?,
                    Choice::Pass => {}
                }
                if self.sink.is_full() {
                    self.flush().await?;
                }
            }
        }
        self.flush().await?;
        Ok(ReadingEnd::Done)
    }
}
