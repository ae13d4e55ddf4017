//! What is read here is what `prost` decodes, whatever the bytes are; what encoders write is read here.

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

use super::*;
use crate::proto::FILE_DESCRIPTOR_SET;

/// How many messages are drawn and damaged.
const CASES: &str = "TEST_CODEC_CASES";
const FEW: u64 = 4_000;

/// Numbers that look random (SplitMix64), the same for the same seed.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// `true` once in so many times.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn of<'t>(&mut self, list: &[&'t str]) -> &'t str {
        list[self.below(list.len())]
    }

    fn text(&mut self) -> String {
        let short =
            ["", "a", "openid mcp:read", "https://mcp.example.com", "\0", "é", "日本", "a b  c", "\u{80}"];
        match self.below(12) {
            // Around the lengths at which a length takes one byte more.
            0 => self.of(&["x", "é"]).repeat([60, 63, 64, 126, 127, 128, 129, 300][self.below(8)]),
            1 if self.once_in(200) => "y".repeat([16_383, 16_384, 40_000][self.below(3)]),
            _ => self.of(&short).to_owned(),
        }
    }

    fn texts(&mut self) -> Vec<String> {
        let most = if self.once_in(30) { 40 } else { 4 };
        (0..self.below(most)).map(|_| self.text()).collect()
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (!self.once_in(3)).then(|| make(self))
    }

    fn client(&mut self) -> v1::Client {
        v1::Client {
            client_id: self.text(),
            source: self.number(),
            client_name: self.text(),
            software_id: self.text(),
            software_version: self.text(),
            redirect_uris: self.texts(),
            grant_types: self.texts(),
            application_type: self.text(),
        }
    }

    fn check(&mut self) -> v1::CheckAuthorizeScopesRequest {
        v1::CheckAuthorizeScopesRequest {
            audiences: self.texts(),
            scope: self.maybe(Self::text),
            registered_scope: self.maybe(Self::text),
            client: self.maybe(Self::client),
            correlation_id: self.text(),
        }
    }

    fn expand(&mut self) -> v1::ExpandRegistrationScopesRequest {
        v1::ExpandRegistrationScopesRequest {
            audiences: self.texts(),
            scope: self.maybe(Self::text),
            client: self.maybe(Self::client),
            previous_scope: self.maybe(Self::text),
            correlation_id: self.text(),
        }
    }

    fn token(&mut self) -> v1::CheckTokenScopesRequest {
        v1::CheckTokenScopesRequest {
            audiences: self.texts(),
            scope: self.maybe(Self::text),
            granted_scope: self.maybe(Self::text),
            registered_scope: self.maybe(Self::text),
            client: self.maybe(Self::client),
            grant: self.number(),
            correlation_id: self.text(),
        }
    }

    /// The number of an enum, mostly one of those that there are.
    fn number(&mut self) -> i32 {
        [0, 0, 1, 2, 3, 99, 127, 128, -1, i32::MAX][self.below(10)]
    }

    fn batch(&mut self) -> v1::BatchCheckAuthorizeScopesRequest {
        v1::BatchCheckAuthorizeScopesRequest { checks: (0..self.below(6)).map(|_| self.check()).collect() }
    }

    fn token_batch(&mut self) -> v1::BatchCheckTokenScopesRequest {
        v1::BatchCheckTokenScopesRequest { checks: (0..self.below(6)).map(|_| self.token()).collect() }
    }

    /// Fields that a message of ours does not have, or not like this: of every wire type, groups and broken ones among them.
    fn odd_field(&mut self) -> Vec<u8> {
        let number = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 1000, 536_870_911][self.below(14)];
        let mut bytes = Vec::new();
        let wire_type = self.below(8) as u64;
        self.put_number(number << 3 | wire_type, &mut bytes);
        match self.below(6) {
            0 => {
                let value = self.next() >> self.below(64);
                self.put_number(value, &mut bytes);
            }
            1 => {
                let text = self.text();
                self.put_number(text.len() as u64, &mut bytes);
                bytes.extend(text.bytes());
            }
            2 => bytes.extend([0; 8]),
            3 => {
                // A group and its end, sometimes the wrong one, sometimes many of them.
                let depth = [1, 2, 99, 100, 101, 300][self.below(6)];
                let number = number.max(1);
                bytes.clear();
                (0..depth).for_each(|_| self.put_number(number << 3 | 3, &mut bytes));
                let end = if self.once_in(4) { number + 1 } else { number };
                (0..depth).for_each(|_| self.put_number(end << 3 | 4, &mut bytes));
            }
            4 => bytes.extend([0xFF; 12]),
            _ => {}
        }
        bytes
    }

    /// A number, sometimes in more bytes than it needs.
    fn put_number(&mut self, number: u64, bytes: &mut Vec<u8>) {
        prost::encoding::encode_varint(number, bytes);
        if self.once_in(4) && bytes.len() < 9 {
            if let Some(last) = bytes.last_mut() {
                *last |= 0x80;
            }
            bytes.extend(std::iter::repeat_n(0x80, self.below(3)));
            bytes.push(0);
        }
    }

    /// Damages the bytes of a message; `other` are those of another one.
    fn damage(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(bytes.len() + 1);
        match self.below(9) {
            0 => bytes.extend(other),
            1 => {
                let field = self.odd_field();
                bytes.splice(at..at, field);
            }
            2 => {
                let field = self.odd_field();
                bytes.extend(field);
            }
            3 => bytes.truncate(at),
            4 => {
                let end = (at + self.below(20)).min(bytes.len());
                bytes.drain(at..end);
            }
            5 => {
                let end = (at + self.below(60)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                let to = self.below(bytes.len() + 1);
                bytes.splice(to..to, piece);
            }
            6 => {
                let byte = self.next() as u8;
                bytes.insert(at, byte);
            }
            _ => {
                let byte = [self.next() as u8, 0, 0x7F, 0x80, 0xFF, 0xC3, 0x0A, 0x12][self.below(8)];
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
        }
    }
}

/// Compares with `prost`, whatever the bytes are. Returns `true` if they were read here.
fn agrees<'a, M: Message + Default + PartialEq + std::fmt::Debug, R>(
    bytes: &'a [u8],
    read: impl FnOnce(&'a [u8]) -> Option<R>,
    to_message: impl FnOnce(&R) -> M,
) -> bool {
    let decoded = M::decode(bytes);
    let Some(read) = read(bytes) else { return false };
    let decoded = decoded.unwrap_or_else(|error| panic!("{bytes:02x?} was read, `prost` says {error}"));
    assert_eq!(to_message(&read), decoded, "{bytes:02x?}");
    assert_eq!(decoded.encoded_len(), bytes.len(), "{bytes:02x?}");
    true
}

fn agrees_as_check(bytes: &[u8]) -> bool {
    agrees(bytes, CheckRequestRef::read, CheckRequestRef::to_message)
}

fn agrees_as_expand(bytes: &[u8]) -> bool {
    agrees(bytes, ExpandRequestRef::read, ExpandRequestRef::to_message)
}

fn agrees_as_batch(bytes: &[u8]) -> bool {
    let message = |checks: &Vec<(CheckRequestRef<'_>, usize)>| {
        let checks = checks.iter().map(|(check, bytes)| {
            let check = check.to_message();
            assert_eq!(check.encoded_len(), *bytes);
            check
        });
        v1::BatchCheckAuthorizeScopesRequest { checks: checks.collect() }
    };
    agrees(bytes, |bytes| read_batch(bytes, 100), message)
}

fn agrees_as_token(bytes: &[u8]) -> bool {
    agrees(bytes, TokenRequestRef::read, TokenRequestRef::to_message)
}

fn agrees_as_token_batch(bytes: &[u8]) -> bool {
    let message = |checks: &Vec<(TokenRequestRef<'_>, usize)>| {
        let checks = checks.iter().map(|(check, bytes)| {
            let check = check.to_message();
            assert_eq!(check.encoded_len(), *bytes);
            check
        });
        v1::BatchCheckTokenScopesRequest { checks: checks.collect() }
    };
    agrees(bytes, |bytes| read_batch(bytes, 100), message)
}

/// The name of a message, and whether bytes are read as it here, as `prost` reads them.
type MessageKind = (&'static str, fn(&[u8]) -> bool);

/// Every kind of message that is read here.
const KINDS: [MessageKind; 5] = [
    ("CheckAuthorizeScopesRequest", agrees_as_check),
    ("ExpandRegistrationScopesRequest", agrees_as_expand),
    ("BatchCheckAuthorizeScopesRequest", agrees_as_batch),
    ("CheckTokenScopesRequest", agrees_as_token),
    ("BatchCheckTokenScopesRequest", agrees_as_token_batch),
];

/// Whether a number that `prost` encodes is to be read here.
fn is_plain_number(number: i32) -> bool {
    (0..128).contains(&number)
}

/// The same for a message with this client.
fn is_plain(client: Option<&v1::Client>) -> bool {
    client.is_none_or(|client| is_plain_number(client.source))
}

fn is_plain_token(token: &v1::CheckTokenScopesRequest) -> bool {
    is_plain(token.client.as_ref()) && is_plain_number(token.grant)
}

/// 4,000 messages of each kind, or as many as `TEST_CODEC_CASES` says: as they are, damaged, and as messages of another kind.
#[test]
fn what_is_read_is_what_prost_decodes() {
    let cases = std::env::var(CASES).map_or(FEW, |cases| cases.parse().unwrap());
    // The short run draws the same messages each time; a long one draws others each time.
    let seed = if cases == FEW { 8707 } else { uuid::Uuid::new_v4().as_u64_pair().0 };
    println!("seed {seed}");
    let mut draw = Draw(seed);
    let (mut read, mut refused, mut damaged_and_read) = (0, 0, 0);
    for _ in 0..cases {
        let (check, expand, batch) = (draw.check(), draw.expand(), draw.batch());
        let (token, token_batch) = (draw.token(), draw.token_batch());
        let encoded = [
            check.encode_to_vec(),
            expand.encode_to_vec(),
            batch.encode_to_vec(),
            token.encode_to_vec(),
            token_batch.encode_to_vec(),
        ];
        let plain = [
            is_plain(check.client.as_ref()),
            is_plain(expand.client.as_ref()),
            batch.checks.iter().all(|check| is_plain(check.client.as_ref())),
            is_plain_token(&token),
            token_batch.checks.iter().all(is_plain_token),
        ];
        for ((bytes, is_plain), (_, agrees)) in encoded.iter().zip(plain).zip(KINDS) {
            assert_eq!(agrees(bytes), is_plain, "{bytes:02x?}");
        }
        assert_eq!(CheckRequestRef::of(&check).to_message(), check);
        assert_eq!(ExpandRequestRef::of(&expand).to_message(), expand);
        assert_eq!(TokenRequestRef::of(&token).to_message(), token);
        for at in 0..KINDS.len() {
            let mut bytes = encoded[at].clone();
            for _ in 0..=draw.below(3) {
                let other = draw.below(KINDS.len());
                draw.damage(&mut bytes, &encoded[other]);
            }
            for (_, agrees) in KINDS {
                *if agrees(&bytes) { &mut damaged_and_read } else { &mut refused } += 1;
            }
        }
        read += KINDS.len();
    }
    // Damage that leaves a plain message behind is compared as well.
    assert!(damaged_and_read > cases / 10 && refused > cases, "{read} {damaged_and_read} {refused}");
}

#[test]
fn a_batch_of_more_checks_than_are_taken_is_not_read() {
    let checks = |count| v1::BatchCheckAuthorizeScopesRequest { checks: vec![Default::default(); count] };
    let read = |bytes: &[u8]| read_batch::<CheckRequestRef<'_>>(bytes, 3).map(|checks| checks.len());
    assert_eq!(read(&checks(3).encode_to_vec()), Some(3));
    assert_eq!(read(&checks(4).encode_to_vec()), None);
    assert_eq!(read(&[]), Some(0));
}

/// A text of more than 127 bytes has a length of two bytes, which are no UTF-8: the text is, and is checked alone.
#[test]
fn text_is_checked_where_the_message_as_a_whole_is_not_utf_8() {
    let long = v1::CheckAuthorizeScopesRequest { scope: Some("é".repeat(64)), ..Default::default() };
    let mut bytes = long.encode_to_vec();
    assert!(str::from_utf8(&bytes).is_err() && agrees_as_check(&bytes));
    *bytes.last_mut().unwrap() = b'x';
    assert!(!agrees_as_check(&bytes));
    // Cut in the middle of a character, the whole is UTF-8 and the texts are not.
    let bytes = b"\x0a\x01\xc3\x0a\xa9";
    assert!(!agrees_as_check(bytes));
    let bytes = [&[0x0A, 1, 0xC2, 0x8A][..], &[1, b'x']].concat();
    assert!(!agrees_as_check(&bytes));
}

/// A message with one field set, to something else than its default.
fn with_field(message: &MessageDescriptor, field: &FieldDescriptor) -> DynamicMessage {
    let mut made = DynamicMessage::new(message.clone());
    let value = match field.kind() {
        Kind::String => Value::String("text".to_owned()),
        Kind::Enum(kind) => Value::EnumNumber(kind.values().last().unwrap().number()),
        Kind::Message(kind) => Value::Message(DynamicMessage::new(kind)),
        other => panic!("a field of another kind, {other:?}: it needs a row here"),
    };
    let value = if field.is_list() { Value::List(vec![value.clone(), value]) } else { value };
    made.set_field(field, value);
    made
}

/// A field that is added to a message and forgotten here would be left to `prost`, without any other test failing.
#[test]
fn every_field_of_the_descriptors_is_read() {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap();
    let message = |name: &str| pool.get_message_by_name(&format!("scopeward.v1.{name}")).unwrap();
    let client = message("Client");
    let mut seen = 0;
    for (name, agrees) in KINDS {
        let message = message(name);
        for field in message.fields() {
            assert!(agrees(&with_field(&message, &field).encode_to_vec()), "{}", field.full_name());
            seen += 1;
        }
        let Some(field) = message.get_field_by_name("client") else { continue };
        for inner in client.fields() {
            let mut made = DynamicMessage::new(message.clone());
            made.set_field(&field, Value::Message(with_field(&client, &inner)));
            assert!(agrees(&made.encode_to_vec()), "{}", inner.full_name());
            seen += 1;
        }
    }
    assert_eq!(seen, 5 + 5 + 1 + 7 + 1 + 3 * 8);
}
