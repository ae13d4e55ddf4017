//! YAML text as a tree with positions, read leniently and within bounds.
//!
//! Policy files are untrusted input: depth, nodes and what aliases expand to are limited, a tag or a
//! second document is a finding. The tree keeps duplicate keys and wrong types, so that a later layer
//! can report every one of them. Knows nothing about the policy format.

use std::borrow::Cow;
use std::collections::HashMap;

use granit_parser::{Event, Options, Parser, ScalarStyle, Span};

use super::finding::{Code, Finding, Position};
use crate::escape::shown;

mod advice;
mod plain;

/// Deepest nesting of mappings and lists; a policy needs 6.
pub const MAX_DEPTH: usize = 32;
/// Most nodes of one file: aliases counted as what they expand to, and what an anchor names counted once
/// more, since a copy is kept of it. A node takes 48 bytes, so a tree stays within 37 MiB.
pub const MAX_NODES: usize = 800_000;
/// Most entries of one list or mapping. An audience takes at least five nodes, so a file that is right has no more;
/// one that is wrong costs less.
pub const MAX_ENTRIES: usize = MAX_NODES / 5;
/// Most nodes that the aliases of one file may expand to.
pub const MAX_ALIAS_NODES: usize = 100_000;
/// Most bytes of text that is copied in one file: what aliases expand to, and what an anchor names and is not
/// in the file as it is (escapes, folded lines).
pub const MAX_COPIED_BYTES: usize = 16 << 20;
/// Longest plain key in characters: YAML allows 1024, an audience may have 2 KiB.
const MAX_KEY_CHARS: usize = 4096;

/// A node of the tree, with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node<'t> {
    /// What it is.
    pub kind: NodeKind<'t>,
    /// Where it is; for an alias, where the alias is.
    pub position: Position,
}

/// The three kinds of YAML node.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeKind<'t> {
    /// A scalar.
    Scalar {
        /// Its value, escapes resolved.
        text: Cow<'t, str>,
        /// What the YAML 1.2 core schema makes of it.
        schema: Schema,
    },
    /// A list.
    Sequence(Vec<Node<'t>>),
    /// A mapping: entries in file order, duplicates kept.
    Mapping(Vec<(Node<'t>, Node<'t>)>),
}

/// The type of a scalar under the core schema of YAML 1.2 (section 10.3.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Schema {
    /// Quoted, or plain and none of the others.
    String,
    /// Plain and empty, `~` or `null`.
    Null,
    /// Plain `true` or `false`.
    Boolean,
    /// A plain integer or decimal number.
    Number,
}

impl Node<'_> {
    /// The node, and all in it, at one place.
    fn at(mut self, position: Position) -> Self {
        self.position = position;
        self.kind = match self.kind {
            NodeKind::Sequence(entries) => {
                NodeKind::Sequence(entries.into_iter().map(|entry| entry.at(position)).collect())
            }
            NodeKind::Mapping(entries) => NodeKind::Mapping(
                entries.into_iter().map(|(key, value)| (key.at(position), value.at(position))).collect(),
            ),
            scalar @ NodeKind::Scalar { .. } => scalar,
        };
        self
    }

    /// The kind in words, for "expected a list, found ...".
    #[must_use]
    pub fn describe(&self) -> &'static str {
        match &self.kind {
            NodeKind::Scalar { schema: Schema::String, .. } => "a string",
            NodeKind::Scalar { schema: Schema::Null, .. } => "nothing",
            NodeKind::Scalar { schema: Schema::Boolean, .. } => "a boolean",
            NodeKind::Scalar { schema: Schema::Number, .. } => "a number",
            NodeKind::Sequence(_) => "a list",
            NodeKind::Mapping(_) => "a mapping",
        }
    }

    /// The text of a scalar, `""` for anything else.
    #[must_use]
    pub fn text(&self) -> &str {
        match &self.kind {
            NodeKind::Scalar { text, .. } => text,
            NodeKind::Sequence(_) | NodeKind::Mapping(_) => "",
        }
    }
}

/// A text as a tree.
#[derive(Clone, Debug, Default)]
pub struct Tree<'t> {
    /// Its content; `None` if it has none.
    pub root: Option<Node<'t>>,
    /// Where aliases are: all nodes that an alias stands for have its place.
    pub aliases: Aliases,
}

