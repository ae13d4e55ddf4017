//! Page tokens: where the next page begins, as text that callers pass back without looking into it.
//!
//! A token holds the last audience that was sent, not a number: it stays good when the policy is reloaded, on another
//! server, and if that very audience is gone. It is no secret; the checksum only tells ours from what was made up or cut off.

use sha2::{Digest, Sha256};

use crate::hex;

/// The token of the page after `last`, the normalised name of an audience.
pub(super) fn token_after(last: &str) -> String {
    let last = last.as_bytes();
    format!("{VERSION}{}{}", hex::encode(&checksum(last)), hex::encode(last))
}

/// The name that the token was made from; `None` if it is none of ours.
pub(super) fn last_of(token: &str) -> Option<String> {
    let bytes = hex::decode(token.strip_prefix(VERSION)?)?;
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
