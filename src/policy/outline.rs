//! What documents say, as the set of everything that is written in them: to tell whether something disappeared.
//!
//! A half-written file is often a valid, shorter policy, and a shorter policy may be a wider one: without its
//! `scopeMatching`, a member of a `when`, an entry of `forbiddenScopes`. So it is not the meaning of a set that
//! counts, but whether all that was written is still written. Knows no key of the format: a new one is covered without
//! a line of code.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::{Arc, OnceLock};

use hashbrown::DefaultHashBuilder;

use super::yaml::{Node, NodeKind};

/// Everything that one document says: a hash of each key with the keys above it, and of each entry of a list.
///
/// An entry that is a mapping is known by its `name` if it has one, otherwise by its place in the list. The value of a
/// key is not part of it: another value is a change, and nothing disappeared.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Outline {
    said: Arc<[u64]>,
}

impl Outline {
    /// The outline of a tree.
    #[must_use]
    pub fn of(root: &Node<'_>) -> Self {
        let mut said = Vec::new();
        // One random state for the process: outlines are compared with one another, and are not kept on disk.
        static STATE: OnceLock<DefaultHashBuilder> = OnceLock::new();
        let state = STATE.get_or_init(DefaultHashBuilder::default);
        walk(root, &state.build_hasher(), &mut said);
        Self { said: said.into() }
    }

    /// The same memory: an unchanged document keeps its outline.
    fn address(&self) -> usize {
        self.said.as_ptr().addr()
    }
}

/// What a set of documents says.
#[derive(Clone, Debug, Default)]
pub struct Outlines {
    documents: Vec<Outline>,
}

impl FromIterator<Outline> for Outlines {
    fn from_iter<I: IntoIterator<Item = Outline>>(documents: I) -> Self {
        Self { documents: documents.into_iter().collect() }
    }
}

impl Outlines {
    /// Returns `true` if these documents say something that `others` do not say, in whatever file.
    #[must_use]
    pub fn say_more_than(&self, others: &Self) -> bool {
        let said = |documents: &Self, known: &Self| -> HashSet<u64> {
            let known: HashSet<usize> = known.documents.iter().map(Outline::address).collect();
            let changed = documents.documents.iter().filter(|one| !known.contains(&one.address()));
            changed.flat_map(|one| one.said.iter().copied()).collect()
        };
        // What both share as it is need not be looked at, so that an edit of one file among many is cheap.
        let (before, after) = (said(self, others), said(others, self));
        let mut gone: HashSet<u64> = before.difference(&after).copied().collect();
        // What moved into a file that did not change is still said: rare, and so looked for last.
        for said in others.documents.iter().flat_map(|one| one.said.iter()) {
            if gone.is_empty() {
                return false;
            }
            gone.remove(said);
        }
        !gone.is_empty()
    }
}

/// What is hashed of the keys above a node; cheap to copy.
type Path = <DefaultHashBuilder as BuildHasher>::Hasher;