/// The aliases of a text, in its order.
#[derive(Clone, Debug, Default)]
pub struct Aliases(Vec<AliasUse>);

#[derive(Clone, Debug)]
struct AliasUse {
    position: Position,
    /// As written: `*name`.
    name: Box<str>,
    /// Where its anchor is.
    line: u32,
}

impl Aliases {
    /// Adds to a finding at the place of an alias where that is defined.
    pub fn explain(&self, finding: &mut Finding) {
        let start = finding.position.start;
        let at = self.0.binary_search_by_key(&start, |alias| alias.position.start);
        let Some(AliasUse { name, line, .. }) = at.ok().and_then(|at| self.0.get(at)) else { return };
        if finding.position.line == 0 {
            return;
        }
        let name = shown(name);
        finding.message.push_str(&format!(", through the alias `{name}` that is defined on line {line}"));
        if !finding.suggestion.is_empty() {
            finding.suggestion.push_str("; ");
        }
        finding
            .suggestion
            .push_str(&format!("change it on line {line}, or write it out in the place of `{name}`"));
    }

    /// Moves the aliases, as the nodes of a tree are moved.
    pub(super) fn relocate(&mut self, place: &impl Fn(Position) -> Position) {
        for alias in &mut self.0 {
            let anchor = place(Position { line: alias.line, ..Position::default() });
            alias.line = anchor.line;
            alias.position = place(alias.position);
        }
        self.0.sort_by_key(|alias| alias.position.start);
    }
}

/// Why a text has no tree.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct YamlProblem {
    /// The finding code.
    pub code: Code,
    /// Where it was noticed.
    pub position: Position,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub suggestion: Cow<'static, str>,
}

/// Reads a YAML text.
///
/// # Errors
/// The first syntax error, or the first limit that the text breaks: there is no tree after either.
pub fn parse(text: &str) -> Result<Tree<'_>, YamlProblem> {
    plain::parse(text).map_or_else(|| parse_all(text), Ok)
}

/// Reads a text by the parser of the whole language.
fn parse_all(text: &str) -> Result<Tree<'_>, YamlProblem> {
    let mut options = Options::default();
    options.simple_key_max_lookahead = MAX_KEY_CHARS;
    options.flow_nesting_limit = MAX_DEPTH;
    options.block_nesting_limit = MAX_DEPTH;
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut builder = Builder::default();
    while let Some(event) = parser.next_event() {
        match event {
            Ok((event, span)) => builder.take(text, event, position(&span))?,
            Err(error) => return Err(syntax(text, &error)),
        }
    }
    Ok(Tree { root: builder.root, aliases: builder.aliases })
}

fn syntax(text: &str, error: &granit_parser::ScanError) -> YamlProblem {
    let marker = error.marker();
    let start = narrow(marker.byte_offset().unwrap_or_default());
    let position = Position {
        line: narrow(marker.line()),
        column: narrow(marker.col()).saturating_add(1),
        start,
        end: start,
    };
    let message = error.info();
    if matches!(error.kind(), granit_parser::ErrorKind::RecursionLimitExceeded) {
        return too_deep(position);
    }
    let advice::Advice { position: better, message: words, suggestion } =
        advice::advice(text, error.kind(), position);
    let words = words.unwrap_or_else(|| shown(&message.replace("\\'", "`")));
    YamlProblem {
        code: Code::YamlSyntax,
        position: better.unwrap_or(position),
        message: format!("not valid YAML: {words}"),
        suggestion: suggestion.into(),
    }
}

fn too_deep(position: Position) -> YamlProblem {
    YamlProblem {
        code: Code::YamlTooDeep,
        position,
        message: format!("nested more than {MAX_DEPTH} levels deep"),
        suggestion: "a policy needs no more than 6 levels".into(),
    }
}

/// A mapping or list that is still open.
struct OpenNode<'t> {
    node: Node<'t>,
    key: Option<Node<'t>>,
    anchor: usize,
}

