//! Hands decisions and policy changes to the audit log.
//!
//! An expansion is durable before it is answered; a denial or a policy change never delays anything.

use std::cell::Cell;
use std::time::SystemTime;

use crate::audit::{AppendReply, AuditLog, new_event};
use crate::proto::v1;
use crate::rpc::record::{AnsweredCall, NoRoom, RecordKind, Recorder, Room};
use crate::store::state::PolicyChange;

/// Whether expansions wait until their record is durable.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum AuditMode {
    /// They do: no record, no answer.
    #[default]
    Blocking,
    /// Nothing waits: what cannot be recorded is counted into a gap.
    Batch,
}

/// Records in an audit log.
#[derive(Clone, Debug)]
pub struct AuditRecorder {
    log: AuditLog,
    mode: AuditMode,
}

impl AuditRecorder {
    /// Records into `log`.
    #[must_use]
    pub const fn new(log: AuditLog, mode: AuditMode) -> Self {
        Self { log, mode }
    }

    /// Records a policy change, accepted or rejected, without waiting.
    pub fn policy_change(&self, change: PolicyChange) {
        let PolicyChange {
            accepted,
            generation,
            digest,
            previous_digest,
            finding_count,
            changes,
            change_count,
            widening_count,
        } = change;
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        self.log.enqueue(v1::AuditEvent {
            policy: Some(v1::PolicyVersion { generation, digest }),
            policy_change: Some(v1::PolicyChange {
                accepted,
                previous_digest,
                finding_count: count(finding_count),
                changes,
                change_count: count(change_count),
                widening_count: count(widening_count),
            }),
            ..new_event(v1::AuditEventKind::PolicyChange, SystemTime::now())
        });
    }
}

impl AuditRecorder {
    /// Records a change of the access file, accepted or rejected, without waiting: the file that counts now, and what changed.
    pub fn access_change(&self, digest: &str, generation: u64, change: v1::PolicyChange) {
        self.log.enqueue(v1::AuditEvent {
            policy: Some(v1::PolicyVersion { generation, digest: digest.to_owned() }),
            policy_change: Some(change),
            ..new_event(v1::AuditEventKind::AccessChange, SystemTime::now())
        });
    }
}

impl Recorder for AuditRecorder {
    fn reserve(&self, request_bytes: usize) -> Result<Room, NoRoom> {
        match self.mode {
            AuditMode::Batch => Ok(Room::default()),
            AuditMode::Blocking => {
                let bytes = EVENT_BYTES.saturating_add(request_bytes.saturating_mul(EVENT_FACTOR));
                self.log.reserve(bytes).map(Room::from).map_err(|_| NoRoom)
            }
        }
    }

    fn record(
        &self,
        kind: RecordKind,
        record: AnsweredCall<'_>,
        room: Room,
        reply: &mut dyn FnMut() -> AppendReply,
    ) {
        let event = record.event(kind, FIELDS.take());
        match room.into_permit().filter(|_| kind == RecordKind::Expansion) {
            // The event is on its way before anybody waits for it, so that a batch shares one write, and a caller that
            // disconnects leaves it whole.
            Some(room) => self.log.append(&event, room, reply()),
            None => self.log.enqueue(&event),
        }
        let fields = event.into_fields();
        if fields.capacity() <= KEPT_BYTES {
            FIELDS.set(fields);
        }
    }
}

/// What the record of an answer takes in addition to what the request said: ids, hashes, digest, peer, added baseline scopes.
const EVENT_BYTES: usize = 2048;
/// How often a scope of the request may be in its record: requested or registered, effective, added.
const EVENT_FACTOR: usize = 3;
/// The most memory that a thread keeps for its next event. Most need a quarter of it.
const KEPT_BYTES: usize = 4 << 10;

thread_local! {
    /// Memory for the next event of this thread. The log copies each.
    static FIELDS: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}
