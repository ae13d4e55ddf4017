//! The audit log: what is recorded, and the store that keeps it.
//!
//! An event is the message `AuditEvent` of the API: which scopes a client got without asking, what
//! was refused, or that the policy changed. [`AuditLog`] makes events durable, chains them by hash
//! and hands them to any number of readers; [`verify`] walks the chain without a server.
//!
//! This layer knows neither gRPC nor the policy. The bytes that the chain covers are described in
//! `docs/reference/audit-chain.md`.

mod age;
mod aside;
mod batch;
mod blocks;
mod chain;
mod check;
mod convert;
mod cursor;
mod database;
mod encoding;
mod error;
mod event;
mod files;
mod format1;
pub mod forward;
mod high_water;
mod jobs;
pub mod joined;
pub mod json;
pub mod jsonl;
mod ledger;
mod log;
mod loss;
mod offline;
mod queue;
mod rate;
mod read;
mod recent;
mod record;
mod repair;
mod reply;
mod retention;
mod scan;
mod segments;
mod shared;
mod stall;
mod start;
mod state_dir;
mod stream;
#[cfg(test)]
mod testing;
mod verify;
mod volume;
mod writer;

pub use chain::{BadRecord, ChainProblem, ChainWalk, VerifyReport};
pub use cursor::Cursor;
pub use encoding::EncodedEvent;
pub use error::AuditError;
pub use event::{MAX_CLIENT_BYTES, cut_client, new_event};
pub use log::{AuditLog, AuditOptions, LEAST_STORE_BYTES, MAX_RECORD_BYTES};
pub use offline::{is_store, store_of};
pub use read::{Filter, Page};
pub use record::{Body, GENESIS_HASH, GapReason, Hash, Head, Record, Tip};
pub use reply::{AppendReply, AppendWaiter, Appending, Recorded};
pub use retention::{Clock, Evicted};
pub use scan::Scan;
pub use shared::{AuditHealth, AuditStatus, Degraded, DegradedReason, Stalled};
pub use start::StartReport;
pub use stream::{AuditStream, Checkpoint, Query, Start, StreamItem};
pub use verify::{VerifyOptions, verify};
pub use volume::{StorageLow, Volume, VolumeProbe};
pub use writer::CommitObserver;

/// The name of the store inside the state directory.
pub const STORE_DIRECTORY: &str = "audit";
/// The name of a store of an earlier version.
const DATABASE_FILE: &str = "audit.db";
