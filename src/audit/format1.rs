//! Format 1 of a record, which stores from before format 2 have: read and hashed, never written to a store.
//!
//! `docs/reference/audit-chain.md` describes it byte by byte. It knows fewer fields than a message has; a
//! message with any of the others was not written in it.

use prost_types::Timestamp;
use uuid::Uuid;

use super::record::{Body, GapReason, Hash, nanos_of, sha256};
use crate::proto::v1::{
    AddedScope, AuditEvent, AuditEventKind, Caller, Client, ClientSource, Gap, Origin, PolicyChange,
    PolicyVersion, Reason, RefusedScope,
};

/// The first byte of every record.
pub(super) const VERSION: u8 = 1;
const TYPE_EVENT: u8 = 1;
const TYPE_GAP: u8 = 2;

/// The greatest number that each enum had.
const LAST_KIND: i32 = AuditEventKind::PolicyChange as i32;
const LAST_SOURCE: i32 = ClientSource::Static as i32;
const LAST_ORIGIN: i32 = Origin::StepUp as i32;
/// How many of the reasons of a gap it had.
const GAP_REASONS: usize = 6;
const LAST_REASON: i32 = Reason::AudienceRequired as i32;

/// The content that the record had after one of this hash; `None` if format 1 cannot have it. The hashes of an
/// event are not looked at.
fn encode(body: &Body, prev_hash: &Hash) -> Option<Vec<u8>> {
    let mut out = Out(Vec::with_capacity(512));
    out.byte(VERSION);
    out.byte(match body {
        Body::Event(_) => TYPE_EVENT,
        Body::Gap(_) => TYPE_GAP,
    });
    out.uuid(body.log_id())?;
    out.fixed(&body.sequence().to_be_bytes());
    out.fixed(prev_hash);
    out.fixed(&body.time().to_be_bytes());
    match body {
        Body::Event(event) => out.event(event)?,
        Body::Gap(gap) => {
            let Gap { log_id: _, sequence: _, count, reason, first_time, last_time: _, reason_counts } = gap;
            let code = GapReason::ALL.iter().take(GAP_REASONS).position(|known| known.as_str() == reason)?;
            if !reason_counts.is_empty() {
                return None;
            }
            out.byte(u8::try_from(code + 1).ok()?);
            out.number(*count);
            out.fixed(&nanos_of(*first_time).to_be_bytes());
        }
    }
    Some(out.0)
}

/// The hash that the record has after one of this hash; `None` if format 1 cannot have it.
pub(super) fn hash(body: &Body, prev_hash: &Hash) -> Option<Hash> {
    encode(body, prev_hash).map(|content| sha256(&content))
}

/// Decodes content. Only what [`encode`] gives is taken: every record has one encoding. Returns the hash of the
/// record before, too.
pub(super) fn decode(content: &[u8]) -> Result<(Body, Hash), String> {
    let mut bytes = Bytes(content);
    let version = bytes.byte()?;
    if version != VERSION {
        return Err(format!("version {version} is unknown"));
    }
    let record_type = bytes.byte()?;
    let log_id = bytes.uuid()?;
    let sequence = u64::from_be_bytes(bytes.fixed()?);
    let prev_hash = bytes.fixed()?;
    let time = bytes.time()?;
    let body = match record_type {
        TYPE_EVENT => Body::Event(Box::new(bytes.event(log_id, sequence, time)?)),
        TYPE_GAP => {
            let code = bytes.byte()?;
            let reason = usize::from(code).checked_sub(1).filter(|at| *at < GAP_REASONS);
            let reason = reason.and_then(|at| GapReason::ALL.get(at));
            let reason = reason.ok_or_else(|| format!("gap reason {code} is unknown"))?;
            Body::Gap(Gap {
                log_id,
                sequence,
                reason: reason.as_str().to_owned(),
                count: bytes.number()?,
                first_time: Some(bytes.time()?),
                last_time: Some(time),
                ..Gap::default()
            })
        }
        other => return Err(format!("record type {other} is unknown")),
    };
    if !bytes.0.is_empty() {
        return Err(format!("{} bytes follow the record", bytes.0.len()));
    }
    Ok((body, prev_hash))
}

