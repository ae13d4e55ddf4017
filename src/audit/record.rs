//! A record of the log: a message of the API with its place in the chain, and its canonical encoding.
//!
//! `docs/reference/audit-chain.md` describes the encoding; a change here is a new format there. Knows
//! nothing of files: bytes in, bytes out.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message as _;
use prost::encoding::{encode_varint, encoded_len_varint};
use prost_types::Timestamp;
use sha2::{Digest, Sha256};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use super::chain::StoredRow;
use super::encoding::EncodedEvent;
use crate::proto::v1::stream_audit_events_response::Message;
use crate::proto::v1::{AuditEvent, Gap, StreamAuditEventsResponse};

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// The `prev_hash` of record 1.
pub const GENESIS_HASH: Hash = [0; 32];

/// What the content of a record of format 2 begins with: the number of the format, and what it is.
const TAG: &[u8; 16] = b"\x02scopeward.audit";
/// The tag and the hash of the record before it.
const PREFIX_BYTES: usize = TAG.len() + 32;
/// The most bytes that the place in the chain adds to a message: prefix, envelope, log id, sequence.
pub(super) const PLACE_BYTES: usize = PREFIX_BYTES + 6 + 38 + 11;

/// The keys of `event` and `gap` in `StreamAuditEventsResponse`.
const EVENT_KEY: u8 = 0x0a;
const GAP_KEY: u8 = 0x1a;
/// The keys of `log_id` and `sequence` in `AuditEvent`.
const LOG_ID_KEY: u8 = 0x0a;
const SEQUENCE_KEY: u8 = 0x10;

/// A place in the chain: a sequence and the hash of the record that has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Head {
    /// Sequence of the record; 0 before the first.
    pub sequence: u64,
    /// Hash of the record; [`GENESIS_HASH`] before the first.
    pub hash: Hash,
}

/// An end of the chain as the store has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tip {
    /// Sequence and hash.
    pub head: Head,
    /// The greatest time of any record up to here, nanoseconds since 1970; [`i64::MIN`] before the first.
    pub latest_time: i64,
}

/// A record of the chain.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Hash of the record before; [`GENESIS_HASH`] for record 1.
    pub prev_hash: Hash,
    /// SHA-256 of the content.
    pub hash: Hash,
    /// What it says. An event has the two hashes too, a gap has no field for them.
    pub body: Body,
}

/// What a record says, with its log id and its sequence.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// Something happened.
    Event(Box<AuditEvent>),
    /// Something happened that could not be recorded. The gap has a sequence, what it counts has none.
    Gap(Gap),
}

/// Why events are missing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum GapReason {
    /// The queue of events waiting to be written was full.
    QueueFull,
    /// The store could not be written and the queue had filled up.
    WriteFailed,
    /// The event was over the size of a record.
    TooLarge,
    /// The process ended before the events in its queue were written.
    ProcessEnded,
    /// The record that had this sequence was damaged, and so were all after it.
    TailDamaged,
    /// The record that had this sequence was acknowledged, but is gone from the store.
    TailLost,
    /// More denials came than are recorded in a second.
    DenialRate,
}

impl GapReason {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::QueueFull,
        Self::WriteFailed,
        Self::TooLarge,
        Self::ProcessEnded,
        Self::TailDamaged,
        Self::TailLost,
        Self::DenialRate,
    ];

    /// The `reason` of a [`Gap`].
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::WriteFailed => "write_failed",
            Self::TooLarge => "too_large",
            Self::ProcessEnded => "process_ended",
            Self::TailDamaged => "tail_damaged",
            Self::TailLost => "tail_lost",
            Self::DenialRate => "DENIAL_RATE",
        }
    }
}

/// A gap without a place in the chain yet.
pub(super) fn gap(reason: GapReason, count: u64, first_time: SystemTime, last_time: SystemTime) -> Gap {
    Gap {
        count,
        reason: reason.as_str().to_owned(),
        first_time: Some(first_time.into()),
        last_time: Some(last_time.into()),
        ..Gap::default()
    }
}

impl Record {
    /// A record with both hashes wherever they belong.
    pub(super) fn new(mut body: Body, prev_hash: Hash, hash: Hash) -> Self {
        if let Body::Event(event) = &mut body {
            event.prev_hash = prev_hash.to_vec();
            event.hash = hash.to_vec();
        }
        Self { prev_hash, hash, body }
    }

    /// The place of this record.
    #[must_use]
    pub fn head(&self) -> Head {
        Head { sequence: self.body.sequence(), hash: self.hash }
    }

    /// The message of the stream.
    #[must_use]
    pub fn into_message(self) -> Message {
        match self.body {
            Body::Event(event) => Message::Event(*event),
            Body::Gap(gap) => Message::Gap(gap),
        }
    }
}

impl Body {
    /// The log that the record belongs to.
    #[must_use]
    pub fn log_id(&self) -> &str {
        match self {
            Self::Event(event) => &event.log_id,
            Self::Gap(gap) => &gap.log_id,
        }
    }

