//! An event in the bytes that the chain, the store and the streams share: encoded once, before it is queued.
//!
//! `log_id` and `sequence` have the lowest numbers of an [`AuditEvent`], and its hashes are never stored. So everything else
//! can be encoded, in the canonical encoding, before an event has its place in the chain.

use std::borrow::Cow;

use prost::Message as _;
use prost_types::Timestamp;

use super::record::nanos_of;
use crate::proto::v1::{AuditEvent, AuditEventKind, Reason};

/// An event in its canonical encoding, without a place in the chain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EncodedEvent {
    fields: Vec<u8>,
    kind: AuditEventKind,
    reason: Reason,
    /// Nanoseconds since 1970.
    time: i64,
}

impl EncodedEvent {
    /// An event of these fields: from `event_id` on, hashes left out, in the canonical encoding. Kind, reason and time are those
    /// that the fields have.
    #[must_use]
    pub fn new(kind: AuditEventKind, reason: Reason, time: Timestamp, fields: Vec<u8>) -> Self {
        Self { fields, kind, reason, time: nanos_of(Some(time)) }
    }

    /// The fields from `event_id` on, in the canonical encoding.
    #[must_use]
    pub fn fields(&self) -> &[u8] {
        &self.fields
    }

    /// The memory of the fields, for another event.
    #[must_use]
    pub fn into_fields(self) -> Vec<u8> {
        self.fields
    }

    /// What happened.
    pub(super) const fn kind(&self) -> AuditEventKind {
        self.kind
    }

    /// Why the whole was denied.
    pub(super) const fn reason(&self) -> Reason {
        self.reason
    }

    /// When it happened, nanoseconds since 1970.
    pub(super) const fn time(&self) -> i64 {
        self.time
    }
}

/// The id of the event of these fields; `""` if it has none.
pub(super) fn event_id(fields: &[u8]) -> String {
    AuditEvent::decode(fields).map(|event| event.event_id).unwrap_or_default()
}

impl From<AuditEvent> for EncodedEvent {
    /// A place that the event may have already, and its hashes, are left out.
    fn from(mut event: AuditEvent) -> Self {
        (event.log_id, event.sequence) = (String::new(), 0);
        (event.prev_hash, event.hash) = (Vec::new(), Vec::new());
        Self {
            kind: event.kind(),
            reason: event.reason(),
            time: nanos_of(event.event_time),
            fields: event.encode_to_vec(),
        }
    }
}

impl From<AuditEvent> for Cow<'_, EncodedEvent> {
    fn from(event: AuditEvent) -> Self {
        Cow::Owned(event.into())
    }
}

impl<'e> From<&'e EncodedEvent> for Cow<'e, EncodedEvent> {
    fn from(event: &'e EncodedEvent) -> Self {
        Cow::Borrowed(event)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::record::tests::{LOG_ID, event};
    use super::super::record::{Body, Head, Tip, seal_event};
    use super::*;

    proptest! {
        #[test]
        fn event_that_was_encoded_before_it_had_a_place_is_the_record_of_its_message(
            mut body in event(), sequence in any::<u64>(), latest_time in any::<i64>(),
        ) {
            let tip = Tip { head: Head { sequence, hash: [7; 32] }, latest_time };
            let Body::Event(message) = &body else { panic!("no event") };
            // A place from elsewhere does not stay.
            let placed = AuditEvent {
                log_id: "other".to_owned(),
                sequence: 9,
                hash: vec![1],
                prev_hash: vec![2],
                ..*message.clone()
            };
            let encoded = EncodedEvent::from(placed);
            prop_assert_eq!(event_id(encoded.fields()), message.event_id.clone());
            let row = seal_event(&encoded, LOG_ID, tip);
            let (place, content) = body.seal(LOG_ID, tip);
            prop_assert_eq!((row.tip(), row.content.to_vec()), (place, content));
        }
    }
}
