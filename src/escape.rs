//! Text that somebody else chose, made safe to show: one function for each place where it is shown.
//!
//! XML and the annotations of a forge escape what is special to them, next to where they are written.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::Serialize;

/// Marks a cut.
const MARK: &str = "...";
/// The most characters that [`shown`] takes.
const SHOWN_CHARACTERS: usize = 200;
/// Stands for a character that does not print and has no picture.
const UNKNOWN: char = '\u{fffd}';
/// The most bytes that [`quotable`] returns.
const QUOTABLE_BYTES: usize = 128;

/// For one line of a terminal or a log: control characters, line and bidi marks and other invisible
/// characters become `\u{..}`, and what is over 200 characters is cut, marked with `...`.
#[must_use]
pub fn shown(text: &str) -> String {
    if text.len() <= SHOWN_CHARACTERS && text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len().min(256));
    for (count, character) in text.chars().enumerate() {
        if count == SHOWN_CHARACTERS {
            out.push_str(MARK);
            break;
        }
        // `escape_debug` knows which characters do not print; quotes and backslashes stay as they are.
        if matches!(character, '"' | '\'' | '\\') {
            out.push(character);
        } else {
            out.extend(character.escape_debug());
        }
    }
    out
}

/// For a table or an excerpt on a terminal, whose columns must stay: what does not print becomes a visible
/// stand-in, one character for one character, and nothing is cut. Line breaks count as not printing.
#[must_use]
pub fn clean(text: &str) -> Cow<'_, str> {
    if text.chars().all(|character| stand_in(character) == character) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(text.chars().map(stand_in).collect())
    }
}

/// The character itself if it prints, otherwise one that stands for it.
#[must_use]
pub fn stand_in(character: char) -> char {
    match character {
        '\u{0}'..='\u{1f}' => char::from_u32(0x2400 + u32::from(character)).unwrap_or(UNKNOWN),
        '\u{7f}' => '\u{2421}',
        '"' | '\'' | '\\' => character,
        // The standard library knows which characters do not print: bidi marks, C1 controls and the like.
        _ if character.escape_debug().len() > 1 => UNKNOWN,
        _ => character,
    }
}

/// For a gRPC status, between backticks: printable ASCII stays, all else becomes `\u{…}`, and what is
/// over 128 bytes is cut, marked with `...`.
///
/// Backtick and backslash are escaped too, so that a value cannot end its own quotation.
#[must_use]
pub fn quotable(text: &str) -> String {
    limited(text.chars(), QUOTABLE_BYTES, |out, character| match character {
        '`' | '\\' => out.extend(['\\', character]),
        ' '..='~' => out.push(character),
        // Writing to a String does not fail.
        _ => _ = write!(out, "\\u{{{:x}}}", u32::from(character)),
    })
}

/// For an `error_description` (RFC 6749 section 5.2): printable ASCII stays, except `"`, `\` and `%`;
/// every other byte becomes `%XX`. At most `limit` bytes come out, `...` marks a cut.
#[must_use]
pub fn printable(text: &str, limit: usize) -> String {
    limited(text.bytes(), limit, |out, byte| match byte {
        0x20..=0x7E if !matches!(byte, b'"' | b'\\' | b'%') => out.push(char::from(byte)),
        _ => _ = write!(out, "%{byte:02X}"),
    })
}

/// For a program that reads JSON, and a terminal that it may be shown on: a value on one line, in which what does not
/// print (C1 controls, bidi marks, line separators and other invisible characters) is `\uXXXX`.
///
/// # Errors
/// If the value has no JSON form.
pub fn json<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<String> {
    serde_json::to_string(value).map(visible_json)
}

/// As [`json`], on many lines.
///
/// # Errors
/// If the value has no JSON form.
pub fn json_pretty<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<String> {
    serde_json::to_string_pretty(value).map(visible_json)
}

