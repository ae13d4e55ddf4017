//! The joined store in PostgreSQL, or whatever speaks its protocol: how it is connected to, written and read.

use std::pin::pin;
use std::sync::Arc;

use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, Connection, NoTls, Row, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::row::{MergePlace, ReadColumns, ReadRow};
use super::target::JoinedTarget;
use super::{Columns, JoinedError, JoinedProblem, JoinedRow, step};
use crate::audit::chain::{StoredRow, decode};
use crate::audit::record::{Hash, Head, Record};

/// The statements that make the tables and views.
pub const SCHEMA: &str = include_str!("schema.sql");
/// The version of them.
const VERSION: i32 = 2;

/// How many rows one query reads.
const PAGE_ROWS: i64 = 1000;
/// How many sequences are looked through at once for what an older schema did not have.
const FILL_ROWS: i64 = 1000;

/// The columns in the order in which they are written; those before `event_time` are the record itself.
const COLUMNS: &str = "log_id, sequence, prev_hash, hash, record, event_time, kind, decision_id, correlation_id, caller, client_id, \
    client_name, audiences, requested_scopes, granted_scopes, added_scopes, added_origins, added_rules, refused_scopes, reason, \
    policy_digest, missing_events, token_grant, token_granted_scopes";
const TYPES: [Type; 24] = [
    Type::UUID,
    Type::INT8,
    Type::BYTEA,
    Type::BYTEA,
    Type::BYTEA,
    Type::TIMESTAMPTZ,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT,
    Type::TEXT,
    Type::INT8,
    Type::TEXT,
    Type::TEXT_ARRAY,
];

/// A connection to a joined store in PostgreSQL.
pub(super) struct PostgresStore {
    client: Client,
    shown: Arc<str>,
    broken: CancellationToken,
    /// What adds records, once it was needed.
    copy: Option<Statement>,
}

impl PostgresStore {
    /// Connects.
    pub(super) async fn connect(target: &JoinedTarget, config: &Config) -> Result<Self, JoinedError> {
        let shown: Arc<str> = target.shown().into();
        let broken = CancellationToken::new();
        let ended = broken.clone().drop_guard();
        let connecting = async {
            let mut config = config.clone();
            if let Some(password) = target.file_password().await.map_err(JoinedProblem::Credentials)? {
                config.password(password);
            }
            Ok::<_, JoinedProblem>(match target.tls() {
                None => {
                    let (client, connection) = config.connect(NoTls).await?;
                    drop(tokio::spawn(run(connection, ended)));
                    client
                }
                Some(tls) => {
                    let tls = MakeRustlsConnect::new(ClientConfig::clone(tls));
                    let (client, connection) = config.connect(tls).await?;
                    drop(tokio::spawn(run(connection, ended)));
                    client
                }
            })
        };
        let client = step(&shown, connecting).await?;
        Ok(Self { client, shown, broken, copy: None })
    }

    /// Returns once the connection is gone.
    pub(super) async fn broken(&self) {
        self.broken.cancelled().await;
    }

    /// Which store it is.
    pub(super) const fn shown(&self) -> &Arc<str> {
        &self.shown
    }

    /// Makes the tables and views that are not there, and brings older ones up to date.
    pub(super) async fn create_schema(&self) -> Result<(), JoinedError> {
        match self.check_schema().await {
            Err(JoinedError { problem: JoinedProblem::OtherSchema { found, .. }, .. }) if found < VERSION => {
            }
            Err(JoinedError { problem: JoinedProblem::NoSchema, .. }) | Ok(()) => {}
            newer => return newer,
        }
        step(&self.shown, async { Ok(self.client.batch_execute(SCHEMA).await?) }).await?;
        for log_id in self.logs().await? {
            self.fill_token_columns(log_id).await?;
        }
        self.check_schema().await
    }

