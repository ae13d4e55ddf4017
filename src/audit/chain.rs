//! The hash chain: the canonical encoding of a record, its hash, and the check of one link.
//!
//! `docs/reference/audit-chain.md` describes the encoding byte by byte; a change here is a new
//! format version there. Knows nothing of files: bytes in, bytes out.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::event::{
    AddedScope, AuditEvent, Caller, Client, ClientSource, EventKind, Origin, PolicyChange, PolicyVersion,
    Reason, RefusedScope, wire_enum,
};

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// The `prev_hash` of record 1.
pub const GENESIS_HASH: Hash = [0; 32];

/// The first byte of every record.
const VERSION: u8 = 1;
/// Record types. 3 is kept free for signed heads.
const TYPE_EVENT: u8 = 1;
const TYPE_GAP: u8 = 2;

const SEQUENCE_AT: usize = 18;
const PREV_HASH_AT: usize = 26;
const TIME_AT: usize = 58;
/// Bytes before the body.
pub(super) const HEADER_BYTES: usize = 66;
/// Where an event has its id, right behind the header.
const EVENT_ID_AT: usize = HEADER_BYTES;

/// A place in the chain: a sequence and the hash of the record that has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Head {
    /// Sequence of the record; 0 before the first.
    pub sequence: u64,
    /// Hash of the record; [`GENESIS_HASH`] before the first.
    pub hash: Hash,
}

/// A record of the chain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// The log that the record belongs to.
    pub log_id: Uuid,
    /// Its number, contiguous from 1.
    pub sequence: u64,
    /// Hash of the record before; [`GENESIS_HASH`] for record 1.
    pub prev_hash: Hash,
    /// SHA-256 of the canonical encoding.
    pub hash: Hash,
    /// What it says.
    pub body: Body,
}

/// What a record says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Body {
    /// Something happened.
    Event(Box<AuditEvent>),
    /// Something happened that could not be recorded.
    Gap(Gap),
}

/// Counts events that have no record. The gap has a sequence, what it counts has none.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Gap {
    /// How many events are missing; at least 1.
    pub count: u64,
    /// Why.
    pub reason: GapReason,
    /// When the first of them happened, or the earliest it can have.
    pub first_time: SystemTime,
    /// When the last of them happened, or the latest it can have.
    pub last_time: SystemTime,
}

wire_enum! {
    /// Why events are missing.
    GapReason {
        /// The queue of events waiting to be written was full.
        QueueFull = 1, "queue_full";
        /// The store could not be written and the queue had filled up.
        WriteFailed = 2, "write_failed";
        /// The event was over the size of a record.
        TooLarge = 3, "too_large";
        /// The process ended before the events in its queue were written.
        ProcessEnded = 4, "process_ended";
        /// The record that had this sequence was damaged, and so were all after it.
        TailDamaged = 5, "tail_damaged";
        /// The record that had this sequence was acknowledged, but is gone from the store.
        TailLost = 6, "tail_lost";
    }
}

impl Record {
    /// The place of this record.
    #[must_use]
    pub const fn head(&self) -> Head {
        Head { sequence: self.sequence, hash: self.hash }
    }

    /// When the event happened, or the last event that a gap counts.
    #[must_use]
    pub fn time(&self) -> SystemTime {
        match &self.body {
            Body::Event(event) => event.event_time,
            Body::Gap(gap) => gap.last_time,
        }
    }

    /// The hash that the contents of this record should have; equal to `hash` if nothing was
    /// changed.
    #[must_use]
    pub fn expected_hash(&self) -> Hash {
        let mut content = match &self.body {
            Body::Event(event) => Content::event(self.log_id, event),
            Body::Gap(gap) => Content::gap(self.log_id, gap),
        };
        content.seal(Head { sequence: self.sequence.wrapping_sub(1), hash: self.prev_hash })
    }
}

/// The canonical encoding of a record, complete but for its place in the chain.
#[derive(Clone, Debug)]
pub(super) struct Content {
    bytes: Vec<u8>,
}