/// Outside of its strings JSON has nothing but ASCII, and in them controls below U+0020 are escaped already.
fn visible_json(text: String) -> String {
    let is_raw = |character: char| {
        character == '\u{7f}' || (!character.is_ascii() && stand_in(character) != character)
    };
    if !text.contains(is_raw) {
        return text;
    }
    let mut out = String::with_capacity(text.len() + 64);
    for character in text.chars() {
        if is_raw(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a String does not fail.
                _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(character);
        }
    }
    out
}

/// Appends piece by piece, and cuts between two pieces if more than `limit` bytes come out.
fn limited<T>(pieces: impl Iterator<Item = T>, limit: usize, append: impl Fn(&mut String, T)) -> String {
    let mut out = String::new();
    // Where to cut to have room for the mark.
    let mut fits = 0;
    for piece in pieces {
        append(&mut out, piece);
        if out.len() + MARK.len() <= limit {
            fits = out.len();
        }
        if out.len() > limit {
            out.truncate(fits);
            out.push_str(MARK);
            break;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_print_has_a_visible_stand_in() {
        assert_eq!(clean("größe \"x\" \\ 'y'"), "größe \"x\" \\ 'y'");
        assert_eq!(clean("a\u{1b}[31mb\0\t\u{7f}"), "a␛[31mb␀␉␡");
        assert_eq!(clean("\u{9b}\u{202e}\u{2028}\u{200b}\n"), "\u{fffd}\u{fffd}\u{fffd}\u{fffd}␊");
    }

    #[test]
    fn json_has_nothing_invisible_and_the_same_meaning() {
        let text = "größe \u{9b}31m \u{202e}x\u{2066} \u{2028}\u{2029} \u{200b}\u{7f}\u{e0001} 😀\n";
        let value = serde_json::json!({ "key\u{9b}": [text] });
        for made in [json(&value).unwrap(), json_pretty(&value).unwrap()] {
            assert_eq!(serde_json::from_str::<serde_json::Value>(&made).unwrap(), value);
            assert!(made.chars().all(|one| one == '\n' || stand_in(one) == one), "{made}");
            assert!(made.contains(
                "größe \\u009b31m \\u202ex\\u2066 \\u2028\\u2029 \\u200b\\u007f\\udb40\\udc01 😀\\n"
            ));
        }
    }

    #[test]
    fn a_line_has_nothing_invisible_and_an_end() {
        assert_eq!(shown("a\nb\0\u{202e}\u{1b}[31m"), "a\\nb\\0\\u{202e}\\u{1b}[31m");
        assert_eq!(shown("größe \"x\""), "größe \"x\"");
        assert_eq!(shown(&"x".repeat(1 << 20)).len(), 203);
    }

    #[test]
    fn a_quotation_cannot_be_ended_from_inside() {
        assert_eq!(quotable("a`b\u{202e}\n\\"), r"a\`b\u{202e}\u{a}\\");
        assert_eq!(quotable(&"a".repeat(128)), "a".repeat(128));
        assert_eq!(quotable(&"a".repeat(129)), format!("{}...", "a".repeat(125)));
    }

    #[test]
    fn a_description_has_no_control_quotes_or_unicode() {
        assert_eq!(printable("a b~", 100), "a b~");
        assert_eq!(printable("a\0\t\"\\%", 100), "a%00%09%22%5C%25");
        assert_eq!(printable("\u{202e}x", 100), "%E2%80%AEx");
        assert_eq!(printable(&"x".repeat(1 << 20), 10), "xxxxxxx...");
        assert_eq!(printable("xxxxxxxxxx", 10), "xxxxxxxxxx");
    }

    #[test]
    fn cuts_fall_between_escapes() {
        for limit in 3..40 {
            let text = printable(&"\u{a0}x".repeat(100), limit);
            assert!(text.len() <= limit, "{limit}: {text}");
            let kept = text.strip_suffix("...").unwrap();
            assert!("%C2%A0x".repeat(100).starts_with(kept) && !kept.ends_with('%'), "{limit}: {text}");
            assert_eq!(kept.replace("%C2", "").replace("%A0", "").replace('x', ""), "", "{limit}: {text}");
        }
    }
}
