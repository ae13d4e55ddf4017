//! The place in a log up to which a reader has handed everything on, as it is kept between two runs.
//!
//! One form for all who keep one: `audit tail`, the audit lines, the examples.

use serde::{Deserialize, Deserializer, Serialize};

/// A place in a log. Everything up to it was handed on.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// The log.
    #[serde(alias = "logId")]
    pub log_id: String,
    /// The last sequence; 0 before the first.
    #[serde(alias = "after_sequence", deserialize_with = "number")]
    pub sequence: u64,
}

impl Cursor {
    /// Reads a cursor, in the form of now or in one of earlier versions.
    ///
    /// # Errors
    ///
    /// If it is something else.
    pub fn read(text: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(text)
    }
}

/// Audit lines and some libraries kept the number as text, as the proto3 JSON mapping has it.
fn number<'d, D: Deserializer<'d>>(from: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum NumberOrText {
        Number(u64),
        Text(String),
    }
    match NumberOrText::deserialize(from)? {
        NumberOrText::Number(number) => Ok(number),
        NumberOrText::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_that_was_ever_written_is_read() {
        let cursor = Cursor { log_id: "a".to_owned(), sequence: 7 };
        for text in [
            r#"{"log_id":"a","sequence":7}"#,
            r#"{"log_id": "a", "after_sequence": 7}"#,
            r#"{"log_id":"a","after_sequence":"7"}"#,
            r#"{"logId":"a","sequence":"7"}"#,
        ] {
            assert_eq!(Cursor::read(text.as_bytes()).unwrap(), cursor, "{text}");
        }
        assert_eq!(serde_json::to_string(&cursor).unwrap(), r#"{"log_id":"a","sequence":7}"#);
        for text in ["", "{}", r#"{"log_id":"a"}"#, r#"{"log_id":"a","sequence":-1}"#, "[1]", "\u{0}"] {
            assert!(Cursor::read(text.as_bytes()).is_err(), "{text}");
        }
    }
}
