//! The part of YAML that policies are mostly written in, read in one pass.
//!
//! Block mappings and block lists, lists of scalars in brackets on one line, scalars on one line that are plain or quoted
//! without escapes, comments. Wherever a text has anything else, or is not certainly right, there is no tree from here, and
//! the parser of the whole language reads all of the text: so every error is its own, and so is the meaning of what is rare.
//! A tree from here is the one that it makes, with the same positions; a test compares both.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::{Aliases, MAX_ENTRIES, MAX_NODES, Node, NodeKind, Schema, Tree, core_schema, narrow, shrink};
use crate::policy::finding::Position;

/// Deepest nesting that is read here; policies and tests need less.
const MAX_DEPTH: usize = 16;
/// Longest key that is read here, in bytes.
const MAX_KEY_BYTES: usize = 2048;

/// The tree of a text, if all of it is written plainly.
pub(super) fn parse(text: &str) -> Option<Tree<'_>> {
    if !has_plain_characters(text) {
        return None;
    }
    let mut reader = Reader {
        text,
        bytes: text.as_bytes(),
        line: 0,
        line_start: 0,
        line_end: 0,
        at: 0,
        nodes: 0,
        spare_entries: Vec::new(),
        spare_members: Vec::new(),
    };
    reader.start_line(0);
    if !reader.has_content() {
        reader.next_line();
    }
    if reader.at == reader.line_start && reader.rest_of_line() == "---" {
        reader.next_line();
    }
    let root = reader.mapping(reader.column()?, 1)?;
    let tree = Tree { root: Some(root), aliases: Aliases::default() };
    // What is less indented than the first line is another document, or wrong.
    reader.column().is_none().then_some(tree)
}

/// Returns `true` if there are only spaces, line feeds and printable characters.
fn has_plain_characters(text: &str) -> bool {
    let (mut is_odd, mut is_ascii) = (false, true);
    // Without a branch for each byte, so that many are compared at once.
    for block in text.as_bytes().chunks(256) {
        for byte in block {
            is_odd |= (*byte < b' ' && *byte != b'\n') || *byte == 0x7f;
            is_ascii &= *byte < 0x80;
        }
        if is_odd {
            return false;
        }
    }
    let is_odd = |character| {
        matches!(
            character,
            '\u{80}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
        )
    };
    is_ascii || !text.contains(is_odd)
}

struct Reader<'t> {
    text: &'t str,
    bytes: &'t [u8],
    /// 1-based number of the line that is read.
    line: u32,
    line_start: usize,
    /// Where its line feed is, or the end of the text.
    line_end: usize,
    /// What is read next: the first character of a node or, behind the last line, the end of the text. In front of it in the
    /// line there is only ASCII.
    at: usize,
    nodes: usize,
    /// See [`shrink`].
    spare_entries: Vec<Vec<Node<'t>>>,
    spare_members: Vec<Vec<(Node<'t>, Node<'t>)>>,
}

impl<'t> Reader<'t> {
    fn byte(&self, at: usize) -> Option<u8> {
        self.bytes.get(at).copied()
    }

