//! The joined store: the records of the logs of many servers in one PostgreSQL, or in one stream of NATS JetStream.
//!
//! Each log keeps its own chain there, record for record, so what a server recorded can be proven after its disk is lost. The columns
//! next to a record in PostgreSQL say the same to people. [`forward`](super::forward) fills it; this module knows how it is written, read
//! and proven.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio_postgres::error::SqlState;

use super::chain::{BadRecord, StoredRow};
use super::record::{Body, Hash, Record, from_nanos};
use crate::proto::v1::{AuditEvent, Gap, Origin, Reason, TokenGrant};

#[cfg(feature = "nats")]
mod nats;
mod postgres;
mod row;
mod store;
mod target;
mod verify;

pub use postgres::SCHEMA;
pub use row::MergePlace;
pub(super) use store::MissingRecords;
pub use store::{JoinedReader, JoinedStore, MergedReader};
pub use target::{JoinedTarget, TargetContext, TargetError, TargetFiles};
pub use verify::{JoinedReport, verify_joined};

/// How long one step may take.
const LONGEST_STEP: Duration = Duration::from_secs(30);

/// Why the joined store could not be used.
#[derive(Debug, thiserror::Error)]
#[error("the joined audit store {store}: {problem}")]
pub struct JoinedError {
    /// Which store: host, port and database, without credentials.
    pub store: Arc<str>,
    /// What is wrong.
    pub problem: JoinedProblem,
}

/// What is wrong with the joined store.
#[derive(Debug, thiserror::Error)]
pub enum JoinedProblem {
    /// There is no connection, or it broke.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// Its certificate is not that of who it should be.
    #[error("has a certificate that is not trusted: {0}")]
    Untrusted(String),
    /// It did not answer in time.
    #[error("did not answer within {0} s")]
    Slow(u64),
    /// It does not let this role in, or not do this.
    #[error("refused: {0}")]
    Refused(String),
    /// Its tables are not there.
    #[error("has no tables for audit records; create them with `scopeward audit forward-schema`")]
    NoSchema,
    /// Its tables are of another version of this program.
    #[error("has schema {found}, and this version of scopeward uses schema {expected}: {}", other_schema(*found, *expected))]
    OtherSchema {
        /// What is there.
        found: i32,
        /// What is needed.
        expected: i32,
    },
    /// Its stream is not there.
    #[error(
        "has no stream `{stream}`; create it with `scopeward audit forward-schema --audit-forward URL`, or by hand with the subject \
         `{subject}.*`"
    )]
    NoStream {
        /// Its name.
        stream: String,
        /// What the subjects in it begin with.
        subject: String,
    },
    /// Its stream does not take the records, or deletes them.
    #[error("stream `{stream}` does not keep every record: {problems}")]
    UnfitStream {
        /// Its name.
        stream: String,
        /// Each setting that is wrong, and what would be right.
        problems: String,
    },
    /// It has other records under the id of this log.
    #[error(
        "has another record {sequence} of log {log_id}: two servers have the same state directory, or one goes on from an old copy of \
         its own; give one of them an empty state directory"
    )]
    Forked {
        /// The log.
        log_id: uuid::Uuid,
        /// The first sequence at which they are known to differ.
        sequence: u64,
    },
    /// It has records that this log does not have yet.
    #[error(
        "has record {there} of log {log_id}, which ends with {here} here: the state directory was put back to an old copy; start with an \
         empty state directory"
    )]
    Ahead {
        /// The log.
        log_id: uuid::Uuid,
        /// The newest sequence there.
        there: u64,
        /// The newest sequence here.
        here: u64,
    },
    /// A record of it is not what was written.
    #[error("log {log_id}, {bad}")]
    Bad {
        /// The log.
        log_id: uuid::Uuid,
        /// The record.
        bad: BadRecord,
    },
    /// The file with the password cannot be used.
    #[error("{0}")]
    Credentials(String),
    /// Anything else that it said.
    #[error("{0}")]
    Failed(String),
}

