//! The target of a request (RFC 9112 section 3.2): taken only where every server in common use reads the same path in it.
//!
//! Servers differ in whether they decode `%2F`, decode twice, join `//`, resolve `..` before or after decoding, cut off `;x`,
//! and fold case. What depends on one of the first four is refused wherever it is; the other readings are one more text,
//! [`CanonicalTarget::folded`], which [`super::endpoint`] compares too.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::fold::fold;

/// Longest target in bytes.
pub const MAX_TARGET_BYTES: usize = 32 * 1024;

/// Why a target is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PathRefusal {
    /// Absolute form, authority form, `*`, or nothing.
    #[error("the request target does not begin with `/`")]
    Form,
    /// More than [`MAX_TARGET_BYTES`].
    #[error("the request target has more than {MAX_TARGET_BYTES} bytes")]
    TooLong,
    /// A byte that no URI has: a blank, a control, `#`, a quote, a backslash, a bracket, one over 0x7E.
    #[error("the path has a byte that must be percent-encoded")]
    Byte,
    /// `%` without two hexadecimal digits, or an encoding of what is not UTF-8.
    #[error("the percent-encoding of the path is malformed")]
    Encoding,
    /// An encoded `/`, `\`, `.` segment, control character, or `%` of another encoding.
    #[error("the path has a percent-encoding that servers read differently")]
    Ambiguous,
    /// `//`.
    #[error("the path has an empty segment")]
    EmptySegment,
    /// `.` or `..`.
    #[error("the path has a dot segment")]
    DotSegment,
    /// Another spelling of the path of an endpoint.
    #[error("the path of the endpoint is not spelled as it is published")]
    Spelling,
    /// A path behind which the same can be done without a question, or another realm.
    #[error("the path is not available through this gateway")]
    SiblingDoor,
}

/// A target that has one reading.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CanonicalTarget<'t> {
    path: &'t str,
    query: Option<&'t str>,
    folded: Cow<'t, str>,
}

impl<'t> CanonicalTarget<'t> {
    /// Reads a target as it stands in the request line.
    ///
    /// # Errors
    /// The first rule of [`PathRefusal`] that is broken.
    pub fn parse(target: &'t [u8]) -> Result<Self, PathRefusal> {
        if target.len() > MAX_TARGET_BYTES {
            return Err(PathRefusal::TooLong);
        }
        let target = std::str::from_utf8(target).map_err(|_| PathRefusal::Byte)?;
        if !target.starts_with('/') {
            return Err(PathRefusal::Form);
        }
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        // RFC 3986 section 2: these are delimiters of something else, or in no URI.
        let is_allowed = |byte: u8| {
            byte.is_ascii_graphic()
                && !matches!(byte, b'\\' | b'#' | b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}')
        };
        // A query may have more, but nothing that ends the line or the query.
        // Without an early end, so that it is done for many bytes at once.
        let fits = |fits: bool, byte: u8| fits & byte.is_ascii_graphic() & (byte != b'#');
        let is_query_fit = query.unwrap_or_default().bytes().fold(true, fits);
        if is_query_fit && is_plain(path) {
            return Ok(Self { path, query, folded: Cow::Borrowed(path) });
        }
        if !path.bytes().all(|byte| is_allowed(byte) && !matches!(byte, b'[' | b']')) {
            return Err(PathRefusal::Byte);
        }
        if !is_query_fit {
            return Err(PathRefusal::Byte);
        }
        if !has_whole_encodings(path.as_bytes()) {
            return Err(PathRefusal::Encoding);
        }
        let decoded = percent_decode_str(path).decode_utf8().map_err(|_| PathRefusal::Encoding)?;
        let slashes = |text: &str| text.bytes().filter(|byte| matches!(byte, b'/' | b'\\')).count();
        let slashes_sent = slashes(path);
        if slashes(&decoded) != slashes_sent
            || decoded.chars().any(char::is_control)
            || decoded.as_bytes().windows(3).any(is_encoding)
        {
            return Err(PathRefusal::Ambiguous);
        }
        let mut folded = String::with_capacity(decoded.len());
        for (at, segment) in decoded.split('/').enumerate().skip(1) {
            let is_last = at == slashes_sent;
            // A servlet container cuts the parameters of a segment off before it resolves the dots.
            let plain = segment.split(';').next().unwrap_or_default();
            if plain.is_empty() && !(is_last && segment.is_empty()) {
                return Err(PathRefusal::EmptySegment);
            }
            let spelled = fold(plain);
            if matches!(spelled.trim(), "." | "..") {
                return Err(PathRefusal::DotSegment);
            }
            folded.push('/');
            folded.push_str(spelled.trim());
        }
        // A full-width slash or backslash becomes one where names are folded.
        if slashes(&folded) != slashes_sent {
            return Err(PathRefusal::Ambiguous);
        }
        Ok(Self { path, query, folded: Cow::Owned(folded) })
    }

