//! The ids of decisions and of audit events: UUIDs of version 7 (RFC 9562 section 5.7).

use std::cell::OnceCell;
use std::fmt;

use uuid::Uuid;
use uuid::fmt::Hyphenated;

/// An id, and its text: 36 characters in lower case.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct WireId {
    uuid: Uuid,
    text: [u8; Hyphenated::LENGTH],
}

impl From<Uuid> for WireId {
    fn from(uuid: Uuid) -> Self {
        let mut text = [0; Hyphenated::LENGTH];
        uuid.hyphenated().encode_lower(&mut text);
        Self { uuid, text }
    }
}

impl WireId {
    /// A new id.
    #[must_use]
    pub fn now() -> Self {
        Uuid::now_v7().into()
    }

    /// The id of what follows in the same call: the same time, and one more in the bits that are random, which RFC 9562
    /// section 6.2 calls a monotonic random counter.
    #[must_use]
    pub fn following(&self) -> Self {
        let number = self.uuid.as_u128();
        let random = number.wrapping_add(1) & RANDOM_BITS;
        let uuid = Uuid::from_u128(number & !RANDOM_BITS | random);
        // Only the last two digits differ, 255 times of 256.
        let [.., last] = *uuid.as_bytes();
        if last == 0 {
            return uuid.into();
        }
        let mut text = self.text;
        let [.., high, low] = &mut text;
        (*high, *low) = (digit(last >> 4), digit(last & 0xF));
        Self { uuid, text }
    }

    /// The id of the event that records what has this one: the same time, and the highest of the bits that are random turned. No id
    /// that follows this one in a call is the same.
    #[must_use]
    pub fn of_event(&self) -> Self {
        let uuid = Uuid::from_u128(self.uuid.as_u128() ^ EVENT_BIT);
        // Its only digit that differs is the first of the fourth group.
        let mut text = self.text;
        if let Some(first) = text.get_mut(FOURTH_GROUP_AT) {
            *first = digit((uuid.as_u128() >> 60) as u8 & 0xF);
        }
        Self { uuid, text }
    }

    /// The id itself.
    #[must_use]
    pub const fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// The characters of its text.
    #[must_use]
    pub const fn text(&self) -> &[u8; Hyphenated::LENGTH] {
        &self.text
    }
}

impl fmt::Debug for WireId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uuid.fmt(formatter)
    }
}

impl fmt::Display for WireId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uuid.fmt(formatter)
    }
}

/// The id of a decision. It is made when somebody wants to know it first: most decisions of a gateway are told to nobody.
/// Not `Clone`: two of which none was wanted yet would become two ids.
#[derive(Debug, Default)]
pub struct DecisionId(OnceCell<WireId>);

impl DecisionId {
    /// The id, the same each time.
    #[must_use]
    pub fn get(&self) -> &WireId {
        self.0.get_or_init(WireId::now)
    }
}

impl From<WireId> for DecisionId {
    fn from(id: WireId) -> Self {
        Self(id.into())
    }
}

/// The last of the random bits of a UUID of version 7, behind its variant.
const RANDOM_BITS: u128 = (1 << 62) - 1;

/// The highest of them.
const EVENT_BIT: u128 = 1 << 61;
/// Where the group that begins with the variant is in the text.
const FOURTH_GROUP_AT: usize = 19;

const fn digit(value: u8) -> u8 {
    match value {
        0..=9 => b'0' + value,
        _ => b'a' + value - 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_follows_is_of_version_7_and_one_more() {
        for text in [
            "019ac0de-0000-7000-8000-000000000000",
            "019ac0de-0000-7fff-8000-0000000000fe",
            "019ac0de-0000-7fff-9fff-ffffffffffff",
            "019ac0de-0000-7fff-bfff-ffffffffffff",
        ] {
            let first = WireId::from(text.parse::<Uuid>().unwrap());
            let mut id = first;
            for more in 1..600_u128 {
                id = id.following();
                let uuid = id.uuid();
                assert_eq!(id, WireId::from(uuid), "its text is that of the id");
                assert_eq!((uuid.get_version_num(), uuid.get_variant()), (7, uuid::Variant::RFC4122));
                assert_eq!(uuid.as_u128() >> 64, first.uuid().as_u128() >> 64);
                let random = |id: Uuid| id.as_u128() & RANDOM_BITS;
                assert_eq!(random(uuid), (random(first.uuid()) + more) & RANDOM_BITS);
            }
        }
        let new = WireId::now();
        assert_eq!(new.to_string().as_bytes(), new.text());
    }

    #[test]
    fn the_id_of_an_event_is_of_version_7_and_of_the_same_time_and_no_other() {
        for text in ["019ac0de-0000-7000-8000-000000000000", "019ac0de-0000-7fff-bfff-ffffffffffff"] {
            let id = WireId::from(text.parse::<Uuid>().unwrap());
            let event = id.of_event();
            assert_eq!(event, WireId::from(event.uuid()), "its text is that of the id");
            assert_eq!(
                (event.uuid().get_version_num(), event.uuid().get_variant()),
                (7, uuid::Variant::RFC4122)
            );
            assert_eq!(event.uuid().as_u128() >> 64, id.uuid().as_u128() >> 64);
            let mut following = id;
            for _ in 0..1000 {
                assert!(following != event);
                following = following.following();
            }
            assert_eq!(event.of_event(), id, "each decision has its own");
        }
    }

    #[test]
    fn the_id_of_a_decision_is_made_once_and_when_it_is_wanted() {
        let (first, second) = (DecisionId::default(), DecisionId::default());
        let wanted = *second.get();
        assert_eq!(*second.get(), wanted);
        assert!(first.get().uuid() > wanted.uuid(), "it was wanted later");
        assert_eq!(*DecisionId::from(wanted).get(), wanted);
    }
}