impl JoinedProblem {
    /// The reason of the condition that shows it.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "DestinationUnreachable",
            Self::Untrusted(_) => "CertificateNotTrusted",
            Self::Slow(_) => "DestinationSlow",
            Self::Refused(_) => "DestinationRefused",
            Self::NoSchema | Self::OtherSchema { .. } => "SchemaNotUsable",
            Self::NoStream { .. } | Self::UnfitStream { .. } => "StreamNotUsable",
            Self::Forked { .. } | Self::Ahead { .. } => "LogForked",
            Self::Bad { .. } => "RecordBad",
            Self::Credentials(_) => "CredentialsNotUsable",
            Self::Failed(_) => "DestinationFailed",
        }
    }
}

impl JoinedProblem {
    /// Why there is no connection.
    fn of_connection(error: &(dyn std::error::Error + 'static)) -> Self {
        let words = with_causes(error);
        let causes = std::iter::successors(Some(error), |error| error.source());
        // An error of TLS is inside of one of the connection, and is not its source.
        let inner = |error: &(dyn std::error::Error + 'static)| {
            let inner = error.downcast_ref::<std::io::Error>()?.get_ref()?;
            inner.downcast_ref::<rustls::Error>().cloned()
        };
        match causes.filter_map(inner).any(|error| matches!(error, rustls::Error::InvalidCertificate(_))) {
            true => Self::Untrusted(words),
            false => Self::Unreachable(words),
        }
    }
}

impl From<tokio_postgres::Error> for JoinedProblem {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(said) = error.as_db_error() else {
            return Self::of_connection(&error);
        };
        let words = said.message().to_owned();
        match said.code() {
            code if code.code().starts_with("28") => Self::Refused(words),
            &SqlState::INSUFFICIENT_PRIVILEGE | &SqlState::INVALID_CATALOG_NAME => Self::Refused(words),
            &SqlState::UNDEFINED_TABLE => Self::NoSchema,
            code if code.code().starts_with("57P") || code.code().starts_with("08") => {
                Self::Unreachable(words)
            }
            code => Self::Failed(format!("{words} (SQLSTATE {})", code.code())),
        }
    }
}

/// What is to be done about tables of another version.
const fn other_schema(found: i32, expected: i32) -> &'static str {
    match found < expected {
        true => {
            "bring it up to date with `scopeward audit forward-schema --audit-forward URL`, as who owns the tables"
        }
        false => {
            "a newer version made it, which this one would leave columns empty in; update scopeward here"
        }
    }
}

/// One exchange with the store, which has to end in time.
async fn step<T>(
    shown: &Arc<str>,
    exchange: impl Future<Output = Result<T, JoinedProblem>>,
) -> Result<T, JoinedError> {
    let done = tokio::time::timeout(LONGEST_STEP, exchange).await;
    let done = done.unwrap_or(Err(JoinedProblem::Slow(LONGEST_STEP.as_secs())));
    done.map_err(|problem| JoinedError { store: Arc::clone(shown), problem })
}

/// An error with what it comes from, each said once.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_words = cause.to_string();
        if !words.contains(&cause_words) {
            words = format!("{words}: {cause_words}");
        }
        next = cause.source();
    }
    words
}

/// A record as the joined store has it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct JoinedRow {
    pub(super) prev_hash: Hash,
    pub(super) stored: StoredRow,
    pub(super) columns: Columns,
}

impl JoinedRow {
    pub(super) fn new(stored: StoredRow, record: &Record) -> Self {
        Self { prev_hash: record.prev_hash, stored, columns: Columns::of(&record.body) }
    }
}

