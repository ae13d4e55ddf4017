//! Scope tokens, the `scope` parameter, and lists of scopes: the words everything else is said in.
//!
//! Rules: RFC 6749 section 3.3 (a scope is tokens separated by single spaces, case-sensitive, in no
//! particular order) and appendix A.4 (the characters of a token). Knows nothing about policies.

use std::fmt;
use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::short_list::ShortList;

pub mod matching;

/// Longest scope token in bytes. A longer one is malformed.
pub const MAX_TOKEN_BYTES: usize = 512;

/// Says why a text is not a scope token.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TokenError {
    /// There is no character at all; a token has one or more.
    #[error("a scope has at least one character")]
    Empty,
    /// The text is longer than [`MAX_TOKEN_BYTES`].
    #[error("a scope has at most {MAX_TOKEN_BYTES} bytes, this one has {length}")]
    TooLong {
        /// Length in bytes.
        length: usize,
    },
    /// A byte outside `%x21 / %x23-5B / %x5D-7E`.
    #[error("byte 0x{byte:02X} at offset {offset} is not allowed in a scope")]
    Byte {
        /// The first byte that is not allowed.
        byte: u8,
        /// Its 0-based offset in bytes.
        offset: usize,
    },
}

/// Checks one scope token against the grammar of RFC 6749 section 3.3.
///
/// # Errors
/// [`TokenError`] for an empty text, one over [`MAX_TOKEN_BYTES`], or the first byte outside the grammar.
pub fn check_token(token: &str) -> Result<(), TokenError> {
    if token.is_empty() {
        return Err(TokenError::Empty);
    }
    if token.len() > MAX_TOKEN_BYTES {
        return Err(TokenError::TooLong { length: token.len() });
    }
    match token.bytes().position(|byte| !is_token_byte(byte)) {
        None => Ok(()),
        Some(offset) => {
            Err(TokenError::Byte { byte: token.as_bytes().get(offset).copied().unwrap_or_default(), offset })
        }
    }
}

/// Tells whether a byte may stand in a scope token: `%x21 / %x23-5B / %x5D-7E` (RFC 6749 appendix A.4).
#[must_use]
pub const fn is_token_byte(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x5B | 0x5D..=0x7E)
}

/// A token of a `scope` parameter as received, with what one look at its bytes tells.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ScannedToken<'a> {
    /// Its text; not empty.
    pub text: &'a str,
    /// Whether it is a scope token (RFC 6749 section 3.3); [`check_token`] says why not.
    pub is_well_formed: bool,
    /// Whether there is a `*` in it.
    pub has_star: bool,
}

/// Splits a `scope` parameter into its tokens, as received, in order.
///
/// Splits on U+0020 only; leading, trailing and repeated spaces are tolerated, so no empty token
/// comes out. A TAB or U+00A0 never separates: it stays inside its token, which is then malformed.
/// Nothing comes out of `""` or `"  "`, which count as omitted (RFC 6749 section 3.1).
pub fn scan(scope: &str) -> impl Iterator<Item = ScannedToken<'_>> {
    let mut rest = scope;
    std::iter::from_fn(move || {
        let start = rest.bytes().position(|byte| byte != b' ')?;
        let token = rest.get(start..)?;
        let (mut seen, mut end) = (0, 0);
        for byte in token.bytes() {
            let class = CLASSES.get(usize::from(byte)).copied().unwrap_or(MALFORMED);
            if class == SPACE {
                break;
            }
            seen |= class;
            end += 1;
        }
        let (text, after) = token.split_at_checked(end)?;
        rest = after;
        let is_well_formed = seen & MALFORMED == 0 && text.len() <= MAX_TOKEN_BYTES;
        Some(ScannedToken { text, is_well_formed, has_star: seen & STAR != 0 })
    })
}

/// What each byte means in a `scope` parameter: 0 for a plain one of a token.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < classes.len() {
        #[expect(clippy::indexing_slicing, reason = "a constant: the compiler checks it")]
        let class = &mut classes[byte];
        *class = match byte as u8 {
            b' ' => SPACE,
            b'*' => STAR,
            byte if is_token_byte(byte) => 0,
            _ => MALFORMED,
        };
        byte += 1;
    }
    classes
};
const SPACE: u8 = 1;
const STAR: u8 = 2;
const MALFORMED: u8 = 4;

/// The tokens of a `scope` parameter as [`scan`] finds them.
pub fn tokens(scope: &str) -> impl Iterator<Item = &str> {
    scan(scope).map(|token| token.text)
}

/// Splits a `scope` parameter like [`tokens`] and collapses duplicates to the first.
#[must_use]
pub fn distinct_tokens(scope: &str) -> TokenList<'_> {
    let mut seen = Distinct::default();
    for token in tokens(scope) {
        seen.push(token);
    }
    seen.into_list()
}