    fn slice(&self, start: usize, end: usize) -> &'t str {
        self.text.get(start..end).unwrap_or_default()
    }

    fn rest_of_line(&self) -> &'t str {
        self.slice(self.at, self.line_end).trim_end_matches(' ')
    }

    /// Characters in front of what is read next; nothing at the end.
    fn column(&self) -> Option<usize> {
        (self.at < self.bytes.len()).then(|| self.at - self.line_start)
    }

    fn start_line(&mut self, start: usize) {
        self.line = self.line.saturating_add(1);
        self.line_start = start;
        self.at = self.skip_spaces(start);
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        self.line_end = memchr::memchr(b'\n', rest).map_or(self.bytes.len(), |length| self.at + length);
    }

    fn has_content(&self) -> bool {
        self.at < self.line_end && self.byte(self.at) != Some(b'#')
    }

    /// Goes to the next line that has more than a comment, or to the end.
    fn next_line(&mut self) {
        loop {
            if self.line_end >= self.bytes.len() {
                self.at = self.bytes.len();
                return;
            }
            self.start_line(self.line_end + 1);
            if self.has_content() {
                return;
            }
        }
    }

    fn skip_spaces(&self, from: usize) -> usize {
        let mut at = from;
        while self.byte(at) == Some(b' ') {
            at += 1;
        }
        at
    }

    /// Where something stands in the line, behind a `:` or `-` that is in front of this place.
    fn behind(&self, from: usize) -> Option<usize> {
        let at = self.skip_spaces(from);
        (at < self.line_end && self.byte(at) != Some(b'#')).then_some(at)
    }

    /// Returns `true` if a line goes on with nothing but a comment.
    fn ends(&self, from: usize) -> bool {
        let at = self.skip_spaces(from);
        at >= self.line_end || (at > from && self.byte(at) == Some(b'#'))
    }

    /// Returns `true` at the first character of an entry of a block list.
    fn is_entry(&self) -> bool {
        self.byte(self.at) == Some(b'-') && self.is_separated(self.at + 1)
    }

    /// Returns `true` if a space or the end of the line is there.
    fn is_separated(&self, at: usize) -> bool {
        at >= self.line_end || self.byte(at) == Some(b' ')
    }

    fn position(&self, start: usize, end: usize) -> Position {
        let column = narrow(start - self.line_start).saturating_add(1);
        Position { line: self.line, column, start: narrow(start), end: narrow(end) }
    }

    fn count(&mut self) -> Option<()> {
        self.nodes += 1;
        (self.nodes <= MAX_NODES).then_some(())
    }

    /// Counts a mapping or list.
    fn open(&mut self, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.count()
    }

    /// Reads a block mapping, and goes to what is in the lines behind it.
    fn mapping(&mut self, column: usize, depth: usize) -> Option<Node<'t>> {
        self.open(depth)?;
        let mut position = self.position(self.at, self.at);
        let mut members = self.spare_members.pop().unwrap_or_default();
        loop {
            let (key, behind) = self.key(self.at)?;
            self.count()?;
            let value = self.value(column, behind, depth)?;
            members.push((key, value));
            match self.column().map(|next| next.cmp(&column)) {
                None | Some(Ordering::Less) => break,
                Some(Ordering::Equal) if !self.is_entry() && members.len() < MAX_ENTRIES => {}
                Some(Ordering::Equal | Ordering::Greater) => return None,
            }
        }
        position.end = narrow(self.at);
        shrink(&mut members, &mut self.spare_members);
        Some(Node { kind: NodeKind::Mapping(members), position })
    }

    /// The key of a block mapping that starts at a place, and what is behind its `:`.
    fn key(&self, start: usize) -> Option<(Node<'t>, usize)> {
        let (text, schema, end) = match self.byte(start)? {
            b'"' | b'\'' => {
                let (text, end) = self.quoted(start)?;
                let is_key = self.byte(end) == Some(b':') && self.is_separated(end + 1);
                (text, Schema::String, is_key.then_some(end)?)
            }
            _ => {
                let line = self.bytes.get(start..self.line_end)?;
                let mut colons = memchr::memchr_iter(b':', line).map(|length| start + length);
                let end = colons.find(|colon| self.is_separated(colon + 1))?;
                let text = self.slice(start, end);
                let is_marker = start == self.line_start && text.starts_with("...");
                if is_marker || !is_plain_start(text) || text.ends_with(' ') || text.contains('#') {
                    return None;
                }
                (text, core_schema(text), end)
            }
        };
        if text.len() > MAX_KEY_BYTES || !text.is_ascii() {
            return None;
        }
        Some((self.scalar(text, schema, start, end), end + 1))
    }

    fn scalar(&self, text: &'t str, schema: Schema, start: usize, end: usize) -> Node<'t> {
        let kind = NodeKind::Scalar { text: Cow::Borrowed(text), schema };
        Node { kind, position: self.position(start, end) }
    }

    /// The value of a member of a block mapping; `behind` its `:`.
    fn value(&mut self, column: usize, behind: usize, depth: usize) -> Option<Node<'t>> {
        if let Some(start) = self.behind(behind) {
            return self.inline(start, column);
        }
        self.next_line();
        let inner = self.column()?;
        match (inner.cmp(&column), self.is_entry()) {
            // Nothing is written.
            (Ordering::Less, _) | (Ordering::Equal, false) => None,
            (Ordering::Equal, true) => self.list(column, true, depth + 1),
            (Ordering::Greater, true) => self.list(inner, false, depth + 1),
            (Ordering::Greater, false) => self.mapping(inner, depth + 1),
        }
    }

    /// Reads a block list, and goes to what is in the lines behind it. One that is a value `in_column` of its key may be
    /// followed by the next key.
    fn list(&mut self, column: usize, in_column: bool, depth: usize) -> Option<Node<'t>> {
        self.open(depth)?;
        let mut position = self.position(self.at, self.at);
        let mut entries = self.spare_entries.pop().unwrap_or_default();
        loop {
            let start = self.behind(self.at + 1)?;
            if in_column && entries.is_empty() {
                // So the parser has it.
                position = self.position(start, start);
            }
            let entry = if self.key(start).is_some() {
                self.at = start;
                self.mapping(start - self.line_start, depth + 1)?
            } else {
                self.inline(start, column)?
            };
            entries.push(entry);
            match self.column().map(|next| next.cmp(&column)) {
                None | Some(Ordering::Less) => break,
                Some(Ordering::Equal) if self.is_entry() && entries.len() < MAX_ENTRIES => {}
                Some(Ordering::Equal) if !self.is_entry() && in_column => break,
                Some(Ordering::Equal | Ordering::Greater) => return None,
            }
        }
        position.end = narrow(self.at);
        shrink(&mut entries, &mut self.spare_entries);
        Some(Node { kind: NodeKind::Sequence(entries), position })
    }

    /// Reads what ends in this line, and goes to the next one, which must not be indented more than `column`: otherwise it
    /// may go on with it.
    fn inline(&mut self, start: usize, column: usize) -> Option<Node<'t>> {
        self.count()?;
        let node = match self.byte(start)? {
            b'[' => {
                let (list, end) = self.bracketed(start)?;
                self.ends(end).then_some(list)?
            }
            b'"' | b'\'' => {
                let (text, end) = self.quoted(start)?;
                self.ends(end).then(|| self.scalar(text, Schema::String, start, end))?
            }
            _ => {
                let line = self.slice(start, self.line_end);
                let comment = memchr::memchr_iter(b'#', line.as_bytes())
                    .find(|at| self.byte(start + at - 1) == Some(b' '));
                let text = line.get(..comment.unwrap_or(line.len()))?.trim_end_matches(' ');
                let end = start + text.len();
                let mut colons = memchr::memchr_iter(b':', text.as_bytes()).map(|length| start + length);
                if !is_plain_start(text)
                    || colons.any(|colon| colon + 1 == end || self.is_separated(colon + 1))
                {
                    return None;
                }
                self.scalar(text, core_schema(text), start, end)
            }
        };
        self.next_line();
        self.column().is_none_or(|next| next <= column).then_some(node)
    }

    /// A quoted scalar without escapes in one line, and what is behind it.
    fn quoted(&self, start: usize) -> Option<(&'t str, usize)> {
        let quote = self.byte(start)?;
        let line = self.bytes.get(start + 1..self.line_end)?;
        let length = memchr::memchr(quote, line)?;
        let (text, end) = (self.slice(start + 1, start + 1 + length), start + length + 2);
        let has_escapes = match quote {
            b'"' => memchr::memchr(b'\\', text.as_bytes()).is_some(),
            _ => self.byte(end) == Some(quote),
        };
        (!has_escapes).then_some((text, end))
    }

    /// A list of scalars in brackets in one line, and what is behind it.
    fn bracketed(&mut self, start: usize) -> Option<(Node<'t>, usize)> {
        let mut entries = self.spare_entries.pop().unwrap_or_default();
        let mut at = self.skip_spaces(start + 1);
        while !(entries.is_empty() && self.byte(at) == Some(b']')) {
            let (text, schema, end) = match self.byte(at)? {
                b'"' | b'\'' => {
                    let (text, end) = self.quoted(at)?;
                    (text, Schema::String, end)
                }
                _ => {
                    let rest = self.slice(at, self.line_end);
                    let text = rest.split([',', ']', '[', '{', '}']).next()?.trim_end_matches(' ');
                    if !is_plain_start(text)
                        || text.contains('#')
                        || text.contains(": ")
                        || text.ends_with(':')
                    {
                        return None;
                    }
                    (text, core_schema(text), at + text.len())
                }
            };
            if !text.is_ascii() || entries.len() >= MAX_ENTRIES {
                return None;
            }
            self.count()?;
            entries.push(self.scalar(text, schema, at, end));
            at = self.skip_spaces(end);
            match self.byte(at)? {
                b',' => at = self.skip_spaces(at + 1),
                b']' => break,
                _ => return None,
            }
        }
        let end = at + 1;
        shrink(&mut entries, &mut self.spare_entries);
        Some((Node { kind: NodeKind::Sequence(entries), position: self.position(start, end) }, end))
    }
}

/// Returns `true` if a plain scalar may start like this, whatever is behind its first character.
fn is_plain_start(text: &str) -> bool {
    const INDICATORS: &[u8] = b"-?:,[]{}#&*!|>'\"%@`";
    text.bytes().next().is_some_and(|first| !INDICATORS.contains(&first))
}

#[cfg(test)]
mod tests;