/// What is encoded so far.
struct Out(Vec<u8>);

impl Out {
    fn event(&mut self, event: &AuditEvent) -> Option<()> {
        let AuditEvent {
            log_id: _,
            sequence: _,
            event_id,
            event_time: _,
            kind,
            decision_id,
            method,
            audiences,
            client,
            requested_scope,
            registered_scope,
            effective_scope,
            added,
            refused,
            reason,
            policy,
            policy_change,
            caller,
            peer,
            trace_id,
            attempt,
            client_truncated,
            prev_hash: _,
            hash: _,
            asked_audiences,
            correlation_id,
            log_opened,
            granted_scope,
            grant,
        } = event;
        let is_newer =
            !correlation_id.is_empty() || log_opened.is_some() || granted_scope.is_some() || *grant != 0;
        if asked_audiences != audiences || is_newer {
            return None;
        }
        self.uuid(event_id)?;
        self.code(*kind, 1, LAST_KIND)?;
        self.optional(Some(decision_id).filter(|id| !id.is_empty()), |out, id| out.uuid(id))?;
        self.text(method);
        self.texts(audiences);
        self.optional(client.as_ref(), Self::client)?;
        for scope in [requested_scope, registered_scope] {
            self.optional(scope.as_ref(), |out, scope| {
                out.text(scope);
                Some(())
            })?;
        }
        self.text(effective_scope);
        self.number(added.len() as u64);
        for AddedScope { scope, origin, rule } in added {
            self.text(scope);
            self.code(*origin, 1, LAST_ORIGIN)?;
            self.text(rule);
        }
        self.number(refused.len() as u64);
        for RefusedScope { scope, reason, message } in refused {
            self.text(scope);
            self.code(*reason, 1, LAST_REASON)?;
            self.text(message);
        }
        self.code(*reason, 0, LAST_REASON)?;
        let PolicyVersion { generation, digest } = policy.as_ref()?;
        self.number(*generation);
        self.text(digest);
        self.optional(policy_change.as_ref(), |out, change| {
            let PolicyChange {
                accepted,
                previous_digest,
                finding_count,
                changes,
                change_count,
                widening_count,
            } = change;
            out.byte(u8::from(*accepted));
            out.text(previous_digest);
            out.number(u64::from(*finding_count));
            (changes.is_empty() && *change_count == 0 && *widening_count == 0).then_some(())
        })?;
        let Caller { name, authenticated_by } = caller.as_ref()?;
        self.text(name);
        self.text(authenticated_by);
        self.text(peer);
        self.text(trace_id);
        self.number(u64::from(*attempt));
        self.byte(u8::from(*client_truncated));
        Some(())
    }

    fn client(&mut self, client: &Client) -> Option<()> {
        let Client {
            client_id,
            source,
            client_name,
            software_id,
            software_version,
            redirect_uris,
            grant_types,
            application_type,
        } = client;
        self.text(client_id);
        self.code(*source, 0, LAST_SOURCE)?;
        self.text(client_name);
        self.text(software_id);
        self.text(software_version);
        self.texts(redirect_uris);
        self.texts(grant_types);
        self.text(application_type);
        Some(())
    }

    fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    fn fixed(&mut self, value: &[u8]) {
        self.0.extend_from_slice(value);
    }

    /// Only the form that messages have, so that a text that was changed is not taken for the same.
    fn uuid(&mut self, text: &str) -> Option<()> {
        let id = Uuid::parse_str(text).ok().filter(|id| id.to_string() == text)?;
        self.fixed(id.as_bytes());
        Some(())
    }

    fn code(&mut self, value: i32, first: i32, last: i32) -> Option<()> {
        self.byte(u8::try_from(value).ok().filter(|_| (first..=last).contains(&value))?);
        Some(())
    }

    /// Seven bits a byte, least first, the high bit on all but the last (LEB128).
    fn number(&mut self, value: u64) {
        prost::encoding::encode_varint(value, &mut self.0);
    }