/// Scopes of a request or of an answer: most have a few.
pub type TokenList<'a> = ShortList<&'a str, 6>;

/// Scopes in the order in which they were first pushed, each once.
///
/// Compares linearly while it is small and through a hash table beyond that, so that a hostile
/// request of thousands of tokens costs linear time.
#[derive(Clone, Debug, Default)]
pub struct Distinct<'a> {
    list: TokenList<'a>,
    index: HashTable<u32>,
}

/// Up to this many entries a linear search beats a hash table.
const LINEAR: usize = 16;

impl<'a> Distinct<'a> {
    /// Appends a scope unless it is there already; returns `true` if it was appended.
    pub fn push(&mut self, scope: &'a str) -> bool {
        self.insert(scope).1
    }

    /// Appends a scope unless it is there already; returns its 0-based position, and `true` if it was appended.
    pub fn insert(&mut self, scope: &'a str) -> (usize, bool) {
        let at = self.list.len();
        if at < LINEAR {
            if let Some(known) = self.list.iter().position(|known| *known == scope) {
                return (known, false);
            }
            self.push_new(scope);
            return (at, true);
        }
        let list = &mut self.list;
        match self.index.entry(
            hash(scope),
            |at| list.get(*at as usize).is_some_and(|known| *known == scope),
            |at| rehash(list, *at),
        ) {
            Entry::Occupied(known) => (*known.get() as usize, false),
            Entry::Vacant(vacant) => {
                vacant.insert(index_of(at));
                list.push(scope);
                (at, true)
            }
        }
    }

    /// Appends a scope that is not there, as the caller knows.
    pub fn push_new(&mut self, scope: &'a str) {
        let at = self.list.len();
        self.list.push(scope);
        if at + 1 == LINEAR {
            for (at, known) in self.list.iter().enumerate() {
                self.index.insert_unique(hash(known), index_of(at), |at| rehash(&self.list, *at));
            }
        } else if at >= LINEAR {
            self.index.insert_unique(hash(scope), index_of(at), |at| rehash(&self.list, *at));
        }
    }

    /// The 0-based position of a scope, byte for byte; `None` if it is not in the list.
    #[must_use]
    pub fn position(&self, scope: &str) -> Option<usize> {
        if self.list.len() < LINEAR {
            self.list.iter().position(|known| *known == scope)
        } else {
            let same = |at: &u32| self.list.get(*at as usize).is_some_and(|known| *known == scope);
            self.index.find(hash(scope), same).map(|at| *at as usize)
        }
    }

    /// Returns `true` if the scope is in the list, byte for byte.
    #[must_use]
    pub fn contains(&self, scope: &str) -> bool {
        self.position(scope).is_some()
    }

    /// The scopes so far, in order.
    #[must_use]
    pub fn as_slice(&self) -> &[&'a str] {
        &self.list
    }

    /// The scopes, in order.
    #[must_use]
    pub fn into_list(self) -> TokenList<'a> {
        self.list
    }
}

/// A fixed list of scopes of a policy: order kept, no duplicates, may be empty.
///
/// A large policy holds millions of them, so a list is one allocation, which clones share.
#[derive(Clone, Default)]
pub struct ScopeList {
    /// The wire form (RFC 6749 section 3.3: tokens separated by single spaces), and behind it the length of each token
    /// in two bytes of seven bits, the higher first: so all of it is ASCII.
    text: Arc<str>,
    /// Of a list that is too long to be searched entry by entry.
    index: Option<Arc<ScopeIndex>>,
    /// Bytes of the wire form.
    wire: u32,
    /// Bytes of the longest scope, at most [`MAX_TOKEN_BYTES`].
    longest: u16,
    has_patterns: bool,
}

/// Where the scopes of a long list are.
struct ScopeIndex {
    positions: HashTable<u32>,
    /// The end of each scope in the wire form.
    ends: Box<[u32]>,
}