impl Content {
    pub(super) fn event(log_id: Uuid, event: &AuditEvent) -> Self {
        let mut out = Self::header(TYPE_EVENT, log_id, event.event_time);
        out.fixed(event.event_id.as_bytes());
        out.byte(event.kind.code());
        out.optional(event.decision_id.as_ref(), |out, id| out.fixed(id.as_bytes()));
        out.text(&event.method);
        out.texts(&event.audiences);
        out.optional(event.client(), Self::client);
        out.optional(event.requested_scope.as_ref(), |out, scope| out.text(scope));
        out.optional(event.registered_scope.as_ref(), |out, scope| out.text(scope));
        out.text(&event.effective_scope);
        out.list(&event.added, |out, added| {
            out.text(&added.scope);
            out.byte(added.origin.code());
            out.text(&added.rule);
        });
        out.list(&event.refused, |out, refused| {
            out.text(&refused.scope);
            out.byte(refused.reason.code());
            out.text(&refused.message);
        });
        out.byte(event.reason.map_or(0, Reason::code));
        out.number(event.policy.generation);
        out.text(&event.policy.digest);
        out.optional(event.policy_change.as_ref(), |out, change| {
            out.byte(u8::from(change.accepted));
            out.text(&change.previous_digest);
            out.number(u64::from(change.finding_count));
        });
        out.text(&event.caller.name);
        out.text(&event.caller.authenticated_by);
        out.text(&event.peer);
        out.text(&event.trace_id);
        out.number(u64::from(event.attempt));
        out.byte(u8::from(event.client_truncated()));
        out
    }

    pub(super) fn gap(log_id: Uuid, gap: &Gap) -> Self {
        let mut out = Self::header(TYPE_GAP, log_id, gap.last_time);
        out.byte(gap.reason.code());
        out.number(gap.count);
        out.fixed(&to_nanos(gap.first_time).to_be_bytes());
        out
    }

    /// Gives the record the place after `head` and returns its hash.
    pub(super) fn seal(&mut self, head: Head) -> Hash {
        let sequence = head.sequence.wrapping_add(1);
        self.patch(SEQUENCE_AT, &sequence.to_be_bytes());
        self.patch(PREV_HASH_AT, &head.hash);
        sha256(&self.bytes)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Nanoseconds since 1970 of the event, or of the last event that a gap counts.
    pub(super) fn time(&self) -> i64 {
        time_of(&self.bytes).unwrap_or(0)
    }

    fn header(record_type: u8, log_id: Uuid, time: SystemTime) -> Self {
        let mut out = Self { bytes: Vec::with_capacity(512) };
        out.byte(VERSION);
        out.byte(record_type);
        out.fixed(log_id.as_bytes());
        out.fixed(&[0; 8 + 32]);
        out.fixed(&to_nanos(time).to_be_bytes());
        out
    }

    fn patch(&mut self, at: usize, with: &[u8]) {
        if let Some(place) = self.bytes.get_mut(at..at + with.len()) {
            place.copy_from_slice(with);
        }
    }

    fn client(&mut self, client: &Client) {
        self.text(&client.client_id);
        self.byte(client.source.map_or(0, ClientSource::code));
        self.text(&client.client_name);
        self.text(&client.software_id);
        self.text(&client.software_version);
        self.texts(&client.redirect_uris);
        self.texts(&client.grant_types);
        self.text(&client.application_type);
    }

    fn byte(&mut self, value: u8) {
        self.bytes.push(value);
    }

    fn fixed(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
    }

    /// Seven bits a byte, least first, the high bit on all but the last (LEB128).
    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.byte((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }

    fn text(&mut self, value: &str) {
        self.number(value.len() as u64);
        self.fixed(value.as_bytes());
    }

    fn texts(&mut self, values: &[String]) {
        self.list(values, |out, value| out.text(value));
    }

    fn list<T>(&mut self, values: &[T], mut each: impl FnMut(&mut Self, &T)) {
        self.number(values.len() as u64);
        for value in values {
            each(self, value);
        }
    }

    fn optional<T>(&mut self, value: Option<T>, some: impl FnOnce(&mut Self, T)) {
        match value {
            None => self.byte(0),
            Some(value) => {
                self.byte(1);
                some(self, value);
            }
        }
    }
}

/// Hashes bytes.
pub(super) fn sha256(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

/// The time in an encoded record, read without decoding the rest.
pub(super) fn time_of(content: &[u8]) -> Option<i64> {
    let bytes = content.get(TIME_AT..HEADER_BYTES)?;
    Some(i64::from_be_bytes(bytes.try_into().ok()?))
}

/// The id of an encoded event; `None` for a gap.
pub(super) fn event_id_of(content: &[u8]) -> Option<Uuid> {
    if *content.get(1)? != TYPE_EVENT {
        return None;
    }
    Uuid::from_slice(content.get(EVENT_ID_AT..EVENT_ID_AT + 16)?).ok()
}

/// A record as the store keeps it: the encoding, its hash, and what is repeated beside them for
/// look-ups.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Row {
    pub(super) sequence: u64,
    /// The greatest time of any record up to this one, nanoseconds since 1970.
    pub(super) latest_time: i64,
    pub(super) content: Vec<u8>,
    pub(super) hash: Hash,
}

impl Row {
    /// Checks the record for itself and against the hash of the one before, and decodes it.
    pub(super) fn check(&self, log_id: Uuid, prev: &Hash) -> Result<Record, Problem> {
        let record = self.check_alone(log_id)?;
        if record.prev_hash != *prev {
            return Err(Problem::LinkBroken);
        }
        Ok(record)
    }

    /// Checks what can be checked without the record before, and decodes it.
    pub(super) fn check_alone(&self, log_id: Uuid) -> Result<Record, Problem> {
        if sha256(&self.content) != self.hash {
            return Err(Problem::ContentChanged);
        }
        let record = decode(&self.content, self.hash).map_err(Problem::Undecodable)?;
        if record.log_id != log_id {
            return Err(Problem::OtherLog { found: record.log_id });
        }
        if record.sequence != self.sequence {
            return Err(Problem::Reordered { found: record.sequence });
        }
        Ok(record)
    }
}

/// What is wrong with a record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Problem {
    /// The stored hash is not that of the stored content.
    ContentChanged,
    /// The content has the stored hash, but is not a record.
    Undecodable(String),
    /// The record belongs to another log.
    OtherLog {
        /// That log.
        found: Uuid,
    },
    /// The record was written under another sequence.
    Reordered {
        /// The sequence it was written under.
        found: u64,
    },
    /// The record does not name the hash of the one before it: one of the two was replaced.
    LinkBroken,
    /// The record is not there, though a later one is.
    Missing {
        /// The next sequence that is there.
        next: u64,
    },
    /// The time column of the store does not say what the records say.
    TimeColumn,
    /// The chain ends before a record that is known to have been written.
    EndsEarly {
        /// Where the chain ends.
        newest: u64,
    },
    /// The next record names another hash than this record has.
    Replaced,
    /// The record is there though retention recorded that it was deleted.
    BeforeBase,
    /// The record does not have the hash that is known from elsewhere.
    UnexpectedHash,
    /// The store could not read the record.
    Unreadable(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ContentChanged => write!(out, "content changed: it does not have the stored hash"),
            Self::Undecodable(detail) => write!(out, "content is not a record: {detail}"),
            Self::OtherLog { found } => write!(out, "it belongs to log `{found}`"),
            Self::Reordered { found } => {
                write!(out, "reordered: the content was written as record {found}")
            }
            Self::LinkBroken => {
                write!(out, "link broken: it, or the record before it, was replaced")
            }
            Self::Missing { next } => write!(out, "removed: the next record is {next}"),
            Self::TimeColumn => write!(out, "its time column disagrees with the contents"),
            Self::EndsEarly { newest } => write!(out, "removed: the chain ends at record {newest}"),
            Self::Replaced => write!(out, "replaced: the next record names another hash"),
            Self::BeforeBase => write!(out, "it is there although it counts as deleted"),
            Self::UnexpectedHash => write!(out, "replaced: it does not have the expected hash"),
            Self::Unreadable(detail) => write!(out, "the store could not read it: {detail}"),
        }
    }
}

