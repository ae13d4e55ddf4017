//! Answers as the bytes of their messages, without the messages: byte for byte what `prost` makes of those of `convert`.
//!
//! What an answer looks like is written once, in [`WireMessage`]. A message inside of another one has its length in front: room for it
//! is left, and made larger or smaller where it turns out to have another width, which is rare.

use std::ops::Range;

use bytes::Bytes;

use crate::decision::{Added, Answer, EffectiveScope, Grants, OAuthError, Refused};
use crate::proto::borrowed::ClientRef;
use crate::rpc::codec::{frame, frame_with_capacity};
use crate::rpc::convert;
use crate::rpc::wire_id::WireId;
use crate::store::Active;

/// The answer to a registration: an `ExpandRegistrationScopesResponse`.
#[derive(Clone, Copy, Debug)]
pub struct EncodedExpand<'e>(AnswerParts<'e>);

/// The answer to an authorize request: a `CheckAuthorizeScopesResponse`.
#[derive(Clone, Copy, Debug)]
pub struct EncodedCheck<'e>(AnswerParts<'e>);

/// The answer to a request for a token: a `CheckTokenScopesResponse`.
#[derive(Clone, Copy, Debug)]
pub struct EncodedToken<'e>(AnswerParts<'e>);

/// An answer as a result of a batch: `results` of a `BatchCheckAuthorizeScopesResponse` or a `BatchCheckTokenScopesResponse` with
/// one entry.
#[derive(Clone, Copy, Debug)]
pub struct EncodedItem<A>(A);

/// An answer that may be a result of a batch.
pub trait EncodedAnswer: WireMessage + Copy {
    /// The same without the texts for people in `refused`.
    #[must_use]
    fn without_messages(self) -> Self;

    /// The same as a result of a batch.
    fn into_item(self) -> EncodedItem<Self> {
        EncodedItem(self)
    }
}

#[derive(Clone, Copy, Debug)]
struct AnswerParts<'e> {
    answer: &'e Answer<'e>,
    policy: &'e Active,
    decision_id: &'e WireId,
    /// Without the texts for people in `refused`.
    without_messages: bool,
}

impl<'e> AnswerParts<'e> {
    fn new(answer: &'e Answer<'e>, policy: &'e Active, decision_id: &'e WireId) -> Self {
        Self { answer, policy, decision_id, without_messages: false }
    }
}

impl<'e> EncodedExpand<'e> {
    /// The answer of this policy.
    #[must_use]
    pub fn new(answer: &'e Answer<'e>, policy: &'e Active, decision_id: &'e WireId) -> Self {
        Self(AnswerParts::new(answer, policy, decision_id))
    }
}

impl<'e> EncodedCheck<'e> {
    /// The answer of this policy.
    #[must_use]
    pub fn new(answer: &'e Answer<'e>, policy: &'e Active, decision_id: &'e WireId) -> Self {
        Self(AnswerParts::new(answer, policy, decision_id))
    }
}

impl<'e> EncodedToken<'e> {
    /// The answer of this policy.
    #[must_use]
    pub fn new(answer: &'e Answer<'e>, policy: &'e Active, decision_id: &'e WireId) -> Self {
        Self(AnswerParts::new(answer, policy, decision_id))
    }
}

impl EncodedAnswer for EncodedCheck<'_> {
    fn without_messages(mut self) -> Self {
        self.0.without_messages = true;
        self
    }
}

impl EncodedAnswer for EncodedToken<'_> {
    fn without_messages(mut self) -> Self {
        self.0.without_messages = true;
        self
    }
}

impl<A: EncodedAnswer> EncodedItem<A> {
    /// The same without the texts for people in `refused`.
    #[must_use]
    pub fn without_messages(self) -> Self {
        Self(self.0.without_messages())
    }
}

/// A message that is written without being made.
pub trait WireMessage {
    /// Appends its fields, in the order of their numbers.
    fn put(&self, fields: &mut FieldWriter<'_>);

    /// Appends its bytes.
    fn encode(&self, bytes: &mut Vec<u8>) {
        self.put(&mut FieldWriter { bytes });
    }

    /// Its bytes with their length prefix.
    fn framed(&self) -> Bytes {
        let mut bytes = frame_with_capacity(MESSAGE_BYTES);
        self.encode(&mut bytes);
        frame(bytes)
    }
}

impl WireMessage for EncodedExpand<'_> {
    fn put(&self, fields: &mut FieldWriter<'_>) {
        self.0.put(fields);
    }
}

