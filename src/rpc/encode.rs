//! Answers as the bytes of their messages, without the messages: byte for byte what `prost` makes of those of `convert`.
//!
//! What an answer looks like is written once, in [`WireMessage`]; it is first measured, then written, since a message inside
//! of another one has its length in front.

use bytes::{BufMut, Bytes};
use uuid::Uuid;

use crate::decision::{Added, Answer, AudienceGrant, OAuthError, Refused};
use crate::proto::borrowed::ClientRef;
use crate::rpc::codec::{frame, frame_with_capacity};
use crate::rpc::convert;
use crate::store::Active;

/// The answer to a registration: an `ExpandRegistrationScopesResponse`.
#[derive(Clone, Copy, Debug)]
pub struct EncodedExpand<'e>(AnswerParts<'e>);

/// The answer to an authorize request: a `CheckAuthorizeScopesResponse`.
#[derive(Clone, Copy, Debug)]
pub struct EncodedCheck<'e>(AnswerParts<'e>);

/// An answer to an authorize request as a result of a batch: a `BatchCheckResult`. It is measured once.
#[derive(Clone, Copy, Debug)]
pub struct EncodedItem<'e> {
    response: EncodedCheck<'e>,
    response_length: usize,
}

#[derive(Clone, Copy, Debug)]
struct AnswerParts<'e> {
    answer: &'e Answer<'e>,
    policy: &'e Active,
    decision_id: [u8; DECISION_ID_BYTES],
    /// Without the texts for people in `refused`.
    without_messages: bool,
}

impl<'e> AnswerParts<'e> {
    fn new(answer: &'e Answer<'e>, policy: &'e Active, decision_id: Uuid) -> Self {
        let mut text = [0; DECISION_ID_BYTES];
        decision_id.hyphenated().encode_lower(&mut text);
        Self { answer, policy, decision_id: text, without_messages: false }
    }
}

impl<'e> EncodedExpand<'e> {
    /// The answer of this policy.
    #[must_use]
    pub fn new(answer: &'e Answer<'e>, policy: &'e Active, decision_id: Uuid) -> Self {
        Self(AnswerParts::new(answer, policy, decision_id))
    }
}

impl<'e> EncodedCheck<'e> {
    /// The answer of this policy.
    #[must_use]
    pub fn new(answer: &'e Answer<'e>, policy: &'e Active, decision_id: Uuid) -> Self {
        Self(AnswerParts::new(answer, policy, decision_id))
    }

    /// The same as a result of a batch.
    #[must_use]
    pub fn into_item(self) -> EncodedItem<'e> {
        EncodedItem { response: self, response_length: self.encoded_len() }
    }
}

impl EncodedItem<'_> {
    /// The same without the texts for people in `refused`.
    #[must_use]
    pub fn without_messages(mut self) -> Self {
        self.response.0.without_messages = true;
        self.response.into_item()
    }
}

/// A message that is written without being made.
pub trait WireMessage {
    /// Puts its fields, in the order of their numbers.
    fn put(&self, sink: &mut impl FieldSink);

    /// Its length in bytes.
    fn encoded_len(&self) -> usize {
        let mut length = LengthSink(0);
        self.put(&mut length);
        length.0
    }

    /// Appends its bytes, of which there are [`WireMessage::encoded_len`].
    fn encode(&self, bytes: &mut impl BufMut) {
        self.put(&mut BytesSink(bytes));
    }

    /// Its bytes with their length prefix.
    fn framed(&self) -> Bytes {
        let mut bytes = frame_with_capacity(self.encoded_len());
        self.encode(&mut bytes);
        frame(bytes)
    }
}

impl WireMessage for EncodedExpand<'_> {
    fn put(&self, sink: &mut impl FieldSink) {
        self.0.put(sink);
    }
}

impl WireMessage for EncodedCheck<'_> {
    fn put(&self, sink: &mut impl FieldSink) {
        self.0.put(sink);
        sink.scopes(9, &self.0.answer.effective_registered_scope);
        for grant in self.0.answer.audience_grants() {
            sink.message(10, &grant);
        }
    }
}

impl WireMessage for EncodedItem<'_> {
    fn put(&self, sink: &mut impl FieldSink) {
        let Self { response, response_length } = self;
        sink.length(1, *response_length);
        response.put(sink);
    }

    fn encoded_len(&self) -> usize {
        let mut length = LengthSink(0);
        length.length(1, self.response_length);
        length.0 + self.response_length
    }
}

/// What both answers have.
impl WireMessage for AnswerParts<'_> {
    fn put(&self, sink: &mut impl FieldSink) {
        let Self { answer, policy, decision_id, without_messages } = *self;
        sink.number(1, convert::decision(answer) as u64);
        sink.scopes(2, &answer.scope);
        for added in &answer.added {
            sink.message(3, added);
        }
        for refused in &answer.refused {
            match without_messages {
                false => sink.message(4, refused),
                true => sink.message(4, &WithoutMessage(refused)),
            }
        }
        if let Some(error) = &answer.oauth_error {
            sink.message(5, error);
        }
        sink.message(6, policy);
        sink.bytes(7, &decision_id);
        sink.number(8, convert::reason(answer.reason) as u64);
    }
}