#[derive(Default)]
struct Builder<'t> {
    root: Option<Node<'t>>,
    open: Vec<OpenNode<'t>>,
    /// Vectors with room for a few entries, to be filled again: what is in the tree has room for no more
    /// than it holds, and most mappings and lists are short.
    spare_entries: Vec<Vec<Node<'t>>>,
    spare_members: Vec<Vec<(Node<'t>, Node<'t>)>>,
    anchors: HashMap<usize, (Node<'t>, Weight)>,
    aliases: Aliases,
    nodes: usize,
    alias_nodes: usize,
    copied_bytes: usize,
    /// Where the newest document starts.
    document: Position,
}

impl<'t> Builder<'t> {
    fn take(&mut self, source: &str, event: Event<'t>, position: Position) -> Result<(), YamlProblem> {
        match event {
            Event::DocumentStart(..) => self.document = position,
            Event::Scalar(text, style, anchor, tag) => {
                let forced = self.check_tag(tag.as_deref(), "str", position)?;
                let schema =
                    if style == ScalarStyle::Plain && !forced { core_schema(&text) } else { Schema::String };
                // The parser says `~` where nothing is written.
                let nothing = schema == Schema::Null && position.start == position.end;
                let text = if nothing { Cow::Borrowed("") } else { text };
                if nothing && self.open.is_empty() {
                    // A document without content, as behind a `---` at the end.
                    return Ok(());
                }
                self.expect_one_document()?;
                self.count(1, position)?;
                self.close(Node { kind: NodeKind::Scalar { text, schema }, position }, anchor)?;
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), "seq", position)?;
                let entries = self.spare_entries.pop().unwrap_or_default();
                self.start(NodeKind::Sequence(entries), anchor, position)?;
            }
            Event::MappingStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), "map", position)?;
                let members = self.spare_members.pop().unwrap_or_default();
                self.start(NodeKind::Mapping(members), anchor, position)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(mut open) = self.open.pop() {
                    open.node.position.end = open.node.position.end.max(position.end);
                    match &mut open.node.kind {
                        NodeKind::Sequence(entries) => shrink(entries, &mut self.spare_entries),
                        NodeKind::Mapping(members) => shrink(members, &mut self.spare_members),
                        NodeKind::Scalar { .. } => {}
                    }
                    self.close(open.node, open.anchor)?;
                }
            }
            Event::Alias(anchor) => {
                let Some((_, weight)) = self.anchors.get(&anchor) else {
                    // Inside its own anchor: a tree cannot hold itself.
                    return Err(YamlProblem {
                        code: Code::YamlSyntax,
                        position,
                        message: "an alias is inside the node that it refers to".to_owned(),
                        suggestion: "write the value out".into(),
                    });
                };
                let Weight { nodes, bytes, .. } = *weight;
                self.alias_nodes = self.alias_nodes.saturating_add(nodes);
                if self.alias_nodes > MAX_ALIAS_NODES {
                    return Err(YamlProblem {
                        code: Code::YamlTooLarge,
                        position,
                        message: format!(
                            "the aliases up to here expand to more than {MAX_ALIAS_NODES} nodes"
                        ),
                        suggestion: "write the values out or split the policy into files".into(),
                    });
                }
                self.count(nodes, position)?;
                self.copy(bytes, position)?;
                let Some((node, _)) = self.anchors.get(&anchor) else { return Ok(()) };
                let name = source.get(position.start as usize..position.end as usize).unwrap_or_default();
                self.aliases.0.push(AliasUse {
                    position,
                    name: name.trim().into(),
                    line: node.position.line,
                });
                let node = node.clone().at(position);
                self.close(node, 0)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Only one document of a file has content; here content starts.
    fn expect_one_document(&self) -> Result<(), YamlProblem> {
        if self.open.is_empty() && self.root.is_some() {
            return Err(YamlProblem {
                code: Code::MultipleDocuments,
                position: self.document,
                message: "a second YAML document starts here, a policy file has one".to_owned(),
                suggestion: "put it into a file of its own".into(),
            });
        }
        Ok(())
    }

    fn count(&mut self, nodes: usize, position: Position) -> Result<(), YamlProblem> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES {
            return Err(YamlProblem {
                code: Code::YamlTooLarge,
                position,
                message: format!("more than {MAX_NODES} nodes in one file"),
                suggestion: "split the policy into several files".into(),
            });
        }
        Ok(())
    }

    fn copy(&mut self, bytes: usize, position: Position) -> Result<(), YamlProblem> {
        self.copied_bytes = self.copied_bytes.saturating_add(bytes);
        if self.copied_bytes > MAX_COPIED_BYTES {
            return Err(YamlProblem {
                code: Code::YamlTooLarge,
                position,
                message: format!(
                    "anchors and aliases up to here copy more than {MAX_COPIED_BYTES} bytes of text"
                ),
                suggestion: "write the values out or split the policy into files".into(),
            });
        }
        Ok(())
    }

    /// Refuses every tag except the one that says what the node is anyway; tells whether it was there.
    fn check_tag(
        &self,
        tag: Option<&granit_parser::Tag>,
        own: &str,
        position: Position,
    ) -> Result<bool, YamlProblem> {
        match tag {
            None => Ok(false),
            Some(tag) if tag.is_yaml_core_schema_tag(own) => Ok(true),
            Some(tag) => Err(YamlProblem {
                code: Code::YamlTag,
                position,
                message: format!("the tag `{}` is not allowed", shown(&tag.original())),
                suggestion: "remove the tag; quote the value if it is a string".into(),
            }),
        }
    }

    fn start(&mut self, kind: NodeKind<'t>, anchor: usize, position: Position) -> Result<(), YamlProblem> {
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep(position));
        }
        self.expect_one_document()?;
        self.count(1, position)?;
        self.open.push(OpenNode { node: Node { kind, position }, key: None, anchor });
        Ok(())
    }

    /// A node is complete: remembers it under its anchor and hands it to what is open around it.
    fn close(&mut self, node: Node<'t>, anchor: usize) -> Result<(), YamlProblem> {
        if anchor > 0 {
            let weight = Weight::of(&node);
            self.count(weight.nodes, node.position)?;
            self.copy(weight.owned, node.position)?;
            self.anchors.insert(anchor, (node.clone(), weight));
        }
        let position = node.position;
        let entries = match self.open.last_mut() {
            None => {
                self.root = Some(node);
                1
            }
            Some(OpenNode { node: Node { kind: NodeKind::Sequence(entries), .. }, .. }) => {
                entries.push(node);
                entries.len()
            }
            Some(OpenNode { node: Node { kind: NodeKind::Mapping(entries), .. }, key, .. }) => {
                match key.take() {
                    None => *key = Some(node),
                    Some(key) => entries.push((key, node)),
                }
                entries.len()
            }
            // A scalar is never open.
            Some(OpenNode { node: Node { kind: NodeKind::Scalar { .. }, .. }, .. }) => 0,
        };
        if entries > MAX_ENTRIES {
            return Err(YamlProblem {
                code: Code::YamlTooLarge,
                position,
                message: format!("more than {MAX_ENTRIES} entries in one list or mapping"),
                suggestion: "split the policy into several files".into(),
            });
        }
        Ok(())
    }
}