impl ScopeList {
    /// Collects scopes in order and drops duplicates after the first.
    ///
    /// The caller has checked each token with [`check_token`].
    pub fn new<'a>(scopes: impl IntoIterator<Item = &'a str>) -> Self {
        let mut distinct = Distinct::default();
        for scope in scopes {
            distinct.push(scope);
        }
        let list = distinct.into_list();
        let mut text = String::with_capacity(list.iter().map(|scope| scope.len() + 3).sum());
        for scope in &list {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(scope);
        }
        let wire = index_of(text.len());
        let mut longest = 0;
        for scope in &list {
            let length = u16::try_from(scope.len()).unwrap_or(u16::MAX);
            longest = longest.max(length);
            text.extend(length_bytes(length).map(char::from));
        }
        let has_patterns = list.iter().any(|scope| matching::has_star_segment(scope));
        let mut made = Self { text: text.into(), index: None, wire, longest, has_patterns };
        if list.len() > LINEAR {
            let mut positions = HashTable::with_capacity(list.len());
            for at in 0..list.len() {
                let key = |at: &u32| rehash(&list, *at);
                positions.insert_unique(key(&index_of(at)), index_of(at), key);
            }
            let ends = made.spans().map(|(_, end)| index_of(end)).collect();
            made.index = Some(Arc::new(ScopeIndex { positions, ends }));
        }
        made
    }

    /// Start and end of each scope in the wire form.
    fn spans(&self) -> impl ExactSizeIterator<Item = (usize, usize)> {
        let lengths = self.text.as_bytes().get(self.wire as usize..).unwrap_or_default();
        let mut next = 0;
        lengths.as_chunks().0.iter().map(move |length| {
            let start = next;
            let end = start + length_of(*length);
            // One byte for the space between two tokens.
            next = end + 1;
            (start, end)
        })
    }

    /// The scope at a 0-based position, `None` past the end.
    #[must_use]
    pub fn get(&self, at: usize) -> Option<&str> {
        let (start, end) = match &self.index {
            None => self.spans().nth(at)?,
            Some(index) => {
                let before = at.checked_sub(1).and_then(|before| index.ends.get(before));
                (before.map_or(0, |end| *end as usize + 1), *index.ends.get(at)? as usize)
            }
        };
        self.text.get(start..end)
    }

    /// The position of a scope, byte for byte.
    #[must_use]
    pub fn position(&self, scope: &str) -> Option<usize> {
        match &self.index {
            _ if self.is_empty() => None,
            None => {
                let (text, lengths) = self.text.as_bytes().split_at_checked(self.wire as usize)?;
                let mut start = 0;
                lengths.as_chunks().0.iter().position(|length| {
                    let length = length_of(*length);
                    // Most entries differ in length already, so they are not even looked at.
                    let is_equal =
                        length == scope.len() && text.get(start..start + length) == Some(scope.as_bytes());
                    start += length + 1;
                    is_equal
                })
            }
            Some(index) => {
                let same = |at: &u32| self.get(*at as usize) == Some(scope);
                index.positions.find(hash(scope), same).map(|at| *at as usize)
            }
        }
    }

    /// Tells whether the scope is in the list, byte for byte.
    #[must_use]
    pub fn contains(&self, scope: &str) -> bool {
        self.position(scope).is_some()
    }

    /// Bytes of the longest scope; 0 for an empty list.
    #[must_use]
    pub const fn longest(&self) -> usize {
        self.longest as usize
    }

    /// Returns `true` if an entry has a `*` segment, and so acts as a pattern under `wildcard`.
    #[must_use]
    pub const fn has_patterns(&self) -> bool {
        self.has_patterns
    }

    /// The scopes in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.spans().map(|(start, end)| self.text.get(start..end).unwrap_or_default())
    }

    /// The wire form: the scopes separated by single spaces; `""` for an empty list.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.text.get(..self.wire as usize).unwrap_or_default()
    }

    /// How many scopes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans().len()
    }

    /// Tells whether there is no scope at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.wire == 0
    }
}

/// A length below 2^14 as two bytes of seven bits.
const fn length_bytes(length: u16) -> [u8; 2] {
    [(length >> 7) as u8 & 0x7F, (length & 0x7F) as u8]
}

const fn length_of([high, low]: [u8; 2]) -> usize {
    (high as usize) << 7 | low as usize
}

