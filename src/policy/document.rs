//! One policy file as data: everything that is written in it, with positions, nothing judged but its
//! shape.
//!
//! The shape is that of [`super::keys`]; the rules are in [`super::check`].

use std::sync::Arc;

use super::finding::{Code, Findings, Position};
use super::format::read::{DocumentReader, LocatedText, Mapping, Member};
use super::keys::{FORMAT, POLICY};
use super::outline::Outline;
use super::yaml::{self, Aliases, NodeKind, Tree};

/// One policy file.
#[derive(Clone, Debug)]
pub struct Document {
    /// Path of the file as found.
    pub file: Arc<str>,
    /// The mapping at its top; nothing if there is none.
    pub root: Mapping,
    /// What is wrong with the shape of the file.
    pub findings: Findings,
    /// Everything that is written in it.
    pub outline: Outline,
    /// Where findings are that are written elsewhere in the file.
    pub(super) aliases: Aliases,
    /// The file is so broken that what it would declare is unknown.
    pub unreadable: bool,
}

impl Document {
    /// Reads one file. Never fails: what is wrong is in `findings`, in file order.
    #[must_use]
    pub fn read(file: &Arc<str>, text: &str) -> Self {
        Self::from_tree(file, yaml::parse(text))
    }

    /// Reads the tree of a file, or reports why there is none.
    pub(super) fn from_tree(file: &Arc<str>, tree: Result<Tree<'_>, yaml::YamlProblem>) -> Self {
        let mut reader = DocumentReader::new(file, Some(&FORMAT));
        let mut root = Mapping::default();
        let mut outline = Outline::default();
        let mut aliases = Aliases::default();
        let mut unreadable = false;
        match tree {
            Err(problem) => {
                reader.report(problem.code, problem.position, "", problem.message, problem.suggestion);
                unreadable = true;
            }
            Ok(Tree { root: None, .. }) => reader.report(
                Code::EmptyFile,
                Position::default(),
                "",
                "the file has no content",
                "declare `audiences` or delete the file",
            ),
            Ok(Tree { root: Some(node), aliases: found }) => {
                aliases = found;
                unreadable = !matches!(node.kind, NodeKind::Mapping(_));
                outline = Outline::of(&node);
                root = reader.root(node, &POLICY);
            }
        }
        unreadable |= reader.is_incomplete;
        Self { file: Arc::clone(file), root, findings: reader.findings, outline, aliases, unreadable }
    }

    /// `audiences`, in file order, duplicates kept.
    #[must_use]
    pub fn audiences(&self) -> &[(LocatedText, Mapping)] {
        self.root.each("audiences")
    }

    /// `guardrails`.
    #[must_use]
    pub fn guardrails(&self) -> Option<&Member> {
        self.root.get("guardrails")
    }
}
