//! Where in the files a decision has its grounds: from the compiled policy back to file, line and column.

use std::fmt;

use serde::Serialize;

use crate::audience::normalise;
use crate::escape::shown;
use crate::policy::AudiencePolicy;
use crate::policy::document::Document;
use crate::policy::finding::Position;
use crate::policy::format::read::{List, LocatedText, Mapping};
use crate::scope::ScopeList;
use crate::store::read::SourceFile;

/// The files of a valid policy as data.
#[derive(Debug)]
pub(super) struct Sources {
    documents: Vec<Document>,
}

/// A place in a file.
#[derive(Clone, Debug, Serialize)]
pub(super) struct FilePlace {
    file: String,
    line: u32,
    column: u32,
}

impl fmt::Display for FilePlace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}:{}", shown(&self.file), self.line, self.column)
    }
}

/// One entry of a list of the policy, or the value of a setting.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ListEntry {
    /// The key of the list or setting.
    pub(super) list: &'static str,
    /// The entry as written.
    pub(super) entry: String,
    /// Where it stands; nowhere if the list was filled in or the setting has its default.
    #[serde(flatten)]
    pub(super) place: Option<FilePlace>,
}

/// Where one audience is declared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Declaration<'s> {
    sources: &'s Sources,
    document: &'s Document,
    spelled: &'s LocatedText,
    written: &'s Mapping,
}

impl Sources {
    /// Reads the files of a policy.
    pub(super) fn new(files: &[SourceFile]) -> Self {
        Self { documents: files.iter().map(|file| Document::read(&file.path, &file.text)).collect() }
    }

    /// Where an audience is declared; always somewhere, for an audience of the policy of these files.
    pub(super) fn find(&self, policy: &AudiencePolicy) -> Option<Declaration<'_>> {
        self.documents.iter().find_map(|document| {
            let (spelled, written) = document.audiences().iter().find(|(spelled, _)| {
                normalise(&spelled.value).is_ok_and(|normal| *normal == *policy.normal())
            })?;
            Some(Declaration { sources: self, document, spelled, written })
        })
    }
}

impl<'s> Declaration<'s> {
    /// The file that declares it.
    pub(super) fn file(&self) -> &'s str {
        &self.document.file
    }

    /// The place of the audience itself.
    pub(super) fn place(&self) -> FilePlace {
        self.at(self.spelled.position)
    }

    /// The entry at a position of a list of the audience, by its path; nowhere if the list was filled in.
    pub(super) fn entry(&self, path: &'static str, compiled: &ScopeList, at: usize) -> ListEntry {
        self.own(path, self.written.list(path), compiled, at)
    }

    /// The entry at a position of the baseline of a client rule.
    pub(super) fn of_rule(&self, policy: &AudiencePolicy, rule: usize, at: usize) -> ListEntry {
        let written = self.written.records("clientRules").get(rule);
        let list = written.and_then(|rule| rule.list("baselineClientScopes"));
        static NONE: std::sync::LazyLock<ScopeList> = std::sync::LazyLock::new(ScopeList::default);
        let compiled = policy.client_rules.get(rule).map_or(&*NONE, |rule| &rule.baseline_client_scopes);
        self.own("clientRules.baselineClientScopes", list, compiled, at)
    }

    /// Where a client rule begins.
    pub(super) fn rule(&self, rule: usize) -> Option<FilePlace> {
        let rule = self.written.records("clientRules").get(rule)?;
        Some(self.at(rule.text("name").map_or(rule.position, |name| name.position)))
    }

    /// The entry at a position of the folded `forbiddenScopes`.
    pub(super) fn forbidden(&self, policy: &AudiencePolicy, at: usize) -> ListEntry {
        let entry = policy.forbidden_scopes.get(at).unwrap_or_default();
        self.folded("forbiddenScopes", "guardrails.forbiddenScopes", entry)
    }

    /// The entry at a position of the folded `privilegedScopes`.
    pub(super) fn privileged(&self, policy: &AudiencePolicy, at: usize) -> ListEntry {
        let entry = policy.privileged_scopes.get(at).unwrap_or_default();
        self.folded("privilegedScopes", "guardrails.privilegedScopes", entry)
    }

    /// A word that a setting has, and where it is written.
    pub(super) fn choice(&self, path: &'static str, word: &str) -> ListEntry {
        ListEntry { list: path, entry: word.to_owned(), place: self.setting(path) }
    }

    /// The place of a setting, if it was written.
    pub(super) fn setting(&self, path: &str) -> Option<FilePlace> {
        Some(self.at(self.written.get(path)?.position))
    }

    fn at(&self, position: Position) -> FilePlace {
        place(self.document, position)
    }

    fn own(&self, key: &'static str, list: Option<&List>, compiled: &ScopeList, at: usize) -> ListEntry {
        let entry = compiled.get(at).unwrap_or_default();
        let place = list.and_then(|list| position(list, entry)).map(|position| self.at(position));
        ListEntry { list: key, entry: entry.to_owned(), place }
    }

    /// An entry that comes from the guardrails, or else from the audience's own list.
    fn folded(&self, own: &'static str, guardrails: &'static str, entry: &str) -> ListEntry {
        let from_guardrails = self.sources.documents.iter().find_map(|document| {
            Some((guardrails, place(document, position(document.root.list(guardrails)?, entry)?)))
        });
        let from_own = || Some((own, self.at(position(self.written.list(own)?, entry)?)));
        let (list, place) = from_guardrails.or_else(from_own).unzip();
        ListEntry { list: list.unwrap_or(own), entry: entry.to_owned(), place }
    }
}

fn position(list: &List, entry: &str) -> Option<Position> {
    list.entries.iter().find(|text| *text.value == *entry).map(|text| text.position)
}

fn place(document: &Document, position: Position) -> FilePlace {
    FilePlace { file: document.file.as_ref().to_owned(), line: position.line, column: position.column }
}