/// Most entries of a vector that is copied to be as small as possible: a longer one is shrunk where it is.
const MAX_SPARE: usize = 32;

/// Takes away the room that a vector does not need. A short one is kept, empty, to be filled again.
fn shrink<T>(entries: &mut Vec<T>, spare: &mut Vec<Vec<T>>) {
    if entries.len() > MAX_SPARE {
        entries.shrink_to_fit();
        return;
    }
    let mut exact = Vec::with_capacity(entries.len());
    exact.append(entries);
    let emptied = std::mem::replace(entries, exact);
    if emptied.capacity() > 0 {
        spare.push(emptied);
    }
}

/// What a node costs when it is copied.
#[derive(Clone, Copy, Default)]
struct Weight {
    nodes: usize,
    /// Of text.
    bytes: usize,
    /// Those of the bytes that a copy of the node has a copy of.
    owned: usize,
}

impl Weight {
    fn of(node: &Node<'_>) -> Self {
        let one = Self { nodes: 1, bytes: node.text().len(), owned: 0 };
        match &node.kind {
            NodeKind::Scalar { text: Cow::Owned(text), .. } => Self { owned: text.len(), ..one },
            NodeKind::Scalar { .. } => one,
            NodeKind::Sequence(entries) => entries.iter().fold(one, |sum, entry| sum.plus(Self::of(entry))),
            NodeKind::Mapping(entries) => {
                entries.iter().fold(one, |sum, (key, value)| sum.plus(Self::of(key)).plus(Self::of(value)))
            }
        }
    }