impl WireMessage for EncodedCheck<'_> {
    fn put(&self, fields: &mut FieldWriter<'_>) {
        let written = self.0.put(fields);
        match &self.0.answer.effective {
            EffectiveScope::Granted => fields.again(9, &written),
            EffectiveScope::Other(scope) => _ = fields.scopes(9, scope),
        }
        self.0.put_grants(10, &written, fields);
    }
}

impl WireMessage for EncodedToken<'_> {
    fn put(&self, fields: &mut FieldWriter<'_>) {
        let AnswerParts { answer, policy, decision_id, without_messages: _ } = &self.0;
        fields.number(1, convert::decision(answer) as u64);
        let written = fields.scopes(2, &answer.scope);
        self.0.put_refused(3, fields);
        if let Some(error) = &answer.oauth_error {
            fields.message(4, error);
        }
        fields.message(5, *policy);
        fields.bytes(6, decision_id.text());
        fields.number(7, convert::reason(answer.reason) as u64);
        self.0.put_grants(8, &written, fields);
    }
}

/// As the entry of the list of results.
impl<A: WireMessage> WireMessage for EncodedItem<A> {
    fn put(&self, fields: &mut FieldWriter<'_>) {
        // Ids and digests alone are more than 128 bytes.
        fields.nested::<2>(1, |item| item.nested::<2>(1, |response| self.0.put(response)));
    }
}

impl AnswerParts<'_> {
    /// Puts the fields that the answers to a registration and an authorize request have. Returns where the scopes are.
    fn put(&self, fields: &mut FieldWriter<'_>) -> Range<usize> {
        let Self { answer, policy, decision_id, without_messages: _ } = self;
        fields.number(1, convert::decision(answer) as u64);
        let written = fields.scopes(2, &answer.scope);
        for added in &answer.added {
            fields.message(3, added);
        }
        self.put_refused(4, fields);
        if let Some(error) = &answer.oauth_error {
            fields.message(5, error);
        }
        fields.message(6, *policy);
        fields.bytes(7, decision_id.text());
        fields.number(8, convert::reason(answer.reason) as u64);
        written
    }

    #[inline]
    fn put_refused(&self, field: u8, fields: &mut FieldWriter<'_>) {
        for refused in &self.answer.refused {
            match self.without_messages {
                false => fields.message(field, refused),
                true => fields.message(field, &WithoutMessage(refused)),
            }
        }
    }

    /// Puts which audience grants what. `written`: where the scopes of the answer are.
    #[inline]
    fn put_grants(&self, field: u8, written: &Range<usize>, fields: &mut FieldWriter<'_>) {
        match &self.answer.grants {
            Grants::Nothing => {}
            Grants::Whole(audience) => fields.nested::<1>(field, |fields| {
                fields.bytes(1, audience.as_bytes());
                fields.again(2, written);
            }),
            Grants::Parts(parts) => {
                for (audience, scope) in parts {
                    fields.nested::<1>(field, |fields| {
                        fields.bytes(1, audience.as_bytes());
                        fields.scopes(2, scope);
                    });
                }
            }
        }
    }
}

impl WireMessage for Added<'_> {
    fn put(&self, fields: &mut FieldWriter<'_>) {
        let Self { scope, origin, rule, is_registered: _ } = self;
        fields.bytes(1, scope.as_bytes());
        fields.number(2, convert::origin(*origin) as u64);
        fields.bytes(3, rule.as_bytes());
    }
}

impl WireMessage for Refused<'_> {
    fn put(&self, fields: &mut FieldWriter<'_>) {
        WithoutMessage(self).put(fields);
        fields.bytes(3, self.message.as_bytes());
    }
}

struct WithoutMessage<'e>(&'e Refused<'e>);

impl WireMessage for WithoutMessage<'_> {
    fn put(&self, fields: &mut FieldWriter<'_>) {
        let Refused { scope, reason, standing: _, message: _ } = self.0;
        fields.bytes(1, scope.as_bytes());
        fields.number(2, convert::reason(Some(*reason)) as u64);
    }
}

impl WireMessage for OAuthError {
    fn put(&self, fields: &mut FieldWriter<'_>) {
        let Self { error, error_description } = self;
        fields.bytes(1, error.as_bytes());
        fields.bytes(2, error_description.as_bytes());
    }
}

/// As a `PolicyVersion`.
impl WireMessage for Active {
    fn put(&self, fields: &mut FieldWriter<'_>) {
        fields.number(1, self.generation);
        fields.bytes(2, self.set.digest().as_str().as_bytes());
    }
}