/// What a record says to people. Texts have no NUL, which PostgreSQL does not take: U+FFFD stands for it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Columns {
    /// To the microsecond, as PostgreSQL keeps it.
    pub(super) event_time: SystemTime,
    pub(super) kind: &'static str,
    pub(super) decision_id: Option<String>,
    pub(super) correlation_id: Option<String>,
    pub(super) caller: Option<String>,
    pub(super) client_id: Option<String>,
    pub(super) client_name: Option<String>,
    pub(super) audiences: Vec<String>,
    /// `None` if the request had no scope.
    pub(super) requested_scopes: Option<Vec<String>>,
    pub(super) granted_scopes: Vec<String>,
    pub(super) added_scopes: Vec<String>,
    pub(super) added_origins: Vec<&'static str>,
    /// Empty where no rule brought the scope.
    pub(super) added_rules: Vec<String>,
    pub(super) refused_scopes: Vec<String>,
    pub(super) reason: Option<&'static str>,
    pub(super) policy_digest: Option<String>,
    pub(super) missing_events: Option<i64>,
    /// What the client presented at the token endpoint; `None` for other questions.
    pub(super) token_grant: Option<&'static str>,
    /// What the grant had there; `None` if the question did not say.
    pub(super) token_granted_scopes: Option<Vec<String>>,
}

impl Columns {
    fn of(body: &Body) -> Self {
        let nanos = body.time();
        let event_time = from_nanos(nanos - nanos.rem_euclid(1000));
        match body {
            Body::Event(event) => Self::of_event(event, event_time),
            Body::Gap(gap) => Self::of_gap(gap, event_time),
        }
    }

    fn of_event(event: &AuditEvent, event_time: SystemTime) -> Self {
        let client = event.client.as_ref();
        let added = &event.added;
        Self {
            event_time,
            kind: event.kind().as_str_name().trim_start_matches("AUDIT_EVENT_KIND_"),
            decision_id: said(&event.decision_id),
            correlation_id: said(&event.correlation_id),
            caller: event.caller.as_ref().and_then(|caller| said(&caller.name)),
            client_id: client.and_then(|client| said(&client.client_id)),
            client_name: client.and_then(|client| said(&client.client_name)),
            audiences: event.audiences.iter().map(|audience| plain(audience)).collect(),
            requested_scopes: event.requested_scope.as_deref().map(tokens),
            granted_scopes: tokens(&event.effective_scope),
            added_scopes: added.iter().map(|one| plain(&one.scope)).collect(),
            added_origins: added.iter().map(|one| origin(one.origin())).collect(),
            added_rules: added.iter().map(|one| plain(&one.rule)).collect(),
            refused_scopes: event.refused.iter().map(|one| plain(&one.scope)).collect(),
            reason: match event.reason() {
                Reason::Unspecified => None,
                reason => Some(reason.as_str_name().trim_start_matches("REASON_")),
            },
            policy_digest: event.policy.as_ref().and_then(|policy| said(&policy.digest)),
            missing_events: None,
            token_grant: match event.grant() {
                TokenGrant::Unspecified => None,
                grant => Some(grant.as_str_name().trim_start_matches("TOKEN_GRANT_")),
            },
            token_granted_scopes: event.granted_scope.as_deref().map(tokens),
        }
    }

    fn of_gap(gap: &Gap, event_time: SystemTime) -> Self {
        Self {
            event_time,
            kind: "GAP",
            decision_id: None,
            correlation_id: None,
            caller: None,
            client_id: None,
            client_name: None,
            audiences: Vec::new(),
            requested_scopes: None,
            granted_scopes: Vec::new(),
            added_scopes: Vec::new(),
            added_origins: Vec::new(),
            added_rules: Vec::new(),
            refused_scopes: Vec::new(),
            reason: None,
            policy_digest: None,
            missing_events: Some(i64::try_from(gap.count).unwrap_or(i64::MAX)),
            token_grant: None,
            token_granted_scopes: None,
        }
    }
}

fn origin(origin: Origin) -> &'static str {
    origin.as_str_name().trim_start_matches("ORIGIN_")
}

/// `None` for an empty text.
fn said(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| plain(text))
}

fn plain(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// The tokens of a scope (RFC 6749 section 3.3).
fn tokens(scope: &str) -> Vec<String> {
    scope.split(' ').filter(|token| !token.is_empty()).map(plain).collect()
}

impl fmt::Display for JoinedTarget {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.shown())
    }
}
