//! Policy files inside a Kubernetes ConfigMap manifest, with positions in the manifest.
//!
//! A policy that runs in a cluster is often reviewed as a manifest: `data` holds the files of the
//! folder as texts. Each of them is read like a file of its own; what is found in it is said where it
//! stands in the manifest. Other objects in the same file are left alone.

use std::sync::Arc;

use super::document::Document;
use super::finding::{Code, Finding, Findings, Position, value};
use super::yaml::{self, Aliases, Node, NodeKind, Schema, Tree, YamlProblem};
use crate::escape::shown;

/// Reads every policy file that the ConfigMaps of a manifest hold, in the order of the manifest.
///
/// A key of `data` is a policy file as in a folder: it ends in `.yaml` or `.yml`, but not in
/// `_test.yaml` or `_test.yml`, and does not start with a dot. In a literal block (`|`) each position
/// is exact, elsewhere (quoted, folded) it is that of the whole value. `None` if the text has no
/// ConfigMap: it is to be read as a policy file then. An empty list if no key is one of a policy.
#[must_use]
pub fn read(file: &Arc<str>, text: &str) -> Option<Vec<Document>> {
    let mut documents = Vec::new();
    let mut is_manifest = false;
    for part in parts(text) {
        let mut tree = yaml::parse(part.text);
        relocate(&mut tree, &|position| part.position(position));
        match tree {
            Ok(Tree { root: Some(root), .. })
                if field(&root, "kind").is_some_and(|kind| kind.text() == "ConfigMap") =>
            {
                is_manifest = true;
                config_map(file, text, &root, &mut documents);
            }
            Ok(_) => {}
            // What cannot be read may have been a ConfigMap.
            Err(problem) => documents.push(Document::from_tree(file, Err(problem))),
        }
    }
    is_manifest.then_some(documents)
}

/// One YAML document of a file.
struct ManifestDocument<'t> {
    text: &'t str,
    /// Its first byte and how many lines stand before it.
    start: u32,
    lines: u32,
}

impl ManifestDocument<'_> {
    fn position(&self, position: Position) -> Position {
        let Position { line, column, start, end } = position;
        Position { line: line + self.lines, column, start: start + self.start, end: end + self.start }
    }
}

/// Splits a file at its document markers. YAML 1.2.2 section 9.1.2: `---` at the start of a line is a
/// marker wherever it stands, also inside a block scalar.
fn parts(text: &str) -> Vec<ManifestDocument<'_>> {
    let mut parts = Vec::new();
    let (mut from, mut lines_before) = (0, 0);
    let (mut at, mut line) = (0, 0);
    for piece in text.split_inclusive('\n') {
        let is_marker = piece
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if is_marker && at > from {
            parts.push(ManifestDocument {
                text: text.get(from..at).unwrap_or_default(),
                start: narrow(from),
                lines: lines_before,
            });
            (from, lines_before) = (at, line);
        }
        at += piece.len();
        line += 1;
    }
    parts.push(ManifestDocument {
        text: text.get(from..).unwrap_or_default(),
        start: narrow(from),
        lines: lines_before,
    });
    parts
}

fn config_map(file: &Arc<str>, text: &str, root: &Node<'_>, documents: &mut Vec<Document>) {
    let Some(Node { kind: NodeKind::Mapping(entries), .. }) = field(root, "data") else { return };
    for (key, node) in entries {
        if !is_policy_key(key.text()) {
            continue;
        }
        let NodeKind::Scalar { text: content, schema: Schema::String } = &node.kind else {
            documents.push(wrong_type(file, key, node));
            continue;
        };
        let block = Block::find(text, key, content);
        let place = |position: Position| match &block {
            Some(block) => block.position(position),
            None => node.position,
        };
        let mut tree = yaml::parse(content);
        relocate(&mut tree, &place);
        if let (None, Ok(tree)) = (&block, &mut tree) {
            // All is in one place, so nothing tells what came through an alias.
            tree.aliases = Aliases::default();
        }
        let mut document = Document::from_tree(file, tree);
        document.findings.update(|finding| {
            if finding.position.line == 0 {
                finding.position = key.position;
            }
        });
        documents.push(document);
    }
}

fn wrong_type(file: &Arc<str>, key: &Node<'_>, node: &Node<'_>) -> Document {
    let mut document = Document::from_tree(file, Ok(Tree::default()));
    document.unreadable = true;
    document.findings = Findings::from_iter([Finding {
        code: Code::WrongType,
        file: Arc::clone(file),
        position: node.position,
        audience: String::new(),
        value: value(node.text()),
        message: format!("`{}` needs a string, not {}", shown(key.text()), node.describe()),
        suggestion: "write the policy as a literal block: `|`".to_owned(),
    }]);
    document
}