    /// The path, byte for byte; begins with `/`.
    #[must_use]
    pub const fn path(&self) -> &'t str {
        self.path
    }

    /// What follows the first `?`, byte for byte; `None` without one.
    #[must_use]
    pub const fn query(&self) -> Option<&'t str> {
        self.query
    }

    /// The path decoded, without the parameters of segments, with case and look-alikes folded: no server that takes this path
    /// for an endpoint reads another text than this or [`CanonicalTarget::path`].
    #[must_use]
    pub fn folded(&self) -> &str {
        &self.folded
    }
}

/// Returns `true` for a path in which nothing has to be decoded, resolved or folded: most are.
fn is_plain(path: &str) -> bool {
    let mut before = b'/';
    let (first, rest) = path.split_at_checked(1).unwrap_or_default();
    first == "/"
        && rest.bytes().all(|byte| {
            let after_slash = before == b'/';
            before = byte;
            match byte {
                b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => true,
                // No empty segment and no dot segment.
                b'/' | b'.' => !after_slash,
                _ => false,
            }
        })
}

/// Returns `true` if two hexadecimal digits follow each `%`.
pub(super) fn has_whole_encodings(text: &[u8]) -> bool {
    let mut parts = text.split(|byte| *byte == b'%');
    _ = parts.next();
    parts.all(|after| after.first_chunk::<2>().is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)))
}

fn is_encoding(three: &[u8]) -> bool {
    matches!(three, [b'%', high, low] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What is not looked at closely is what a close look would leave as it is.
        #[test]
        fn a_plain_path_is_its_only_reading(path in "/[a-zA-Z0-9_~./;%-]{0,12}") {
            if is_plain(&path) {
                // `;x` makes it one that is looked at.
                let parameter = format!("{path};x");
                let read = CanonicalTarget::parse(parameter.as_bytes());
                prop_assert_eq!(read.as_ref().map(CanonicalTarget::folded), match path.ends_with('/') {
                    true => Err(&PathRefusal::EmptySegment),
                    false => Ok(path.as_str()),
                });
            }
        }
    }

    #[test]
    fn a_target_has_one_reading_or_is_refused() {
        #[track_caller]
        fn check(target: &str, expected: Result<(&str, Option<&str>, &str), PathRefusal>) {
            let read = CanonicalTarget::parse(target.as_bytes());
            let read =
                read.as_ref().map(|read| (read.path(), read.query(), read.folded())).map_err(|why| *why);
            assert_eq!(read, expected, "{target:?}");
        }
        use PathRefusal::{Ambiguous, Byte, DotSegment, EmptySegment, Encoding, Form, TooLong};
        check("/", Ok(("/", None, "/")));
        check("/a/b?c=d?e", Ok(("/a/b", Some("c=d?e"), "/a/b")));
        check("/a/?", Ok(("/a/", Some(""), "/a/")));
        check("/%72egister", Ok(("/%72egister", None, "/register")));
        check("/Register;v=1", Ok(("/Register;v=1", None, "/register")));
        check("/%EF%BD%92egister", Ok(("/%EF%BD%92egister", None, "/register")));
        check("/a%20b", Ok(("/a%20b", None, "/a b")));
        check("/register%20", Ok(("/register%20", None, "/register")));
        for target in ["", "*", "a", "http://h/a", "h:80", "?a"] {
            check(target, Err(Form));
        }
        for target in
            ["/a b", "/a\\b", "/a#b", "/a\u{e9}", "/a\0", "/a\"", "/a?b c", "/a?b#c", "/a?b\u{e9}", "/[a]"]
        {
            check(target, Err(Byte));
        }
        for target in ["/a%", "/a%2", "/%zz", "/%c0%af", "/%ff"] {
            check(target, Err(Encoding));
        }
        for target in
            ["/a%2fb", "/a%2Fb", "/a%5cb", "/a%00", "/a%0d", "/a%7f", "/a%2541", "/%25%34%31", "/a%EF%BC%8Fb"]
        {
            check(target, Err(Ambiguous));
        }
        for target in ["//", "//a", "/a//b", "/a//", "/;x/a", "/a/;", "/a/;x"] {
            check(target, Err(EmptySegment));
        }
        for target in
            ["/.", "/..", "/./a", "/a/../b", "/%2e/a", "/a/%2E%2e", "/a/.%2e/b", "/a/..;x/b", "/%EF%BC%8E./a"]
        {
            check(target, Err(DotSegment));
        }
        check(&format!("/{}", "a".repeat(MAX_TARGET_BYTES)), Err(TooLong));
    }
}
