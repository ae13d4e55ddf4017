//! A connection to the joined store, of whichever kind it is, and the two ways to read it: a log at a time, or all of them by time.

use std::sync::Arc;
use std::time::SystemTime;

use uuid::Uuid;

#[cfg(feature = "nats")]
use super::nats::{NatsMerge, NatsReader, NatsStore};
use super::postgres::PostgresStore;
use super::row::{MergePlace, ReadRow};
use super::target::{JoinedTarget, TargetPlace};
use super::{JoinedError, JoinedProblem, JoinedRow};
use crate::audit::record::{GENESIS_HASH, Head, Record};

/// A connection to the joined store.
pub struct JoinedStore(StoreKind);

enum StoreKind {
    Postgres(PostgresStore),
    #[cfg(feature = "nats")]
    Nats(Box<NatsStore>),
}

/// What a store lost of a log.
#[derive(Debug)]
pub(in crate::audit) enum MissingRecords {
    /// Ranges of sequences, both ends included, which it takes again. There may be more after the last of them.
    Ranges(Vec<(u64, u64)>),
    /// So many records, which it cannot take again; nothing if it has all.
    #[cfg_attr(not(feature = "nats"), expect(dead_code, reason = "tables take every record again"))]
    ForGood(u64),
}

impl JoinedStore {
    /// Connects.
    ///
    /// # Errors
    ///
    /// It cannot be reached within 30 s, or does not let the role in.
    pub async fn connect(target: &JoinedTarget) -> Result<Self, JoinedError> {
        Ok(Self(match target.place() {
            TargetPlace::Postgres(config) => {
                StoreKind::Postgres(PostgresStore::connect(target, config).await?)
            }
            #[cfg(feature = "nats")]
            TargetPlace::Nats(place) => StoreKind::Nats(Box::new(NatsStore::connect(target, place).await?)),
        }))
    }

    /// Which store it is.
    #[must_use]
    pub fn shown(&self) -> &Arc<str> {
        match &self.0 {
            StoreKind::Postgres(store) => store.shown(),
            #[cfg(feature = "nats")]
            StoreKind::Nats(store) => store.shown(),
        }
    }

    /// Returns once the connection is gone.
    pub(in crate::audit) async fn broken(&self) {
        match &self.0 {
            StoreKind::Postgres(store) => store.broken().await,
            #[cfg(feature = "nats")]
            StoreKind::Nats(store) => store.broken().await,
        }
    }

    /// Makes the tables and views that are not there, or the stream, on so many servers of the cluster.
    ///
    /// # Errors
    ///
    /// The role may not, or what is there is of another kind.
    pub async fn create_schema(
        &mut self,
        #[cfg_attr(not(feature = "nats"), expect(unused_variables, reason = "tables have no replicas"))]
        replicas: usize,
    ) -> Result<(), JoinedError> {
        match &mut self.0 {
            StoreKind::Postgres(store) => store.create_schema().await,
            #[cfg(feature = "nats")]
            StoreKind::Nats(store) => store.create_stream(replicas).await,
        }
    }

    /// Looks whether the tables are there and of this version, or whether the stream is there.
    ///
    /// # Errors
    ///
    /// [`JoinedProblem::NoSchema`], [`JoinedProblem::OtherSchema`] or [`JoinedProblem::NoStream`].
    pub async fn check_schema(&self) -> Result<(), JoinedError> {
        match &self.0 {
            StoreKind::Postgres(store) => store.check_schema().await,
            #[cfg(feature = "nats")]
            StoreKind::Nats(store) => store.check_stream().await,
        }
    }

    /// The same for one who writes: it also has to keep what it takes. Returns on how many servers a stream is, which no table says.
    ///
    /// # Errors
    ///
    /// Those of [`check_schema`](Self::check_schema), and [`JoinedProblem::UnfitStream`].
    pub(in crate::audit) async fn check_writable(&mut self) -> Result<Option<usize>, JoinedError> {
        match &mut self.0 {
            StoreKind::Postgres(store) => store.check_schema().await.map(|()| None),
            #[cfg(feature = "nats")]
            StoreKind::Nats(store) => store.check_kept().await.map(Some),
        }
    }

