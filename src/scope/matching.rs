//! The three ways in which an entry of a policy list matches a requested scope.
//!
//! `exact` compares bytes, `hierarchic` lets `mcp` stand for `mcp.read`, `wildcard` lets `mcp.*`
//! stand for it; segments are separated by dots, as in the scope strategies of ORY fosite. One thing
//! is stricter here: a scope with an empty segment (`mcp..read`, `mcp.`) matches only an equal entry.

use super::{ScopeList, is_token_byte};

/// How the entries of an audience's lists are compared with a scope.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum ScopeMatching {
    /// Equal bytes.
    #[default]
    Exact,
    /// Equal, or the entry's dot-separated segments are a prefix of the scope's.
    Hierarchic,
    /// Segment by segment; `*` stands for one whole non-empty segment, as last segment for one or more.
    Wildcard,
}

impl ScopeMatching {
    /// Every way.
    pub const ALL: [Self; 3] = [Self::Exact, Self::Hierarchic, Self::Wildcard];

    /// The spelling of policy files and of the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Hierarchic => "hierarchic",
            Self::Wildcard => "wildcard",
        }
    }

    /// Tells whether a list entry grants a scope.
    ///
    /// Not symmetric: under `hierarchic` the entry `mcp` matches `mcp.read` but not the other way round.
    #[must_use]
    pub fn matches(self, entry: &str, scope: &str) -> bool {
        if entry == scope {
            return true;
        }
        match self {
            Self::Exact => false,
            Self::Hierarchic => {
                scope.strip_prefix(entry).is_some_and(|rest| rest.starts_with('.'))
                    && !has_empty_segment(scope)
            }
            Self::Wildcard => wildcard(entry, scope),
        }
    }

    /// Tells whether a forbidden or privileged entry stops a scope: it matches the scope, the scope
    /// as a pattern matches it, or the two patterns overlap.
    ///
    /// Symmetric, since a token that holds `mcp` or `mcp.*` would grant a forbidden `mcp.admin`.
    #[must_use]
    pub fn stops(self, entry: &str, scope: &str) -> bool {
        match self {
            Self::Exact => entry == scope,
            Self::Hierarchic => self.matches(entry, scope) || self.matches(scope, entry),
            Self::Wildcard => entry == scope || overlap(entry, scope),
        }
    }

    /// The position of the first entry that grants the scope; an equal entry goes first.
    #[must_use]
    pub fn find(self, list: &ScopeList, scope: &str) -> Option<usize> {
        let equal = list.position(scope);
        if equal.is_some() {
            return equal;
        }
        match self {
            Self::Exact => None,
            Self::Hierarchic if has_empty_segment(scope) => None,
            Self::Hierarchic => {
                // What may match is known: the scope cut before a dot. Looking these few up is quicker
                // than comparing every entry of a long list.
                prefixes(scope, list.longest()).filter_map(|prefix| list.position(prefix)).min()
            }
            Self::Wildcard if !list.has_patterns() => None,
            Self::Wildcard => list.iter().position(|entry| wildcard(entry, scope)),
        }
    }

    /// The position of the first entry that stops the scope (see [`ScopeMatching::stops`]).
    #[inline]
    #[must_use]
    pub fn find_stop(self, list: &ScopeList, scope: &str) -> Option<usize> {
        // As most of these lists are.
        if list.is_empty() { None } else { self.find_stop_in(list, scope) }
    }

    fn find_stop_in(self, list: &ScopeList, scope: &str) -> Option<usize> {
        match self {
            Self::Exact => list.position(scope),
            // Two different scopes overlap only if one of them is a pattern.
            Self::Wildcard if !list.has_patterns() && !has_star_segment(scope) => list.position(scope),
            Self::Hierarchic | Self::Wildcard => list.iter().position(|entry| self.stops(entry, scope)),
        }
    }
}

/// Tells whether a scope has a segment that is exactly `*`, and so acts as a pattern under `wildcard`.
///
/// `mcp:*` has one segment, which is not `*`: it is plain text.
#[must_use]
pub fn has_star_segment(scope: &str) -> bool {
    segments(scope).any(|segment| segment == b"*")
}

