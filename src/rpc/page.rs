//! Page tokens: where the next page begins, as text that callers pass back without looking into it.
//!
//! A token holds the last audience that was sent, not a number: it stays good when the policy is reloaded, on another
//! server, and if that very audience is gone. It is no secret; the checksum only tells ours from what was made up or cut off.

use sha2::{Digest, Sha256};

/// The token of the page after `last`, the normalised name of an audience.
pub(super) fn token_after(last: &str) -> String {
    let mut token = String::with_capacity(VERSION.len() + 2 * (CHECKSUM_BYTES + last.len()));
    token.push_str(VERSION);
    for byte in checksum(last.as_bytes()).iter().chain(last.as_bytes()) {
        for nibble in [byte >> 4, byte & 0xf] {
            token.extend(char::from_digit(nibble.into(), 16));
        }
    }
    token
}

/// The name that the token was made from; `None` if it is none of ours.
pub(super) fn last_of(token: &str) -> Option<String> {
    let bytes = from_hex(token.strip_prefix(VERSION)?)?;
    let (sum, last) = bytes.split_at_checked(CHECKSUM_BYTES)?;
    if sum != checksum(last) {
        return None;
    }
    String::from_utf8(last.to_vec()).ok()
}

fn checksum(last: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = Sha256::new_with_prefix("scopeward page token 1\n").chain_update(last).finalize();
    let mut sum = [0; CHECKSUM_BYTES];
    sum.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
    sum
}

/// Lower case only, so that a token has one spelling.
fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect()
}

/// Leaves room for another form of token.
const VERSION: &str = "1";
const CHECKSUM_BYTES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_tells_what_it_was_made_from() {
        for last in ["https://mcp.example.com", "", "a", "urn:ex\u{e4}mple"] {
            assert_eq!(last_of(&token_after(last)).as_deref(), Some(last));
        }
    }

    #[test]
    fn what_was_changed_cut_or_made_up_is_no_token() {
        let token = token_after("https://mcp.example.com");
        for end in 0..token.len() {
            assert_eq!(last_of(&token[..end]), None, "{end}");
        }
        for at in 0..token.len() {
            for other in ["0", "f", "F", "x", "\u{e9}"] {
                let changed = format!("{}{other}{}", &token[..at], &token[at + 1..]);
                if changed != token {
                    assert_eq!(last_of(&changed), None, "{changed}");
                }
            }
        }
        for made_up in ["1", "next", "https://mcp.example.com", "\u{0}", &format!("{token}00")] {
            assert_eq!(last_of(made_up), None, "{made_up}");
        }
    }
}