    /// The logs that have records there.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub async fn logs(&self) -> Result<Vec<Uuid>, JoinedError> {
        match &self.0 {
            StoreKind::Postgres(store) => store.logs().await,
            #[cfg(feature = "nats")]
            StoreKind::Nats(store) => store.logs().await,
        }
    }

    /// The newest record of a log; `None` if it has none there.
    pub(in crate::audit) async fn head(&mut self, log_id: Uuid) -> Result<Option<Head>, JoinedError> {
        match &mut self.0 {
            StoreKind::Postgres(store) => store.head(log_id).await,
            #[cfg(feature = "nats")]
            StoreKind::Nats(store) => store.head(log_id).await,
        }
    }

    /// What is missing there of a log after `after`, up to its newest record there.
    pub(in crate::audit) async fn missing(
        &mut self,
        log_id: Uuid,
        after: u64,
    ) -> Result<MissingRecords, JoinedError> {
        match &mut self.0 {
            StoreKind::Postgres(store) => store.missing(log_id, after).await.map(MissingRecords::Ranges),
            #[cfg(feature = "nats")]
            StoreKind::Nats(store) => store.missing(log_id, after).await.map(MissingRecords::ForGood),
        }
    }

    /// Whether it still has every record after `verified`, up to `place`, but for those that are known to be missing for good.
    pub(in crate::audit) async fn has_all(
        &mut self,
        log_id: Uuid,
        verified: Head,
        place: Head,
    ) -> Result<bool, JoinedError> {
        let head = self.head(log_id).await?.unwrap_or(Head { sequence: 0, hash: GENESIS_HASH });
        if head != place {
            return Ok(false);
        }
        match &mut self.0 {
            StoreKind::Postgres(store) => {
                let count = store.count_after(log_id, verified.sequence).await?;
                Ok(count == place.sequence - verified.sequence)
            }
            #[cfg(feature = "nats")]
            StoreKind::Nats(store) => store.has_lost_no_more(log_id).await,
        }
    }

    /// Adds records that come after its newest one, or, in PostgreSQL, are missing before it.
    pub(in crate::audit) async fn append(
        &mut self,
        log_id: Uuid,
        rows: &[JoinedRow],
    ) -> Result<(), JoinedError> {
        match &mut self.0 {
            StoreKind::Postgres(store) => store.append(log_id, rows).await,
            #[cfg(feature = "nats")]
            StoreKind::Nats(store) => store.append(log_id, rows).await,
        }
    }

    /// Reads one log from its oldest record there.
    pub(super) async fn read(&self, log_id: Uuid) -> Result<JoinedReader<'_>, JoinedError> {
        Ok(JoinedReader(match &self.0 {
            StoreKind::Postgres(store) => ReaderKind::Postgres { store, log_id, after: 0 },
            #[cfg(feature = "nats")]
            StoreKind::Nats(store) => ReaderKind::Nats(Box::new(store.read(log_id).await?)),
        }))
    }

    /// Reads all logs, merged by time, from a time on.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    pub async fn read_merged(&self, start: SystemTime) -> Result<MergedReader<'_>, JoinedError> {
        // No log has the nil UUID, and no record the sequence 0: everything of that time comes after.
        let after = MergePlace { time: start, log_id: Uuid::nil(), sequence: 0 };
        Ok(MergedReader(match &self.0 {
            StoreKind::Postgres(store) => MergeKind::Postgres { store, after },
            #[cfg(feature = "nats")]
            StoreKind::Nats(store) => MergeKind::Nats(store.read_merged(after).await?),
        }))
    }

    pub(in crate::audit) fn error(&self, problem: JoinedProblem) -> JoinedError {
        JoinedError { store: Arc::clone(self.shown()), problem }
    }
}

impl std::fmt::Debug for JoinedStore {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("JoinedStore").field("shown", &self.shown()).finish_non_exhaustive()
    }
}

/// A log of the joined store, page by page.
pub struct JoinedReader<'s>(ReaderKind<'s>);

enum ReaderKind<'s> {
    Postgres {
        store: &'s PostgresStore,
        log_id: Uuid,
        after: u64,
    },
    #[cfg(feature = "nats")]
    Nats(Box<NatsReader<'s>>),
}

impl JoinedReader<'_> {
    /// The next records, in the order in which the store has them. Empty at the end.
    pub(super) async fn page(&mut self) -> Result<Vec<ReadRow>, JoinedError> {
        match &mut self.0 {
            ReaderKind::Postgres { store, log_id, after } => {
                let rows = store.page(*log_id, *after).await?;
                *after = rows.last().map_or(*after, |row| row.stored.sequence);
                Ok(rows)
            }
            #[cfg(feature = "nats")]
            ReaderKind::Nats(reader) => reader.page().await,
        }
    }
}

/// All logs of the joined store, merged by time, page by page.
pub struct MergedReader<'s>(MergeKind<'s>);

enum MergeKind<'s> {
    Postgres {
        store: &'s PostgresStore,
        after: MergePlace,
    },
    #[cfg(feature = "nats")]
    Nats(NatsMerge<'s>),
}

impl MergedReader<'_> {
    /// The next records, each checked against its own hash. Empty at the end.
    ///
    /// # Errors
    ///
    /// The store cannot be read, or [`JoinedProblem::Bad`].
    pub async fn page(&mut self) -> Result<Vec<(MergePlace, Record)>, JoinedError> {
        match &mut self.0 {
            MergeKind::Postgres { store, after } => {
                let records = store.records(*after).await?;
                *after = records.last().map_or(*after, |(place, _)| *place);
                Ok(records)
            }
            #[cfg(feature = "nats")]
            MergeKind::Nats(merge) => merge.page().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::TargetContext;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_store_that_never_answers_is_given_up_and_named_slow() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        let url = format!("postgres://w@127.0.0.1:{port}/audit");
        let target = JoinedTarget::parse(&url, &TargetContext::default()).unwrap();
        let begin = tokio::time::Instant::now();
        let error = JoinedStore::connect(&target).await.unwrap_err();
        assert_eq!((error.problem.reason(), begin.elapsed().as_secs()), ("DestinationSlow", 30));
        assert_eq!(
            error.to_string(),
            format!("the joined audit store 127.0.0.1:{port}/audit: did not answer within 30 s")
        );
    }
}
