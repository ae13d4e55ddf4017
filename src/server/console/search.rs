//! Finds audiences of a large policy by what is in their names, fast enough to be asked with each letter that somebody types.
//!
//! One text has everything that can be found, in lower case, so that a search is one pass over memory. It is made when the first
//! search comes after a change of the policy.

use memchr::memmem;

use crate::policy::PolicySet;

/// What can be found in one policy set.
#[derive(Debug, Default)]
pub(super) struct SearchIndex {
    /// Name, aliases and description of each audience.
    names: Haystack,
    /// Supported scopes of each audience.
    scopes: Haystack,
}

/// A text for each audience, in their order.
#[derive(Debug, Default)]
struct Haystack {
    text: String,
    ends: Vec<usize>,
}

/// What is looked for: words that all must be there, in any order and without case.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct SearchWords {
    names: Vec<String>,
    scopes: Vec<String>,
}

impl SearchWords {
    /// Reads what somebody typed: words, and `scope:…` for what a supported scope must contain. Words beyond [`MAX_WORDS`] are
    /// ignored.
    pub(super) fn parse(text: &str) -> Self {
        let mut words = Self::default();
        for word in text.to_lowercase().split_whitespace().take(MAX_WORDS) {
            match word.strip_prefix("scope:") {
                Some("") => {}
                Some(scope) => words.scopes.push(scope.to_owned()),
                None => words.names.push(word.to_owned()),
            }
        }
        words
    }
}

impl SearchIndex {
    /// Everything that can be found in a set.
    pub(super) fn new(set: &PolicySet) -> Self {
        let mut index = Self::default();
        for audience in set.audiences().iter() {
            let aliases = audience.aliases.iter().flat_map(|alias| [&*alias.spelled, &*alias.normal]);
            let names = [&*audience.audience, audience.normal(), &*audience.description];
            index.names.push(names.into_iter().chain(aliases));
            index.scopes.push(audience.scopes_supported.iter());
        }
        index
    }

    /// Positions in [`PolicySet::audiences`] of those that have all the words, in their order.
    pub(super) fn find(&self, words: &SearchWords) -> Vec<usize> {
        let SearchWords { names, scopes } = words;
        let in_names = names.iter().map(|word| (&self.names, word));
        let in_scopes = scopes.iter().map(|word| (&self.scopes, word));
        let mut words: Vec<_> = in_names.chain(in_scopes).collect();
        // A longer word is rarer, and faster to find.
        words.sort_by_key(|(_, word)| std::cmp::Reverse(word.len()));
        let Some(((haystack, word), others)) = words.split_first() else {
            return (0..self.names.ends.len()).collect();
        };
        let mut found = haystack.find(word);
        found.retain(|at| {
            others.iter().all(|(haystack, word)| {
                memmem::find(haystack.entry(*at).as_bytes(), word.as_bytes()).is_some()
            })
        });
        found
    }
}

impl Haystack {
    fn push<'a>(&mut self, texts: impl Iterator<Item = &'a str>) {
        for text in texts {
            self.text.push_str(&text.to_lowercase());
            // No word has a line break in it, so none is found over the end of a text.
            self.text.push('\n');
        }
        self.ends.push(self.text.len());
    }

    fn entry(&self, at: usize) -> &str {
        let start = at.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or_default();
        self.ends.get(at).and_then(|end| self.text.get(start..*end)).unwrap_or_default()
    }

    /// The entries that contain `word`.
    fn find(&self, word: &str) -> Vec<usize> {
        let finder = memmem::Finder::new(word);
        let mut found = Vec::new();
        let mut from = 0;
        while let Some(at) = self.text.as_bytes().get(from..).and_then(|rest| finder.find(rest)) {
            let hit = from + at;
            let entry = self.ends.partition_point(|end| *end <= hit);
            let Some(end) = self.ends.get(entry) else { break };
            found.push(entry);
            // Where else the word is in this entry makes no difference.
            from = *end;
        }
        found
    }
}

/// Most words that are looked for.
const MAX_WORDS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::sample::set;

    #[track_caller]
    fn check(index: &SearchIndex, typed: &str, expected: &[usize]) {
        assert_eq!(index.find(&SearchWords::parse(typed)), expected, "{typed}");
    }

    #[test]
    fn words_are_found_in_any_order_and_case() {
        let index = SearchIndex::new(&set("\
audiences:
  https://API.example.com/one: {scopesSupported: [read, 'mcp:admin'], description: 'For the Shop ÄÖ'}
  https://api.example.com/two: {scopesSupported: [read], aliases: ['urn:zwei', 'https://Alias.example/']}
  https://other.example: {scopesSupported: [Write]}
"));
        check(&index, "", &[0, 1, 2]);
        check(&index, "   ", &[0, 1, 2]);
        check(&index, "example", &[0, 1, 2]);
        check(&index, "API.Example", &[0, 1]);
        check(&index, "two api", &[1]);
        check(&index, "zwei", &[1]);
        check(&index, "alias.example", &[1]);
        check(&index, "shop äö", &[0]);
        check(&index, "two one", &[]);
        check(&index, "read", &[]);
        check(&index, "scope:read", &[0, 1]);
        check(&index, "SCOPE:ADMIN one", &[0]);
        check(&index, "scope:read scope:admin", &[0]);
        check(&index, "scope:write", &[2]);
        check(&index, "scope:", &[0, 1, 2]);
        // Nothing is found over the end of a text.
        check(&index, "oneapi", &[]);
        check(&index, "scope:readmcp", &[]);
        check(&index, "nothing", &[]);
    }

    #[test]
    fn a_search_finds_what_a_plain_look_finds() {
        let names: Vec<String> = (0..500).map(|number| format!("n{}x{number}", number % 7)).collect();
        let policy: String =
            names.iter().map(|name| format!("  {name}: {{scopesSupported: [s{name}]}}\n")).collect();
        let set = set(&format!("audiences:\n{policy}"));
        let index = SearchIndex::new(&set);
        for typed in ["n", "n3", "x4", "n3x1", "x499", "1 2", "scope:sn1 x3"] {
            let words = SearchWords::parse(typed);
            let has = |name: &str| {
                words.names.iter().all(|word| name.contains(word))
                    && words.scopes.iter().all(|word| format!("s{name}").contains(word))
            };
            let plain: Vec<usize> = (0..)
                .zip(set.audiences().iter())
                .filter(|(_, one)| has(&one.audience))
                .map(|(at, _)| at)
                .collect();
            assert!(!plain.is_empty());
            assert_eq!(index.find(&words), plain, "{typed}");
        }
    }

    #[test]
    fn too_many_words_are_ignored() {
        assert_eq!(SearchWords::parse(&"a ".repeat(100)).names.len(), MAX_WORDS);
    }
}