    fn text(&mut self, value: &str) {
        self.number(value.len() as u64);
        self.fixed(value.as_bytes());
    }

    fn texts(&mut self, values: &[String]) {
        self.number(values.len() as u64);
        for value in values {
            self.text(value);
        }
    }

    fn optional<T>(&mut self, value: Option<T>, some: impl FnOnce(&mut Self, T) -> Option<()>) -> Option<()> {
        match value {
            None => {
                self.byte(0);
                Some(())
            }
            Some(value) => {
                self.byte(1);
                some(self, value)
            }
        }
    }
}

/// What is left to decode.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn event(&mut self, log_id: String, sequence: u64, time: Timestamp) -> Result<AuditEvent, String> {
        // In the order of the encoding.
        let mut event = AuditEvent {
            log_id,
            sequence,
            event_time: Some(time),
            event_id: self.uuid()?,
            kind: self.code("event kind", 1, LAST_KIND)?,
            decision_id: self.optional(Self::uuid)?.unwrap_or_default(),
            method: self.text()?,
            audiences: self.list(Self::text)?,
            client: self.optional(Self::client)?,
            requested_scope: self.optional(Self::text)?,
            registered_scope: self.optional(Self::text)?,
            effective_scope: self.text()?,
            added: self.list(|bytes| {
                Ok(AddedScope {
                    scope: bytes.text()?,
                    origin: bytes.code("origin", 1, LAST_ORIGIN)?,
                    rule: bytes.text()?,
                })
            })?,
            refused: self.list(|bytes| {
                Ok(RefusedScope {
                    scope: bytes.text()?,
                    reason: bytes.code("reason", 1, LAST_REASON)?,
                    message: bytes.text()?,
                })
            })?,
            reason: self.code("reason", 0, LAST_REASON)?,
            policy: Some(PolicyVersion { generation: self.number()?, digest: self.text()? }),
            policy_change: self.optional(|bytes| {
                Ok(PolicyChange {
                    accepted: bytes.flag()?,
                    previous_digest: bytes.text()?,
                    finding_count: bytes.number32()?,
                    ..PolicyChange::default()
                })
            })?,
            caller: Some(Caller { name: self.text()?, authenticated_by: self.text()? }),
            peer: self.text()?,
            trace_id: self.text()?,
            attempt: self.number32()?,
            client_truncated: self.flag()?,
            ..AuditEvent::default()
        };
        // It did not tell those that were named. The ones that decided are the best that is known.
        event.asked_audiences.clone_from(&event.audiences);
        Ok(event)
    }

    fn client(&mut self) -> Result<Client, String> {
        Ok(Client {
            client_id: self.text()?,
            source: self.code("client source", 0, LAST_SOURCE)?,
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

    fn uuid(&mut self) -> Result<String, String> {
        Ok(Uuid::from_bytes(self.fixed()?).to_string())
    }

    fn time(&mut self) -> Result<Timestamp, String> {
        let nanos = i64::from_be_bytes(self.fixed()?);
        let below = nanos.rem_euclid(NANOS_PER_SECOND);
        Ok(Timestamp {
            seconds: nanos.div_euclid(NANOS_PER_SECOND),
            nanos: i32::try_from(below).unwrap_or_default(),
        })
    }

    fn flag(&mut self) -> Result<bool, String> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(format!("{other} is neither 0 nor 1")),
        }
    }

    fn code(&mut self, what: &str, first: i32, last: i32) -> Result<i32, String> {
        let code = i32::from(self.byte()?);
        if (first..=last).contains(&code) { Ok(code) } else { Err(format!("{what} {code} is unknown")) }
    }

    fn number(&mut self) -> Result<u64, String> {
        let before = self.0;
        let value = prost::encoding::decode_varint(&mut self.0).map_err(|error| error.to_string())?;
        if before.len() - self.0.len() == prost::encoding::encoded_len_varint(value) {
            Ok(value)
        } else {
            Err("number is longer than needed".to_owned())
        }
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

const NANOS_PER_SECOND: i64 = 1_000_000_000;

#[cfg(test)]
mod tests;