fn walk(node: &Node<'_>, path: &Path, said: &mut Vec<u64>) {
    let step = |kind: u8, name: &str| {
        let mut path = path.clone();
        (kind, name).hash(&mut path);
        path
    };
    match &node.kind {
        NodeKind::Scalar { .. } => {}
        NodeKind::Mapping(entries) => {
            for (key, value) in entries {
                let path = step(b'k', key.text());
                said.push(path.finish());
                walk(value, &path, said);
            }
        }
        NodeKind::Sequence(entries) => {
            for (at, entry) in entries.iter().enumerate() {
                let path = match &entry.kind {
                    NodeKind::Scalar { text, .. } => step(b'e', text),
                    NodeKind::Mapping(members) => {
                        match members.iter().find(|(key, _)| key.text() == "name") {
                            Some((_, name)) => step(b'n', name.text()),
                            None => step(b'i', &at.to_string()),
                        }
                    }
                    NodeKind::Sequence(_) => step(b'i', &at.to_string()),
                };
                said.push(path.finish());
                walk(entry, &path, said);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::yaml::{Tree, parse};
    use super::*;

    fn outlines(texts: &[&str]) -> Outlines {
        texts.iter().filter_map(|text| parse(text).unwrap().root).map(|root| Outline::of(&root)).collect()
    }

    #[track_caller]
    fn check(before: &[&str], after: &[&str], disappeared: bool) {
        assert_eq!(outlines(before).say_more_than(&outlines(after)), disappeared, "{before:?} {after:?}");
    }

    /// Every key of the format that one audience and one rule can have.
    const FULL: &str = "\
guardrails:
  forbiddenScopes: [root]
  privilegedScopes: [admin]
  maxBaselineClientScopes: 3
defaultAudience: api
audiences:
  api:
    scopesSupported: [a, b]
    scopeMatching: hierarchic
    authorization:
      omittedScope: reject
      stepUpScopes: [b]
    clientRules:
    - name: one
      when:
        source: dcr
        clientName: X*
      baselineClientScopes: [a]
    - name: two
      when:
        grantTypes: [refresh_token, authorization_code]
      baselineClientScopes: [b]
  other:
    scopesSupported: [x]
";

    #[test]
    fn a_file_that_is_cut_off_anywhere_has_lost_something() {
        let whole = outlines(&[FULL]);
        let lines: Vec<&str> = FULL.lines().collect();
        let mut cut = 0;
        for end in 0..lines.len() {
            let text = lines[..end].join("\n");
            if let Ok(Tree { root, .. }) = parse(&text) {
                let shorter: Outlines = root.iter().map(Outline::of).collect();
                assert!(whole.say_more_than(&shorter), "{text}");
                assert!(!shorter.say_more_than(&whole), "{text}");
                cut += 1;
            }
        }
        assert!(cut > 15, "most of the cuts are YAML: {cut}");
    }

    #[test]
    fn each_line_that_is_taken_out_is_missed() {
        let lines: Vec<&str> = FULL.lines().collect();
        let mut taken = 0;
        for at in 0..lines.len() {
            let text: Vec<&str> =
                lines.iter().enumerate().filter(|(line, _)| *line != at).map(|(_, text)| *text).collect();
            if let Ok(Tree { root: Some(_), .. }) = parse(&text.join("\n")) {
                check(&[FULL], &[&text.join("\n")], true);
                taken += 1;
            }
        }
        assert!(taken > 15, "most of the lines can be left out: {taken}");
    }

    #[test]
    fn what_is_added_changed_reordered_or_moved_has_not_disappeared() {
        check(&[FULL], &[FULL], false);
        check(&["a: {b: c}"], &["a: {b: d, e: f}"], false);
        check(&["a: [x, y]"], &["a: [y, x, z]"], false);
        check(&["r: [{name: one, b: 1}, {name: two}]"], &["r: [{name: two}, {name: one, b: 2}]"], false);
        check(&["a: {b: c}", "d: e"], &["a: {b: c}\nd: e"], false);
        check(&["a: [x, y]"], &["a: [x]"], true);
        check(&["a: [x]"], &["a: [y]"], true);
        check(&["a: {b: [x]}"], &["a: {c: [x]}"], true);
        check(&["r: [{name: one, when: {a: 1}}]"], &["r: [{name: one, when: {b: 1}}]"], true);
        check(&["r: [{a: 1}, {b: 1}]"], &["r: [{a: 1}]"], true);
        check(&["a: b", "c: d"], &["a: b"], true);
        check(&[], &["a: b"], false);
    }

    #[test]
    fn what_moves_into_a_document_that_did_not_change_is_still_said() {
        let shared = outlines(&["a: {b: c}"]).documents;
        let before: Outlines = shared.iter().cloned().chain(outlines(&["a: {b: c}"]).documents).collect();
        let after: Outlines = shared.into_iter().collect();
        assert!(!before.say_more_than(&after));
    }
}