/// What may match a scope under `hierarchic` besides itself, if it has no empty segment: the scope cut before each dot,
/// the shortest first, up to `longest` bytes.
pub fn prefixes(scope: &str, longest: usize) -> impl Iterator<Item = &str> {
    let dots = scope.as_bytes().iter().enumerate().take(longest.saturating_add(1));
    dots.filter(|(_, byte)| **byte == b'.').filter_map(|(dot, _)| scope.get(..dot))
}

/// Returns `true` if a scope has an empty segment, and so is matched by an equal entry only.
#[must_use]
pub fn has_empty_segment(scope: &str) -> bool {
    segments(scope).any(<[u8]>::is_empty)
}

/// Segments are short, so a plain walk over the bytes beats a search for the next dot.
fn segments(scope: &str) -> impl Iterator<Item = &[u8]> {
    scope.as_bytes().split(|byte| *byte == b'.')
}

/// Tells whether a pattern matches a scope that differs from it and has no empty segment.
fn wildcard(entry: &str, scope: &str) -> bool {
    let mut entries = segments(entry).peekable();
    let mut segments = segments(scope);
    while let Some(pattern) = entries.next() {
        let Some(segment) = segments.next() else {
            return false;
        };
        if segment.is_empty() {
            return false;
        }
        if pattern == b"*" {
            if entries.peek().is_none() {
                return segments.all(|segment| !segment.is_empty());
            }
        } else if pattern != segment {
            return false;
        }
    }
    segments.next().is_none()
}

/// Tells whether some scope is matched by both patterns, which differ; each may also be a plain scope.
///
/// A pattern with an empty segment matches nothing but itself.
fn overlap(left: &str, right: &str) -> bool {
    let mut left = segments(left).peekable();
    let mut right = segments(right).peekable();
    loop {
        match (left.next(), right.next()) {
            (None, None) => return true,
            (None, Some(_)) | (Some(_), None) => return false,
            (Some(one), Some(other)) => {
                if one.is_empty() || other.is_empty() {
                    return false;
                }
                let left_tail = one == b"*" && left.peek().is_none();
                let right_tail = other == b"*" && right.peek().is_none();
                // A trailing `*` takes everything that is left, which has at least this segment.
                if left_tail || right_tail {
                    return left.chain(right).all(|segment| !segment.is_empty());
                }
                if one != other && one != b"*" && other != b"*" {
                    return false;
                }
            }
        }
    }
}

const _: () = assert!(is_token_byte(b'*') && is_token_byte(b'.'));

#[cfg(test)]
mod tests {
    use super::*;
    use ScopeMatching::{Exact, Hierarchic, Wildcard};

    #[test]
    fn exact_matches_equal_bytes_only() {
        assert!(Exact.matches("mcp:read", "mcp:read"));
        for (entry, scope) in [("mcp", "mcp.read"), ("mcp.*", "mcp.read"), ("MCP", "mcp"), ("*", "a")] {
            assert!(!Exact.matches(entry, scope), "{entry} {scope}");
        }
        assert!(Exact.matches("mcp.*", "mcp.*"));
        assert!(Exact.matches("a..b", "a..b"));
    }

    #[test]
    fn hierarchic_matches_segment_prefixes() {
        #[track_caller]
        fn check(entry: &str, scope: &str, expected: bool) {
            assert_eq!(Hierarchic.matches(entry, scope), expected, "entry {entry}, scope {scope}");
        }
        check("mcp", "mcp", true);
        check("mcp", "mcp.read", true);
        check("mcp", "mcp.read.all", true);
        check("mcp.read", "mcp.read.all", true);
        check("mcp.read", "mcp", false);
        check("mcp", "mcpx", false);
        check("mcp", "mcpx.read", false);
        check("mcp", "mcp:read", false);
        check("mcp.re", "mcp.read", false);
        check("mcp", "mcp.", false);
        check("mcp", "mcp..read", false);
        check("mcp..read", "mcp..read", true);
        check("mcp.", "mcp.", true);
        check("mcp.", "mcp..read", false);
        check(".", ".", true);
        check("mcp.*", "mcp.read", false);
        check("mcp", "mcp.*", true);
    }