/// As in a folder; a key has no folder in front.
fn is_policy_key(key: &str) -> bool {
    let stem = key.strip_suffix(".yaml").or_else(|| key.strip_suffix(".yml"));
    stem.is_some_and(|stem| !stem.ends_with("_test")) && !key.starts_with('.')
}

fn field<'n, 't>(node: &'n Node<'t>, key: &str) -> Option<&'n Node<'t>> {
    let NodeKind::Mapping(entries) = &node.kind else { return None };
    entries.iter().find(|(name, _)| name.text() == key).map(|(_, value)| value)
}

/// Moves every position of a tree, or that of the reason why there is none.
fn relocate(tree: &mut Result<Tree<'_>, YamlProblem>, place: &impl Fn(Position) -> Position) {
    match tree {
        Ok(Tree { root, aliases }) => {
            if let Some(root) = root {
                relocate_node(root, place);
            }
            aliases.relocate(place);
        }
        Err(problem) => problem.position = place(problem.position),
    }
}

fn relocate_node(node: &mut Node<'_>, place: &impl Fn(Position) -> Position) {
    node.position = place(node.position);
    match &mut node.kind {
        NodeKind::Scalar { .. } => {}
        NodeKind::Sequence(entries) => entries.iter_mut().for_each(|entry| relocate_node(entry, place)),
        NodeKind::Mapping(entries) => {
            for (key, value) in entries {
                relocate_node(key, place);
                relocate_node(value, place);
            }
        }
    }
}

/// Where the lines of a literal block stand.
struct Block {
    /// The line of the `|`, 1-based.
    header: u32,
    indent: u32,
    /// For each line of the content its first byte there and its first byte in the manifest, without
    /// the indentation.
    lines: Vec<(u32, u32)>,
}

impl Block {
    /// The literal block behind a key; `None` if the value is written in another way.
    fn find(text: &str, key: &Node<'_>, content: &str) -> Option<Self> {
        let behind = key.position.end as usize;
        let header = text.get(behind..)?.split_inclusive('\n').next()?;
        let mut words = header.trim_start().strip_prefix(':')?.split_whitespace();
        let style = words.find(|word| !word.starts_with(['&', '!']))?;
        if !style.starts_with('|') {
            return None;
        }
        let mut at = behind + header.len();
        let mut indent = None;
        let (mut lines, mut content_at) = (Vec::new(), 0);
        let mut source = text.get(at..)?.split_inclusive('\n');
        for line in content.split_inclusive('\n') {
            let inside = line.trim_end_matches('\n');
            let Some(written) = source.next() else {
                // Lines beyond the text are empty ones that the block keeps.
                break;
            };
            let bare = written.trim_end_matches(['\n', '\r']);
            if indent.is_none() && !inside.is_empty() {
                let spaces = bare.strip_suffix(inside)?;
                indent = spaces.bytes().all(|byte| byte == b' ').then_some(spaces.len());
            }
            let before = indent.unwrap_or(bare.len()).min(bare.len());
            if bare.get(before..) != Some(inside) {
                return None;
            }
            lines.push((narrow(content_at), narrow(at + before)));
            content_at += line.len();
            at += written.len();
        }
        Some(Self { header: key.position.line, indent: narrow(indent?), lines })
    }

    fn position(&self, position: Position) -> Position {
        if position.line == 0 {
            return position;
        }
        let byte = |inside: u32| {
            let line = self.lines.partition_point(|(content, _)| *content <= inside).checked_sub(1);
            let found = line.and_then(|line| self.lines.get(line));
            found.map_or(inside, |(content, manifest)| manifest + (inside - content))
        };
        let Position { line, column, start, end } = position;
        // The end of a node may be the start of the next line; it stays on its own.
        let last = if end > start { byte(end - 1) + 1 } else { byte(end) };
        Position { line: self.header + line, column: column + self.indent, start: byte(start), end: last }
    }
}

fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::check::check;
    use super::*;

    const FILE: &str = "deploy/policy.yaml";

    /// The findings as `line:column Code "underlined text"`.
    fn findings(text: &str) -> Vec<String> {
        let documents = read(&FILE.into(), text).expect("a manifest");
        let findings = match check(&FILE.into(), &documents) {
            Ok(accepted) => accepted.warnings,
            Err(findings) => findings,
        };
        let brief = |finding: &Finding| {
            let Position { line, column, start, end } = finding.position;
            assert_eq!(&*finding.file, FILE);
            if line > 0 {
                let before = &text[..start as usize];
                assert_eq!(before.matches('\n').count() + 1, line as usize, "{finding:?}");
                let in_line = before.rsplit('\n').next().unwrap();
                assert_eq!(in_line.chars().count() + 1, column as usize, "{finding:?}");
            }
            format!("{line}:{column} {} {:?}", finding.code.as_str(), &text[start as usize..end as usize])
        };
        let is_wrong = |finding: &&Finding| finding.is_error() || finding.code == Code::EmptyFile;
        findings.iter().filter(is_wrong).map(brief).collect()
    }

    #[test]
    fn positions_in_literal_blocks_are_exact() {
        let text = "\
apiVersion: v1
kind: ConfigMap
metadata: {name: scopeward-policy}
data:
  mcp.yaml: |
    # größe

    audiences:
      https://mcp.example.com:
        scopesSupported: [openid]
        baselineClientScopes:
          - öl
          - offline_access
  other.yml: |2-
      audiences: {api: {scopesSuported: [a]}}
  notes.txt: 'no: [policy'
  mcp_test.yaml: |
    tests: [
";
        assert_eq!(
            findings(text),
            [
                "12:13 ScopeMalformed \"öl\"",
                "13:13 BaselineScopeNotSupported \"offline_access\"",
                "15:25 UnknownKey \"scopesSuported\"",
            ]
        );
    }

    #[test]
    fn positions_survive_carriage_returns() {
        let text = "kind: ConfigMap\r\ndata:\r\n  a.yaml: |\r\n    audiences:\r\n      api:\r\n        \
                    scopesSupported: [a]\r\n        color: red\r\n";
        assert_eq!(findings(text), ["7:9 UnknownKey \"color\""]);
    }

    #[test]
    fn values_in_other_styles_are_named_as_a_whole() {
        let text = "kind: ConfigMap\ndata:\n  a.yaml: \"audiences: {api: {color: red}}\\n\"\n  \
                    b.yaml: >\n    audiences: {b: {\n    scopesSupported: []}}\n";
        let found = findings(text);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[..2].iter().all(|line| line.starts_with("3:11 ")), "{found:?}");
        assert!(found[0].ends_with(r#""\"audiences: {api: {color: red}}\\n\"""#), "{found:?}");
        assert!(found[2].contains("EmptyValue"), "{found:?}");
    }

    #[test]
    fn broken_policies_inside_are_reported_where_they_break() {
        let text = "kind: ConfigMap\ndata:\n  a.yaml: |\n    audiences:\n    \tx: y\n";
        assert_eq!(findings(text), ["5:6 YamlSyntax \"\""]);
        let text = "kind: ConfigMap\ndata:\n  a.yaml: |\n    audiences: {a: {scopesSupported: [b]}}\n    ---\n    x: y\n";
        assert_eq!(findings(text), ["5:5 MultipleDocuments \"---\""]);
        assert_eq!(findings("kind: ConfigMap\ndata:\n  a.yaml: 12\n"), ["3:11 WrongType \"12\""]);
        let empty = findings("kind: ConfigMap\ndata:\n  a.yaml: |\n    # nothing\n");
        assert_eq!(empty, ["0:0 NoAudience \"\"", "3:3 EmptyFile \"a.yaml\""].map(str::to_owned));
    }

    #[test]
    fn other_objects_of_the_file_are_left_alone() {
        let text = "# policy\n---\nkind: Deployment\nspec: {}\n---\nkind: ConfigMap\ndata:\n  a.yaml: |\n    \
                    audiences:\n      api: {scopesSupported: [a], color: b}\n--- # end\nkind: Service\n";
        assert_eq!(findings(text), ["10:35 UnknownKey \"color\""]);
    }

    #[test]
    fn two_files_of_one_manifest_are_one_set() {
        let text = "kind: ConfigMap\ndata:\n  a.yaml: |\n    audiences: {api: {scopesSupported: [a]}}\n  b.yaml: |\n    \
                    audiences: {api: {scopesSupported: [a]}}\n";
        assert_eq!(findings(text), ["6:17 DuplicateAudience \"api\""]);
    }

    #[test]
    fn a_broken_object_beside_a_config_map_is_reported() {
        let text =
            "kind: ConfigMap\ndata:\n  a.yaml: |\n    audiences: {api: {scopesSupported: [a]}}\n---\na: [\n";
        let found = findings(text);
        assert!(found.len() == 1 && found[0].contains("YamlSyntax"), "{found:?}");
    }

    #[test]
    fn policy_files_and_other_manifests_are_no_config_maps() {
        for text in [
            "",
            "audiences: {}",
            "kind: Secret\ndata: {a.yaml: x}",
            "- kind: ConfigMap",
            "a: [",
            "kind: [ConfigMap]",
        ] {
            assert!(read(&FILE.into(), text).is_none(), "{text}");
        }
        assert_eq!(read(&FILE.into(), "kind: ConfigMap").map(|documents| documents.len()), Some(0));
        assert_eq!(
            read(&FILE.into(), "kind: ConfigMap\ndata: {.a.yaml: x}").map(|found| found.len()),
            Some(0)
        );
    }
}
