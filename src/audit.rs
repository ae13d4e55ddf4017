//! The audit log: what is recorded, and the doors to the store that keeps it.
//!
//! An [`AuditEvent`] says which scopes a client got without asking, what was refused, or that the
//! policy changed. [`AuditLog`] makes events durable, chains them by hash and hands them to any
//! number of readers; [`verify`] walks the chain without a server.
//!
//! This floor deliberately knows neither gRPC nor the policy: an event is plain data, and its
//! enums only share their names and numbers with the wire (`proto/scopeward/v1`). The byte
//! encoding that the chain covers is described in `docs/reference/audit-chain.md`.

mod chain;
mod error;
mod event;
mod high_water;
pub mod json;
pub mod jsonl;
mod ledger;
mod log;
mod loss;
mod queue;
mod read;
mod retention;
mod scan;
mod shared;
mod stall;
mod start;
mod stream;
#[cfg(test)]
mod testing;
mod verify;
mod wal;
mod writer;

pub use chain::{Body, GENESIS_HASH, Gap, GapReason, Hash, Head, Problem, Record};
pub use error::AuditError;
pub use event::{
    AddedScope, AuditEvent, Caller, Client, ClientSource, EventKind, MAX_CLIENT_BYTES, Origin, PolicyChange,
    PolicyVersion, Reason, RefusedScope,
};
pub use log::{AuditLog, AuditOptions, CommitObserver, MAX_RECORD_BYTES};
pub use queue::{Appending, Recorded};
pub use read::{Filter, Page};
pub use scan::scan;
pub use shared::{AuditHealth, AuditStatus, Degraded, Stalled};
pub use start::StartReport;
pub use stream::{AuditStream, Checkpoint, ItemStream, Query, Start, StreamItem};
pub use verify::{BadRecord, VerifyOptions, VerifyReport, verify};

/// The file name of the store inside the state directory.
pub const STORE_FILE: &str = "audit.db";