    #[test]
    fn wildcard_stars_stand_for_whole_segments() {
        #[track_caller]
        fn check(entry: &str, scope: &str, expected: bool) {
            assert_eq!(Wildcard.matches(entry, scope), expected, "entry {entry}, scope {scope}");
        }
        check("mcp.*", "mcp.read", true);
        check("mcp.*", "mcp.read.all", true);
        check("mcp.*", "mcp", false);
        check("mcp.*", "mcp.", false);
        check("mcp.*", "mcp.*", true);
        check("mcp.*", "mcp.read.", false);
        check("mcp.*", "mcp.read..all", false);
        check("mcp.*.read", "mcp.photos.read", true);
        check("mcp.*.read", "mcp.photos.write", false);
        check("mcp.*.read", "mcp.a.b.read", false);
        check("mcp.*.read", "mcp..read", false);
        check("mcp.*.*", "mcp.a", false);
        check("mcp.*.*", "mcp.a.b", true);
        check("mcp.*.*", "mcp.a.b.c", true);
        check("*", "anything", true);
        check("*", "any.thing", true);
        check("*.read", "mcp.read", true);
        check("*.read", "read", false);
        check("mcp:*", "mcp:read", false);
        check("mcp:*", "mcp:*", true);
        check("mcp.r*", "mcp.read", false);
        check("mcp", "mcp.read", false);
        check("a..*", "a..b", false);
        check("a..*", "a..*", true);
    }

    #[test]
    fn forbidden_entries_stop_in_both_directions() {
        #[track_caller]
        fn check(mode: ScopeMatching, entry: &str, scope: &str, expected: bool) {
            assert_eq!(mode.stops(entry, scope), expected, "{mode:?}: entry {entry}, scope {scope}");
            assert_eq!(mode.stops(scope, entry), expected, "{mode:?}: symmetric, {scope}, {entry}");
        }
        check(Exact, "mcp.admin", "mcp.admin", true);
        check(Exact, "mcp.admin", "mcp", false);
        check(Hierarchic, "mcp.admin", "mcp", true);
        check(Hierarchic, "mcp.admin", "mcp.admin.users", true);
        check(Hierarchic, "mcp.admin", "mcp.read", false);
        check(Wildcard, "mcp.admin", "mcp.*", true);
        check(Wildcard, "mcp.admin", "*", true);
        check(Wildcard, "mcp.admin", "mcp", false);
        check(Wildcard, "*.admin", "mcp.*", true);
        check(Wildcard, "a.*.c", "a.b.*", true);
        check(Wildcard, "a.*.c", "a.b.d", false);
        check(Wildcard, "a.*.c", "b.*.c", false);
        check(Wildcard, "a.b", "a.b.*", false);
        check(Wildcard, "a.*", "a.b.*.d", true);
        check(Wildcard, "a.*.x", "a.b.*.d", false);
        check(Wildcard, "mcp:admin", "mcp:*", false);
        check(Wildcard, "a..b", "a.*", false);
        check(Wildcard, "a..b", "a..b", true);
    }

    #[test]
    fn overlap_agrees_with_a_search_over_small_scopes() {
        let segments = ["a", "b", "*"];
        let mut patterns: Vec<String> = Vec::new();
        let mut scopes: Vec<String> = Vec::new();
        for one in segments {
            patterns.push(one.to_owned());
            for two in segments {
                patterns.push(format!("{one}.{two}"));
                for three in segments {
                    patterns.push(format!("{one}.{two}.{three}"));
                }
            }
        }
        for length in 1..=4usize {
            for code in 0..3usize.pow(length as u32) {
                let pick = |at: usize| ["a", "b", "c"][code / 3usize.pow(at as u32) % 3];
                scopes.push((0..length).map(pick).collect::<Vec<_>>().join("."));
            }
        }
        for left in &patterns {
            for right in &patterns {
                let witness = scopes
                    .iter()
                    .any(|scope| Wildcard.matches(left, scope) && Wildcard.matches(right, scope));
                assert_eq!(Wildcard.stops(left, right), witness, "{left} {right}");
            }
        }
    }

    #[test]
    fn find_prefers_the_equal_entry() {
        let list = ScopeList::new(["mcp.*", "mcp.read", "openid"]);
        assert_eq!(Wildcard.find(&list, "mcp.read"), Some(1));
        assert_eq!(Wildcard.find(&list, "mcp.write"), Some(0));
        assert_eq!(Exact.find(&list, "mcp.write"), None);
        assert_eq!(Wildcard.find_stop(&list, "mcp"), None);
        assert_eq!(Wildcard.find_stop(&list, "*.read"), Some(0));
    }
}