    const fn plus(self, other: Self) -> Self {
        Self {
            nodes: self.nodes.saturating_add(other.nodes),
            bytes: self.bytes.saturating_add(other.bytes),
            owned: self.owned.saturating_add(other.owned),
        }
    }
}

fn position(span: &Span) -> Position {
    let (start, end) = (&span.start, &span.end);
    let start_byte = narrow(start.byte_offset().unwrap_or_default());
    Position {
        line: narrow(start.line()),
        column: narrow(start.col()).saturating_add(1),
        start: start_byte,
        end: narrow(end.byte_offset().unwrap_or_default()).max(start_byte),
    }
}

fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// YAML 1.2 section 10.3.2.
fn core_schema(text: &str) -> Schema {
    // Nearly all texts are told by how they start.
    if !matches!(
        text.as_bytes().first(),
        None | Some(b'~' | b'n' | b'N' | b't' | b'T' | b'f' | b'F' | b'0'..=b'9' | b'-' | b'+' | b'.')
    ) {
        return Schema::String;
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Schema::Null,
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => Schema::Boolean,
        _ if is_number(text) => Schema::Number,
        _ => Schema::String,
    }
}

fn is_number(text: &str) -> bool {
    if let Some(digits) = text.strip_prefix("0x") {
        return !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return !digits.is_empty() && digits.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let mantissa_is_number = match mantissa.split_once('.') {
        None => !mantissa.is_empty() && digits(mantissa),
        Some((whole, fraction)) => whole.len() + fraction.len() > 0 && digits(whole) && digits(fraction),
    };
    mantissa_is_number && exponent.is_none_or(|exponent| !exponent.is_empty() && digits(exponent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: &str) -> YamlProblem {
        parse(text).expect_err("the text has no tree")
    }

    #[test]
    fn positions_are_one_based_and_span_the_text() {
        let text = "a: [b, \"c d\"]\n\u{e9}: x\n";
        let Some(Node { kind: NodeKind::Mapping(entries), .. }) = parse(text).unwrap().root else {
            panic!("a mapping")
        };
        let NodeKind::Sequence(list) = &entries[0].1.kind else { panic!("a list") };
        let at = list[1].position;
        assert_eq!((at.line, at.column), (1, 8));
        assert_eq!(&text[at.start as usize..at.end as usize], "\"c d\"");
        let at = entries[1].1.position;
        assert_eq!((at.line, at.column), (2, 4));
        assert_eq!(&text[at.start as usize..at.end as usize], "x");
    }

    #[test]
    fn scalars_follow_the_core_schema() {
        for (text, expected) in [
            ("~", Schema::Null),
            ("null", Schema::Null),
            ("true", Schema::Boolean),
            ("yes", Schema::String),
            ("on", Schema::String),
            ("12", Schema::Number),
            ("-1.5e3", Schema::Number),
            ("0x1F", Schema::Number),
            (".inf", Schema::Number),
            ("1.2.3", Schema::String),
            ("e", Schema::String),
            ("1e", Schema::String),
            ("\"12\"", Schema::String),
            ("'null'", Schema::String),
            ("!!str 12", Schema::String),
            ("mcp:read", Schema::String),
        ] {
            let node = parse(text).unwrap().root.unwrap();
            assert!(
                matches!(node.kind, NodeKind::Scalar { schema, .. } if schema == expected),
                "{text}: {node:?}"
            );
        }
    }

    #[test]
    fn comments_and_byte_order_marks_are_no_content() {
        assert_eq!(parse("").unwrap().root, None);
        assert_eq!(parse("# nothing\n").unwrap().root, None);
        let text = "\u{feff}a: b";
        let Some(Node { kind: NodeKind::Mapping(entries), .. }) = parse(text).unwrap().root else {
            panic!("a mapping")
        };
        let at = entries[0].1.position;
        assert_eq!((entries[0].0.text(), &text[at.start as usize..at.end as usize]), ("a", "b"));
    }

    #[test]
    fn an_alias_bomb_is_refused_quickly() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let below = format!("*a{}", level - 1);
            text.push_str(&format!("a{level}: &a{level} [{}]\n", [below.as_str(); 9].join(", ")));
        }
        assert_eq!(refused(&text).code, Code::YamlTooLarge);
    }

    #[test]
    fn aliases_of_a_long_text_are_refused() {
        let long = "x".repeat(1 << 20);
        assert!(parse(&format!("a: &a {long}\nb: [{}]\n", "*a,".repeat(16))).is_ok());
        assert_eq!(refused(&format!("a: &a {long}\nb: [{}]\n", "*a,".repeat(17))).code, Code::YamlTooLarge);
    }

    #[test]
    fn anchors_inside_anchors_are_refused() {
        let list = "x,".repeat(MAX_NODES / 11);
        let nested = |depth: usize| {
            let open: String = (0..depth).map(|level| format!("&a{level} [")).collect();
            format!("{open}{list}{}", "]".repeat(depth))
        };
        assert!(parse(&nested(9)).is_ok(), "the list itself and nine copies");
        assert_eq!(refused(&nested(10)).code, Code::YamlTooLarge);
    }

    #[test]
    fn aliases_within_bounds_work() {
        let node = parse("a: &x [b, c]\nd: *x\n").unwrap().root.unwrap();
        let NodeKind::Mapping(entries) = node.kind else { panic!("a mapping") };
        assert!(matches!(&entries[1].1.kind, NodeKind::Sequence(list) if list.len() == 2));
        assert_eq!(entries[1].1.position.line, 2);
        assert_eq!(refused("a: &x [*x]").code, Code::YamlSyntax);
        assert_eq!(refused("a: *nowhere").code, Code::YamlSyntax);
    }

    #[test]
    fn depth_is_bounded_in_both_styles() {
        assert!(parse(&format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH))).is_ok());
        assert_eq!(refused(&"[".repeat(MAX_DEPTH + 1)).code, Code::YamlTooDeep);
        assert_eq!(refused(&"[".repeat(100_000)).code, Code::YamlTooDeep);
        assert_eq!(refused(&"- ".repeat(1000)).code, Code::YamlTooDeep);
        let block: String = (0..1000).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
        assert_eq!(refused(&block).code, Code::YamlTooDeep);
    }

    #[test]
    fn nodes_are_bounded() {
        assert_eq!(size_of::<Node<'_>>(), 48, "the bound on the size of a tree counts on it");
        let text = format!("[{}]", "[a,b,c,d],".repeat(MAX_NODES / 5));
        let problem = refused(&text);
        assert_eq!(
            (problem.code, &*problem.message),
            (Code::YamlTooLarge, "more than 800000 nodes in one file")
        );
        assert!(parse(&format!("[{}]", "a,".repeat(MAX_ENTRIES))).is_ok());
        for (open, close) in [("[", "]"), ("{", "}")] {
            let problem = refused(&format!("{open}{}{close}", "a,".repeat(MAX_ENTRIES + 1)));
            assert_eq!(problem.message, "more than 160000 entries in one list or mapping");
            assert!(problem.position.column as usize >= 2 + 2 * MAX_ENTRIES, "{:?}", problem.position);
        }
    }

    #[test]
    fn tags_and_second_documents_are_refused() {
        assert_eq!(refused("a: !!binary aGk=").code, Code::YamlTag);
        assert_eq!(refused("a: !own x").code, Code::YamlTag);
        let second = refused("a: b\n---\nc: d\n");
        assert_eq!((second.code, second.position.line), (Code::MultipleDocuments, 2));
        assert!(parse("---\na: b\n...\n").is_ok());
    }

    #[test]
    fn syntax_errors_have_a_place() {
        let problem = refused("a:\n\tb: c\n");
        assert_eq!((problem.code, problem.position.line), (Code::YamlSyntax, 2));
        assert_eq!(refused("a: [b\n").code, Code::YamlSyntax);
    }
}