    /// Its number, contiguous from 1.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        match self {
            Self::Event(event) => event.sequence,
            Self::Gap(gap) => gap.sequence,
        }
    }

    /// When the event happened, or the last event that a gap counts: nanoseconds since 1970.
    #[must_use]
    pub fn time(&self) -> i64 {
        nanos_of(match self {
            Self::Event(event) => event.event_time,
            Self::Gap(gap) => gap.last_time,
        })
    }

    /// The most bytes that the content of the record can have, wherever in the chain it comes to stand.
    fn max_bytes(&self) -> usize {
        PLACE_BYTES
            + match self {
                Self::Event(event) => event.encoded_len(),
                Self::Gap(gap) => gap.encoded_len(),
            }
    }

    /// Gives the record the place after `tip`. Returns that place and the content for the store.
    pub(super) fn seal(&mut self, log_id: Uuid, tip: Tip) -> (Tip, Vec<u8>) {
        let place = tip.head.sequence.wrapping_add(1);
        let log = log_id.to_string();
        match self {
            Self::Event(event) => (event.log_id, event.sequence) = (log, place),
            Self::Gap(gap) => (gap.log_id, gap.sequence) = (log, place),
        }
        let content = self.encode(&tip.head.hash);
        let head = Head { sequence: place, hash: sha256(&content) };
        (Tip { head, latest_time: tip.latest_time.max(self.time()) }, content)
    }

    /// The content of format 2. The hashes of an event are not in it: they must not be filled in.
    fn encode(&self, prev_hash: &Hash) -> Vec<u8> {
        let mut content = Vec::with_capacity(self.max_bytes());
        content.extend_from_slice(TAG);
        content.extend_from_slice(prev_hash);
        // Writing to a vector cannot fail.
        _ = match self {
            Self::Event(event) => {
                content.push(EVENT_KEY);
                event.encode_length_delimited(&mut content)
            }
            Self::Gap(gap) => {
                content.push(GAP_KEY);
                gap.encode_length_delimited(&mut content)
            }
        };
        content
    }

    /// The hash that the record has after one of this hash, as format 2 computes it.
    pub(super) fn hash(&self, prev_hash: &Hash) -> Hash {
        sha256(&self.encode(prev_hash))
    }
}

/// Gives an encoded event the place after `tip`, with the content that [`Body::seal`] makes of its message.
pub(super) fn seal_event(event: &EncodedEvent, log_id: Uuid, tip: Tip) -> StoredRow {
    let mut content = Vec::with_capacity(PLACE_BYTES + event.fields().len());
    let place = EventSealer::new(log_id).seal(event.fields(), event.time(), tip, &mut content);
    StoredRow::new(place, content)
}

/// Gives events of one log their places.
pub(super) struct EventSealer {
    /// The log id as text.
    log_id: [u8; Hyphenated::LENGTH],
}

impl EventSealer {
    /// For a log of this id.
    pub(super) fn new(log_id: Uuid) -> Self {
        let mut text = [0; Hyphenated::LENGTH];
        log_id.hyphenated().encode_lower(&mut text);
        Self { log_id: text }
    }

    /// Adds the content of the record after `tip` to `contents`, which are those of records before it: an event of these fields and
    /// this time. Returns its place.
    pub(super) fn seal(&self, fields: &[u8], time: i64, tip: Tip, contents: &mut Vec<u8>) -> Tip {
        let sequence = tip.head.sequence.wrapping_add(1);
        let start = contents.len();
        contents.extend_from_slice(TAG);
        contents.extend_from_slice(&tip.head.hash);
        contents.push(EVENT_KEY);
        let place_bytes = 2 + self.log_id.len() + 1 + encoded_len_varint(sequence);
        encode_varint((place_bytes + fields.len()) as u64, contents);
        contents.push(LOG_ID_KEY);
        encode_varint(self.log_id.len() as u64, contents);
        contents.extend_from_slice(&self.log_id);
        contents.push(SEQUENCE_KEY);
        encode_varint(sequence, contents);
        contents.extend_from_slice(fields);
        let hash = sha256(contents.get(start..).unwrap_or_default());
        Tip { head: Head { sequence, hash }, latest_time: tip.latest_time.max(time) }
    }
}

/// Decodes content of format 2. Only what [`Body::encode`] writes is taken: every record has one encoding. Returns the
/// hash of the record before, too.
///
/// # Errors
///
/// In words, what else it is.
pub(super) fn decode(content: &[u8]) -> Result<(Body, Hash), String> {
    let rest = content.strip_prefix(TAG).ok_or_else(|| match content.first() {
        Some(format) => format!("format {format} is unknown"),
        None => "it is empty".to_owned(),
    })?;
    let (prev_hash, message) =
        rest.split_first_chunk().ok_or("it ends inside the hash of the record before")?;
    let message = StreamAuditEventsResponse::decode(message).map_err(|error| error.to_string())?;
    let body = match message.message {
        Some(Message::Event(event)) => Body::Event(Box::new(event)),
        Some(Message::Gap(gap)) => Body::Gap(gap),
        Some(Message::Checkpoint(_)) | None => return Err("it is neither an event nor a gap".to_owned()),
    };
    if let Body::Event(event) = &body
        && !(event.prev_hash.is_empty() && event.hash.is_empty())
    {
        return Err("its message has hashes".to_owned());
    }
    if body.encode(prev_hash) != content {
        return Err(
            "it is not in the canonical encoding, or has fields that this version does not know".to_owned()
        );
    }
    Ok((body, *prev_hash))
}

/// Hashes bytes.
pub(super) fn sha256(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

/// Nanoseconds since 1970; times that do not fit (before 1678, after 2262) move to the nearest that does, and
/// no time is 0.
pub(super) fn nanos_of(time: Option<Timestamp>) -> i64 {
    let Timestamp { seconds, nanos } = time.unwrap_or_default();
    let nanos = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}

/// The same for a time of the clock.
pub(super) fn to_nanos(time: SystemTime) -> i64 {
    nanos_of(Some(time.into()))
}

/// The inverse of [`to_nanos`].
pub(super) fn from_nanos(nanos: i64) -> SystemTime {
    let distance = Duration::from_nanos(nanos.unsigned_abs());
    let time = if nanos < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    time.unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
pub(super) mod tests;