    /// Fills in what the columns of schema 2 say of records that a program with schema 1 wrote.
    async fn fill_token_columns(&self, log_id: Uuid) -> Result<(), JoinedError> {
        let select = "SELECT sequence, record FROM scopeward_audit
                      WHERE log_id = $1 AND sequence > $2 AND sequence <= $3 AND kind = 'DENIAL' AND token_grant IS NULL";
        let update = "UPDATE scopeward_audit SET token_grant = $3, token_granted_scopes = $4 WHERE log_id = $1 AND sequence = $2";
        let newest = self.head(log_id).await?.map_or(0, |head| signed(head.sequence));
        let update = step(&self.shown, async { Ok(self.client.prepare(update).await?) }).await?;
        let mut after = 0;
        while after < newest {
            step(&self.shown, async {
                self.client.batch_execute("BEGIN").await?;
                for row in self.client.query(select, &[&log_id, &after, &(after + FILL_ROWS)]).await? {
                    let (sequence, content): (i64, Vec<u8>) = (row.try_get(0)?, row.try_get(1)?);
                    // What cannot be read is for `verify` to name.
                    let Ok(record) = decode(&content, Hash::default()) else { continue };
                    let Columns { token_grant, token_granted_scopes, .. } = Columns::of(&record.body);
                    if token_grant.is_some() {
                        let values: [&(dyn ToSql + Sync); 4] =
                            [&log_id, &sequence, &token_grant, &token_granted_scopes];
                        self.client.execute(&update, &values).await?;
                    }
                }
                Ok(self.client.batch_execute("COMMIT").await?)
            })
            .await?;
            after += FILL_ROWS;
        }
        Ok(())
    }

    /// Looks whether the tables are there and of this version.
    pub(super) async fn check_schema(&self) -> Result<(), JoinedError> {
        let found = step(&self.shown, async {
            let select = "SELECT max(version) FROM scopeward_audit_schema";
            let found: Option<i32> = self.client.query_one(select, &[]).await?.try_get(0)?;
            found.ok_or(JoinedProblem::NoSchema)
        });
        match found.await? {
            VERSION => Ok(()),
            found => Err(self.error(JoinedProblem::OtherSchema { found, expected: VERSION })),
        }
    }

    /// The logs that have records there.
    pub(super) async fn logs(&self) -> Result<Vec<Uuid>, JoinedError> {
        // Steps from log to log by the primary key, whatever the number of records.
        let select = "WITH RECURSIVE log (id) AS (
                          (SELECT log_id FROM scopeward_audit ORDER BY log_id LIMIT 1)
                          UNION ALL
                          SELECT (SELECT log_id FROM scopeward_audit WHERE log_id > log.id ORDER BY log_id LIMIT 1)
                          FROM log WHERE log.id IS NOT NULL)
                      SELECT id FROM log WHERE id IS NOT NULL";
        step(&self.shown, async {
            let rows = self.client.query(select, &[]).await?;
            Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The newest record of a log; `None` if it has none there.
    pub(super) async fn head(&self, log_id: Uuid) -> Result<Option<Head>, JoinedError> {
        let select =
            "SELECT sequence, hash FROM scopeward_audit WHERE log_id = $1 ORDER BY sequence DESC LIMIT 1";
        step(&self.shown, async {
            let Some(row) = self.client.query_opt(select, &[&log_id]).await? else { return Ok(None) };
            let sequence: i64 = row.try_get(0)?;
            Ok(Some(Head { sequence: sequence.unsigned_abs(), hash: hash(row.try_get(1)?)? }))
        })
        .await
    }

    /// How many records a log has there after a sequence.
    pub(super) async fn count_after(&self, log_id: Uuid, after: u64) -> Result<u64, JoinedError> {
        let select = "SELECT count(*) FROM scopeward_audit WHERE log_id = $1 AND sequence > $2";
        step(&self.shown, async {
            let count: i64 = self.client.query_one(select, &[&log_id, &signed(after)]).await?.try_get(0)?;
            Ok(count.unsigned_abs())
        })
        .await
    }

    /// The ranges of sequences after `after` that are missing there between others, both ends included; at most 100.
    pub(super) async fn missing(&self, log_id: Uuid, after: u64) -> Result<Vec<(u64, u64)>, JoinedError> {
        let select = "SELECT before + 1, sequence - 1 FROM (
                          SELECT coalesce(lag(sequence) OVER (ORDER BY sequence), $2) AS before, sequence
                          FROM scopeward_audit WHERE log_id = $1 AND sequence > $2) AS placed
                      WHERE sequence > before + 1 ORDER BY sequence LIMIT 100";
        step(&self.shown, async {
            let rows = self.client.query(select, &[&log_id, &signed(after)]).await?;
            let ends = |row: &Row| {
                let (first, last): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
                Ok((first.unsigned_abs(), last.unsigned_abs()))
            };
            Ok(rows.iter().map(ends).collect::<Result<_, tokio_postgres::Error>>()?)
        })
        .await
    }

    /// Adds records in one transaction: all of them or none.
    pub(super) async fn append(&mut self, log_id: Uuid, rows: &[JoinedRow]) -> Result<(), JoinedError> {
        let shown = Arc::clone(&self.shown);
        step(&shown, async {
            let copy = match &self.copy {
                Some(copy) => copy,
                None => {
                    let copy = format!("COPY scopeward_audit ({COLUMNS}) FROM STDIN BINARY");
                    self.copy.insert(self.client.prepare(&copy).await?)
                }
            };
            let transaction = self.client.transaction().await?;
            let mut writer = pin!(BinaryCopyInWriter::new(transaction.copy_in(copy).await?, &TYPES));
            for JoinedRow { prev_hash, stored, columns } in rows {
                let values: [&(dyn ToSql + Sync); 24] = [
                    &log_id,
                    &signed(stored.sequence),
                    &prev_hash.as_slice(),
                    &stored.hash.as_slice(),
                    &&*stored.content,
                    &columns.event_time,
                    &columns.kind,
                    &columns.decision_id,
                    &columns.correlation_id,
                    &columns.caller,
                    &columns.client_id,
                    &columns.client_name,
                    &columns.audiences,
                    &columns.requested_scopes,
                    &columns.granted_scopes,
                    &columns.added_scopes,
                    &columns.added_origins,
                    &columns.added_rules,
                    &columns.refused_scopes,
                    &columns.reason,
                    &columns.policy_digest,
                    &columns.missing_events,
                    &columns.token_grant,
                    &columns.token_granted_scopes,
                ];
                writer.as_mut().write(&values).await?;
            }
            writer.finish().await?;
            transaction.commit().await?;
            Ok(())
        })
        .await
    }

    /// The next records of a log, in order, with what their columns say.
    pub(super) async fn page(&self, log_id: Uuid, after: u64) -> Result<Vec<ReadRow>, JoinedError> {
        let select = format!(
            "SELECT {COLUMNS} FROM scopeward_audit WHERE log_id = $1 AND sequence > $2 ORDER BY sequence LIMIT $3"
        );
        step(&self.shown, async {
            let rows = self.client.query(&select, &[&log_id, &signed(after), &PAGE_ROWS]).await?;
            rows.iter().map(read_row).collect()
        })
        .await
    }

    /// The next records of all logs, in the order of their time, each checked against its own hash. Empty at the end.
    pub(super) async fn records(&self, after: MergePlace) -> Result<Vec<(MergePlace, Record)>, JoinedError> {
        let select = format!(
            "SELECT {COLUMNS} FROM scopeward_audit WHERE (event_time, log_id, sequence) > ($1, $2, $3)
             ORDER BY event_time, log_id, sequence LIMIT $4"
        );
        let MergePlace { time, log_id, sequence } = after;
        step(&self.shown, async {
            let rows = self.client.query(&select, &[&time, &log_id, &signed(sequence), &PAGE_ROWS]).await?;
            rows.iter().map(|row| read_row(row)?.checked()).collect()
        })
        .await
    }

    fn error(&self, problem: JoinedProblem) -> JoinedError {
        JoinedError { store: Arc::clone(&self.shown), problem }
    }
}

/// Serves a connection to its end, and says that it ended.
async fn run<S, T>(connection: Connection<S, T>, ended: DropGuard)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    // Whoever waits for an answer hears why.
    _ = connection.await;
    drop(ended);
}