impl fmt::Debug for ScopeList {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq for ScopeList {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for ScopeList {}

/// Joins scopes into the wire form: single spaces between, `""` for none.
#[must_use]
pub fn join(scopes: &[&str]) -> String {
    scopes.join(" ")
}

fn hash(scope: &str) -> u64 {
    use std::hash::BuildHasher;
    use std::sync::OnceLock;
    // One random state for the process: request texts are hashed, so the seed must not be guessable.
    static STATE: OnceLock<hashbrown::DefaultHashBuilder> = OnceLock::new();
    STATE.get_or_init(hashbrown::DefaultHashBuilder::default).hash_one(scope)
}

fn rehash(list: &[&str], at: u32) -> u64 {
    hash(list.get(at as usize).copied().unwrap_or_default())
}

/// Positions are kept in 32 bits; a text of 4 GiB cannot get here (policy files and requests are bounded).
fn index_of(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 6749 appendix A.4, byte by byte: both sides of every range.
    #[test]
    fn every_byte_is_judged_by_the_grammar() {
        for byte in 0u8..=0x7F {
            let allowed = byte == 0x21 || (0x23..=0x5B).contains(&byte) || (0x5D..=0x7E).contains(&byte);
            let token = format!("a{}b", char::from(byte));
            let expected = if allowed { Ok(()) } else { Err(TokenError::Byte { byte, offset: 1 }) };
            assert_eq!(check_token(&token), expected, "byte 0x{byte:02X}");
        }
        // 0x80 to 0xFF come only inside UTF-8 sequences; each possible lead and continuation byte is refused.
        for code in (0x80..=0x10FFFFu32).step_by(61).filter_map(char::from_u32) {
            let mut buffer = [0; 4];
            let text = code.encode_utf8(&mut buffer);
            let byte = text.as_bytes()[0];
            assert_eq!(
                check_token(text),
                Err(TokenError::Byte { byte, offset: 0 }),
                "U+{:04X}",
                u32::from(code)
            );
        }
        for byte in 0x80..=0xFFu8 {
            assert!(!is_token_byte(byte));
        }
    }

    #[test]
    fn a_token_has_one_to_512_bytes() {
        assert_eq!(check_token(""), Err(TokenError::Empty));
        assert_eq!(check_token(&"a".repeat(511)), Ok(()));
        assert_eq!(check_token(&"a".repeat(512)), Ok(()));
        assert_eq!(check_token(&"a".repeat(513)), Err(TokenError::TooLong { length: 513 }));
    }

    #[test]
    fn only_spaces_separate() {
        #[track_caller]
        fn check(scope: &str, expected: &[&str]) {
            assert_eq!(*distinct_tokens(scope), *expected, "{scope:?}");
        }
        check("", &[]);
        check("   ", &[]);
        check(" offline_access", &["offline_access"]);
        check("a  b ", &["a", "b"]);
        check("a\tb", &["a\tb"]);
        check("a\u{a0}b c", &["a\u{a0}b", "c"]);
        check("a\nb", &["a\nb"]);
        check("b a b a c", &["b", "a", "c"]);
        check("A a", &["A", "a"]);
    }

    /// One look at a text finds what splitting it, checking each token and searching it for a `*` find.
    #[test]
    fn scanning_says_what_the_grammar_says() {
        #[track_caller]
        fn check(scope: &str) {
            let expected = scope.split(' ').filter(|token| !token.is_empty()).map(|text| ScannedToken {
                text,
                is_well_formed: check_token(text).is_ok(),
                has_star: text.contains('*'),
            });
            assert_eq!(scan(scope).collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "{scope:?}");
        }
        for byte in (0..=0x7F).map(char::from) {
            for scope in [format!("{byte}"), format!("a{byte}b c"), format!(" {byte} é{byte}")] {
                check(&scope);
            }
        }
        for scope in ["", "  ", "a", " a  b ", "*", "a* b", "a.*", "é", "a\u{a0}b", "日本 a*"] {
            check(scope);
        }
        for length in [511, 512, 513] {
            check(&format!("a {} b", "x".repeat(length)));
        }
        proptest::proptest!(|(scope in "[ab* .é\t]{0,40}")| check(&scope));
    }

    #[test]
    fn distinct_keeps_first_places_below_and_above_the_linear_size() {
        let names: Vec<String> = (0..100).map(|n| format!("s{n}")).collect();
        let mut distinct = Distinct::default();
        for _ in 0..3 {
            for name in &names {
                distinct.push(name);
            }
        }
        assert_eq!(distinct.as_slice(), names.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(distinct.contains("s0") && distinct.contains("s15") && distinct.contains("s99"));
        for count in 0..40 {
            let mut new = Distinct::default();
            names.iter().take(count).for_each(|name| new.push_new(name));
            assert!(names.iter().take(count).all(|name| !new.push(name)) && new.push("another"));
        }
        assert!(!distinct.contains("s100"));
    }

    #[test]
    fn a_list_finds_its_scopes_by_place_and_by_name() {
        for size in [0, 1, 2, 16, 17, 300] {
            let names: Vec<String> = (0..size).map(|n| format!("scope:{n}")).collect();
            let list = ScopeList::new(names.iter().map(String::as_str));
            assert_eq!(list.len(), size);
            assert_eq!(list.iter().collect::<Vec<_>>(), names);
            for (at, name) in names.iter().enumerate() {
                assert_eq!(list.get(at), Some(name.as_str()));
                assert_eq!(list.position(name), Some(at));
            }
            assert_eq!(list.get(size), None);
            assert!(!list.contains("scope"));
            assert_eq!(list.as_str(), names.join(" "));
        }
    }
}