/// Decodes a record. Only what `Content` writes is taken: every record has one encoding.
fn decode(content: &[u8], hash: Hash) -> Result<Record, String> {
    let mut bytes = Bytes(content);
    let version = bytes.byte()?;
    if version != VERSION {
        return Err(format!("version {version} is unknown"));
    }
    let record_type = bytes.byte()?;
    let log_id = Uuid::from_bytes(bytes.fixed()?);
    let sequence = u64::from_be_bytes(bytes.fixed()?);
    let prev_hash = bytes.fixed()?;
    let time = from_nanos(i64::from_be_bytes(bytes.fixed()?));
    let body = match record_type {
        TYPE_EVENT => Body::Event(Box::new(bytes.event(time)?)),
        TYPE_GAP => Body::Gap(Gap {
            reason: bytes.code("gap reason", GapReason::from_code)?,
            count: bytes.number()?,
            first_time: from_nanos(i64::from_be_bytes(bytes.fixed()?)),
            last_time: time,
        }),
        other => return Err(format!("record type {other} is unknown")),
    };
    if !bytes.0.is_empty() {
        return Err(format!("{} bytes follow the record", bytes.0.len()));
    }
    Ok(Record { log_id, sequence, prev_hash, hash, body })
}

/// What is left to decode.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn event(&mut self, event_time: SystemTime) -> Result<AuditEvent, String> {
        let event_id = Uuid::from_bytes(self.fixed()?);
        let kind = self.code("event kind", EventKind::from_code)?;
        let mut event = AuditEvent::new_with_id(event_id, kind, event_time);
        event.decision_id = self.optional(|bytes| Ok(Uuid::from_bytes(bytes.fixed()?)))?;
        event.method = self.text()?;
        event.audiences = self.list(Self::text)?;
        let client = self.optional(Self::client)?;
        event.requested_scope = self.optional(Self::text)?;
        event.registered_scope = self.optional(Self::text)?;
        event.effective_scope = self.text()?;
        event.added = self.list(|bytes| {
            Ok(AddedScope {
                scope: bytes.text()?,
                origin: bytes.code("origin", Origin::from_code)?,
                rule: bytes.text()?,
            })
        })?;
        event.refused = self.list(|bytes| {
            Ok(RefusedScope {
                scope: bytes.text()?,
                reason: bytes.code("reason", Reason::from_code)?,
                message: bytes.text()?,
            })
        })?;
        event.reason = self.optional_code("reason", Reason::from_code)?;
        event.policy = PolicyVersion { generation: self.number()?, digest: self.text()? };
        event.policy_change = self.optional(|bytes| {
            Ok(PolicyChange {
                accepted: bytes.flag()?,
                previous_digest: bytes.text()?,
                finding_count: bytes.number32()?,
            })
        })?;
        event.caller = Caller { name: self.text()?, authenticated_by: self.text()? };
        event.peer = self.text()?;
        event.trace_id = self.text()?;
        event.attempt = self.number32()?;
        let truncated = self.flag()?;
        event.claim_stored(client, truncated);
        Ok(event)
    }

    fn client(&mut self) -> Result<Client, String> {
        Ok(Client {
            client_id: self.text()?,
            source: self.optional_code("client source", ClientSource::from_code)?,
            client_name: self.text()?,
            software_id: self.text()?,
            software_version: self.text()?,
            redirect_uris: self.list(Self::text)?,
            grant_types: self.list(Self::text)?,
            application_type: self.text()?,
        })
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or_else(|| format!("{count} bytes expected, {} left", self.0.len()))?;
        self.0 = rest;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut fixed = [0; N];
        fixed.copy_from_slice(self.take(N)?);
        Ok(fixed)
    }

    fn byte(&mut self) -> Result<u8, String> {
        let [byte] = self.fixed()?;
        Ok(byte)
    }

    fn flag(&mut self) -> Result<bool, String> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(format!("{other} is neither 0 nor 1")),
        }
    }

    fn code<T>(&mut self, what: &str, from: fn(u8) -> Option<T>) -> Result<T, String> {
        let code = self.byte()?;
        from(code).ok_or_else(|| format!("{what} {code} is unknown"))
    }

    fn optional_code<T>(&mut self, what: &str, from: fn(u8) -> Option<T>) -> Result<Option<T>, String> {
        let code = self.byte()?;
        match from(code) {
            None if code != 0 => Err(format!("{what} {code} is unknown")),
            value => Ok(value),
        }
    }

    fn number(&mut self) -> Result<u64, String> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err("number is over 64 bits".to_owned());
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return if byte == 0 && shift > 0 {
                    Err("number is longer than needed".to_owned())
                } else {
                    Ok(value)
                };
            }
        }
        Err("number is over 64 bits".to_owned())
    }

    fn number32(&mut self) -> Result<u32, String> {
        u32::try_from(self.number()?).map_err(|_| "number is over 32 bits".to_owned())
    }

    fn length(&mut self) -> Result<usize, String> {
        usize::try_from(self.number()?).map_err(|_| "length is out of range".to_owned())
    }

    fn text(&mut self) -> Result<String, String> {
        let length = self.length()?;
        let text = std::str::from_utf8(self.take(length)?).map_err(|error| error.to_string())?;
        Ok(text.to_owned())
    }

    fn list<T>(&mut self, mut each: impl FnMut(&mut Self) -> Result<T, String>) -> Result<Vec<T>, String> {
        let count = self.length()?;
        // Every entry has at least one byte, so a false count cannot make us reserve memory.
        let mut list = Vec::with_capacity(count.min(self.0.len()).min(64));
        for _ in 0..count {
            list.push(each(self)?);
        }
        Ok(list)
    }

    fn optional<T>(
        &mut self,
        some: impl FnOnce(&mut Self) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        if self.flag()? { some(self).map(Some) } else { Ok(None) }
    }
}

/// Nanoseconds since 1970; times that do not fit (before 1678, after 2262) move to the nearest
/// that does.
pub(super) fn to_nanos(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |nanos| -nanos),
    }
}

/// The inverse of [`to_nanos`].
pub(super) fn from_nanos(nanos: i64) -> SystemTime {
    let distance = Duration::from_nanos(nanos.unsigned_abs());
    let time = if nanos < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    time.unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests;