impl WireMessage for Added<'_> {
    fn put(&self, sink: &mut impl FieldSink) {
        let Self { scope, origin, rule, is_registered: _ } = self;
        sink.bytes(1, scope.as_bytes());
        sink.number(2, convert::origin(*origin) as u64);
        sink.bytes(3, rule.as_bytes());
    }
}

impl WireMessage for Refused<'_> {
    fn put(&self, sink: &mut impl FieldSink) {
        WithoutMessage(self).put(sink);
        sink.bytes(3, self.message.as_bytes());
    }
}

struct WithoutMessage<'e>(&'e Refused<'e>);

impl WireMessage for WithoutMessage<'_> {
    fn put(&self, sink: &mut impl FieldSink) {
        let Refused { scope, reason, is_registered: _, message: _ } = self.0;
        sink.bytes(1, scope.as_bytes());
        sink.number(2, convert::reason(Some(*reason)) as u64);
    }
}

impl WireMessage for OAuthError {
    fn put(&self, sink: &mut impl FieldSink) {
        let Self { error, error_description } = self;
        sink.bytes(1, error.as_bytes());
        sink.bytes(2, error_description.as_bytes());
    }
}

/// As a `PolicyVersion`.
impl WireMessage for Active {
    fn put(&self, sink: &mut impl FieldSink) {
        sink.number(1, self.generation);
        sink.bytes(2, self.set.digest().as_str().as_bytes());
    }
}

/// As a `Client`.
impl WireMessage for ClientRef<'_> {
    fn put(&self, sink: &mut impl FieldSink) {
        let Self {
            client_id,
            source,
            client_name,
            software_id,
            software_version,
            redirect_uris,
            grant_types,
            application_type,
        } = self;
        sink.bytes(1, client_id.as_bytes());
        sink.number(2, i64::from(*source).cast_unsigned());
        sink.bytes(3, client_name.as_bytes());
        sink.bytes(4, software_id.as_bytes());
        sink.bytes(5, software_version.as_bytes());
        redirect_uris.iter().for_each(|uri| sink.entry(6, uri.as_bytes()));
        grant_types.iter().for_each(|grant_type| sink.entry(7, grant_type.as_bytes()));
        sink.bytes(8, application_type.as_bytes());
    }
}

impl WireMessage for AudienceGrant<'_> {
    fn put(&self, sink: &mut impl FieldSink) {
        let Self { audience, scope } = self;
        sink.bytes(1, audience.as_bytes());
        sink.scopes(2, scope);
    }
}

/// What fields are put into.
pub trait FieldSink {
    /// One byte.
    fn byte(&mut self, byte: u8);

    /// Some bytes.
    fn slice(&mut self, bytes: &[u8]);

    /// A message in a field, empty or not.
    fn message(&mut self, field: u8, message: &impl WireMessage);

    /// A number without its key.
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.byte(value as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }

    /// A number or the number of an enum, unless it is 0.
    fn number(&mut self, field: u8, value: u64) {
        if value != 0 {
            self.varint(u64::from(field) << 3);
            self.varint(value);
        }
    }

    /// A text, unless it is empty.
    fn bytes(&mut self, field: u8, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.entry(field, bytes);
        }
    }

    /// A text, empty or not: one that may be absent and is not, or an entry of a list.
    fn entry(&mut self, field: u8, bytes: &[u8]) {
        self.length(field, bytes.len());
        self.slice(bytes);
    }

    /// Scopes in their wire form, unless that is empty.
    fn scopes(&mut self, field: u8, scopes: &[&str]) {
        let Some((first, rest)) = scopes.split_first() else { return };
        let length = rest.iter().fold(first.len(), |length, scope| length + 1 + scope.len());
        if length == 0 {
            return;
        }
        self.length(field, length);
        self.slice(first.as_bytes());
        for scope in rest {
            self.byte(b' ');
            self.slice(scope.as_bytes());
        }
    }

    /// The key and the length of what follows.
    fn length(&mut self, field: u8, length: usize) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(length as u64);
    }
}

/// Measures.
struct LengthSink(usize);

impl FieldSink for LengthSink {
    fn byte(&mut self, _: u8) {
        self.0 += 1;
    }

    fn slice(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }

    fn message(&mut self, field: u8, message: &impl WireMessage) {
        let before = self.0;
        message.put(self);
        self.length(field, self.0 - before);
    }

    fn varint(&mut self, value: u64) {
        self.0 += prost::encoding::encoded_len_varint(value);
    }
}

/// Writes.
struct BytesSink<'b, B>(&'b mut B);

impl<B: BufMut> FieldSink for BytesSink<'_, B> {
    fn byte(&mut self, byte: u8) {
        self.0.put_u8(byte);
    }

    fn slice(&mut self, bytes: &[u8]) {
        self.0.put_slice(bytes);
    }

    fn message(&mut self, field: u8, message: &impl WireMessage) {
        self.length(field, message.encoded_len());
        message.put(self);
    }
}

const DECISION_ID_BYTES: usize = uuid::fmt::Hyphenated::LENGTH;

#[cfg(test)]
mod tests;
