//! What every event has, and the cut that keeps the claims of clients small.

use std::time::SystemTime;

use uuid::Uuid;

use crate::proto::v1::{AuditEvent, AuditEventKind, Caller, Client, PolicyVersion};

/// How many bytes of text an event keeps of a client, over all fields of [`Client`] together.
pub const MAX_CLIENT_BYTES: usize = 4096;

/// An event with a new id and no contents but these.
#[must_use]
pub fn new_event(kind: AuditEventKind, time: SystemTime) -> AuditEvent {
    AuditEvent {
        event_id: Uuid::now_v7().to_string(),
        event_time: Some(time.into()),
        kind: kind.into(),
        policy: Some(PolicyVersion::default()),
        caller: Some(Caller::default()),
        ..AuditEvent::default()
    }
}

/// Cuts what a client says about itself to [`MAX_CLIENT_BYTES`]. Returns `true` if anything was cut.
///
/// While the text is too long, the field with most bytes is shortened: a list loses its last entry, a single text
/// its end (never inside a character). Of equally large fields it is the one with the greater number. The same
/// claims are thus always cut in the same way.
pub fn cut_client(client: &mut Client) -> bool {
    let Client {
        client_id,
        source: _,
        client_name,
        software_id,
        software_version,
        redirect_uris,
        grant_types,
        application_type,
    } = client;
    let mut fields = [
        ClaimText::One(client_id),
        ClaimText::One(client_name),
        ClaimText::One(software_id),
        ClaimText::One(software_version),
        ClaimText::Many(redirect_uris),
        ClaimText::Many(grant_types),
        ClaimText::One(application_type),
    ];
    let mut weights = fields.each_ref().map(ClaimText::weight);
    let mut truncated = false;
    loop {
        let total: usize = weights.iter().sum();
        let Some(excess) = total.checked_sub(MAX_CLIENT_BYTES).filter(|excess| *excess > 0) else {
            return truncated;
        };
        truncated = true;
        // `max_by_key` returns the last of several maxima, hence the later field.
        let largest = fields.iter_mut().zip(&mut weights).max_by_key(|(_, weight)| **weight);
        let Some((field, weight)) = largest else {
            return truncated;
        };
        *weight -= field.shorten(excess);
    }
}

/// A field of claims, seen only as text that can be shortened.
enum ClaimText<'a> {
    One(&'a mut String),
    Many(&'a mut Vec<String>),
}

impl ClaimText<'_> {
    /// The bytes that count. An entry of a list counts one more than its text, so that a list of
    /// many empty entries is bounded too.
    fn weight(&self) -> usize {
        match self {
            Self::One(text) => text.len(),
            Self::Many(texts) => texts.iter().map(|text| text.len() + 1).sum(),
        }
    }

    /// Takes one step towards being `excess` bytes shorter and returns the bytes removed.
    fn shorten(&mut self, excess: usize) -> usize {
        match self {
            Self::One(text) => shorten(text, excess),
            Self::Many(texts) => match texts.as_mut_slice() {
                [only] if only.len() > excess => shorten(only, excess),
                _ => texts.pop().map_or(0, |text| text.len() + 1),
            },
        }
    }
}

/// Removes at least `excess` bytes from the end, more where a character would be split, and
/// returns how many.
fn shorten(text: &mut String, excess: usize) -> usize {
    let before = text.len();
    let mut end = before.saturating_sub(excess);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    before - end
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of a client, and whether anything was cut.
    fn cut(mut client: Client) -> (Client, bool) {
        let truncated = cut_client(&mut client);
        (client, truncated)
    }

    fn weight(client: &Client) -> usize {
        client.client_id.len()
            + client.client_name.len()
            + client.software_id.len()
            + client.software_version.len()
            + client.redirect_uris.iter().map(String::len).sum::<usize>()
            + client.grant_types.iter().map(String::len).sum::<usize>()
            + client.application_type.len()
    }

    #[test]
    fn small_claims_are_kept_whole() {
        let client = Client { client_id: "c".repeat(MAX_CLIENT_BYTES), ..Client::default() };
        assert_eq!(cut(client.clone()), (client, false));
    }

    #[test]
    fn one_byte_too_many_is_cut_and_marked() {
        let (client, truncated) =
            cut(Client { client_id: "c".repeat(MAX_CLIENT_BYTES + 1), ..Client::default() });
        assert!(truncated);
        assert_eq!(client.client_id.len(), MAX_CLIENT_BYTES);
    }

    #[test]
    fn largest_field_is_cut_and_the_client_id_stays() {
        let (client, _) = cut(Client {
            client_id: "the-client".into(),
            client_name: "n".repeat(10_000),
            redirect_uris: vec!["https://a.example/".into(), "https://b.example/".into()],
            ..Client::default()
        });
        assert_eq!(client.client_id, "the-client");
        assert_eq!(client.redirect_uris.len(), 2);
        // Ten bytes of client id, 18 + 1 for each redirect URI.
        assert_eq!(client.client_name.len(), MAX_CLIENT_BYTES - 10 - 38);
    }

    #[test]
    fn lists_lose_their_last_entries_first() {
        let (client, _) = cut(Client {
            redirect_uris: (0..100).map(|n| format!("{n:0>99}")).collect(),
            ..Client::default()
        });
        let kept = &client.redirect_uris;
        assert_eq!(kept.len(), 40);
        assert_eq!(kept.last().unwrap(), &format!("{:0>99}", 39));
    }

    #[test]
    fn a_single_long_entry_is_cut_at_its_end() {
        let (client, _) = cut(Client { redirect_uris: vec!["u".repeat(9000)], ..Client::default() });
        let kept = &client.redirect_uris;
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].len(), MAX_CLIENT_BYTES - 1);
    }

    #[test]
    fn many_empty_entries_are_bounded_too() {
        let (client, _) = cut(Client { grant_types: vec![String::new(); 60_000], ..Client::default() });
        assert_eq!(client.grant_types.len(), MAX_CLIENT_BYTES);
    }

    #[test]
    fn cutting_never_splits_a_character_and_repeats_itself() {
        for width in 4090..4110 {
            let client = Client {
                client_name: "ü€😀".repeat(2000),
                software_id: "x".repeat(width),
                ..Client::default()
            };
            let once = cut(client.clone());
            assert!(weight(&once.0) <= MAX_CLIENT_BYTES);
            assert_eq!(once, cut(client));
        }
    }
}