/// As a `Client`.
impl WireMessage for ClientRef<'_> {
    fn put(&self, fields: &mut FieldWriter<'_>) {
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
        fields.bytes(1, client_id.as_bytes());
        fields.number(2, i64::from(*source).cast_unsigned());
        fields.bytes(3, client_name.as_bytes());
        fields.bytes(4, software_id.as_bytes());
        fields.bytes(5, software_version.as_bytes());
        redirect_uris.iter().for_each(|uri| fields.entry(6, uri.as_bytes()));
        grant_types.iter().for_each(|grant_type| fields.entry(7, grant_type.as_bytes()));
        fields.bytes(8, application_type.as_bytes());
    }
}

/// Appends fields to the bytes of a message.
#[derive(Debug)]
pub struct FieldWriter<'b> {
    bytes: &'b mut Vec<u8>,
}

impl FieldWriter<'_> {
    /// A number or the number of an enum, unless it is 0.
    #[inline]
    pub fn number(&mut self, field: u8, value: u64) {
        if value != 0 {
            self.varint(u64::from(field) << 3);
            self.varint(value);
        }
    }

    /// A text, unless it is empty.
    #[inline]
    pub fn bytes(&mut self, field: u8, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.entry(field, bytes);
        }
    }

    /// A text, empty or not: one that may be absent and is not, or an entry of a list.
    #[inline]
    pub fn entry(&mut self, field: u8, bytes: &[u8]) {
        self.key(field);
        self.varint(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    /// Scopes in their wire form, unless that is empty. Returns where that is, for `again`.
    pub fn scopes(&mut self, field: u8, scopes: &[&str]) -> Range<usize> {
        if let [] | [""] = scopes {
            return 0..0;
        }
        let length = scopes.iter().map(|scope| scope.len() + 1).sum::<usize>() - 1;
        self.key(field);
        self.varint(length as u64);
        let start = self.bytes.len();
        for (at, scope) in scopes.iter().enumerate() {
            if at > 0 {
                self.bytes.push(b' ');
            }
            self.bytes.extend_from_slice(scope.as_bytes());
        }
        start..start + length
    }

    /// A text that was written before, unless it is empty.
    fn again(&mut self, field: u8, written: &Range<usize>) {
        if !written.is_empty() {
            self.key(field);
            self.varint(written.len() as u64);
            self.bytes.extend_from_within(written.clone());
        }
    }

    /// A text that `put` appends, not empty and shorter than 128 bytes.
    #[inline]
    pub fn text(&mut self, field: u8, put: impl FnOnce(&mut Vec<u8>)) {
        self.nested::<1>(field, |fields| put(fields.bytes));
    }

    /// A message in a field, empty or not.
    #[inline]
    pub fn message(&mut self, field: u8, message: &impl WireMessage) {
        self.nested::<1>(field, |fields| message.put(fields));
    }

    /// What `put` appends, with its key and its length, which is expected to have `WIDTH` bytes.
    #[inline]
    fn nested<const WIDTH: usize>(&mut self, field: u8, put: impl FnOnce(&mut Self)) {
        self.key(field);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; WIDTH]);
        put(self);
        let length = self.bytes.len() - start - WIDTH;
        match self.bytes.get_mut(start) {
            // Most lengths are of one byte.
            Some(place) if WIDTH == 1 && length < 0x80 => *place = length as u8,
            _ => self.put_length(start, WIDTH, length),
        }
    }

    /// Puts the length of what follows it into its room, which is made as wide as it needs to be.
    fn put_length(&mut self, start: usize, room: usize, length: usize) {
        let width = prost::length_delimiter_len(length);
        if width != room {
            self.shift(start + room, start + width);
        }
        let places = self.bytes.iter_mut().skip(start).take(width);
        for (at, place) in places.enumerate() {
            let continues = if at + 1 < width { 0x80 } else { 0 };
            *place = (length >> (7 * at)) as u8 & 0x7F | continues;
        }
    }

    /// Moves all bytes from a position on to another one.
    #[cold]
    fn shift(&mut self, from: usize, to: usize) {
        let end = self.bytes.len();
        if let Some(more) = to.checked_sub(from) {
            self.bytes.resize(end + more, 0);
        }
        self.bytes.copy_within(from..end, to);
        self.bytes.truncate(end + to - from);
    }

    #[inline]
    fn key(&mut self, field: u8) {
        self.varint(u64::from(field) << 3 | 2);
    }

    /// A number without its key.
    #[inline]
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }
}

/// More than most answers have.
const MESSAGE_BYTES: usize = 500;

#[cfg(test)]
mod tests;