fn read_row(row: &Row) -> Result<ReadRow, JoinedProblem> {
    let sequence: i64 = row.try_get(1)?;
    let text = |at: usize| row.try_get::<_, Option<String>>(at);
    let list = |at: usize| row.try_get::<_, Option<Vec<String>>>(at);
    Ok(ReadRow {
        log_id: row.try_get(0)?,
        prev_hash: hash(row.try_get(2)?)?,
        stored: StoredRow {
            sequence: sequence.unsigned_abs(),
            latest_time: i64::MIN,
            content: row.try_get::<_, Vec<u8>>(4)?.into(),
            hash: hash(row.try_get(3)?)?,
        },
        event_time: row.try_get(5)?,
        columns: Some(ReadColumns {
            texts: [
                text(6)?,
                text(7)?,
                text(8)?,
                text(9)?,
                text(10)?,
                text(11)?,
                text(19)?,
                text(20)?,
                text(22)?,
            ],
            lists: [list(12)?, list(13)?, list(14)?, list(15)?, list(16)?, list(17)?, list(18)?, list(23)?],
            missing_events: row.try_get(21)?,
        }),
    })
}

fn hash(bytes: Vec<u8>) -> Result<Hash, JoinedProblem> {
    let count = bytes.len();
    bytes.try_into().map_err(|_| JoinedProblem::Failed(format!("a hash has {count} bytes and not 32")))
}

/// Sequences are counted up from 1 and never come near the end of either type.
fn signed(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}
