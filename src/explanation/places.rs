//! Where in the files a decision has its grounds: from the compiled policy back to file, line and column.
//!
//! Keeps neither texts nor trees, but for everything that an audience declares its position, found by a hash of what is there:
//! some 16 bytes each, so that a server can have this of a large policy too.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use serde::Serialize;

use crate::audience::normalise;
use crate::escape::shown;
use crate::policy::AudiencePolicy;
use crate::policy::document::Document;
use crate::policy::finding::Position;
use crate::policy::format::read::{Mapping, Value};
use crate::scope::ScopeList;

/// The places of everything that the files of a policy declare.
#[derive(Debug, Default)]
pub struct Places {
    audiences: HashMap<Box<str>, AudiencePlaces>,
    guardrails: Option<(SourceName, Spots)>,
}

/// A place in a file.
#[derive(Clone, Debug, Serialize)]
pub struct FilePlace {
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
pub struct ListEntry {
    /// The key of the list or setting.
    pub list: &'static str,
    /// The entry as written.
    pub entry: String,
    /// Where it stands; nowhere if the list was filled in or the setting has its default.
    #[serde(flatten)]
    pub place: Option<FilePlace>,
}

/// A file of the policy.
#[derive(Clone, Debug)]
struct SourceName {
    path: Arc<str>,
    /// A link out of the policy directory leads to it.
    is_outside: bool,
}

/// What one audience declares.
#[derive(Debug)]
struct AudiencePlaces {
    file: SourceName,
    position: (u32, u32),
    spots: Spots,
}

/// Something that is written in the policy.
#[derive(Hash)]
enum Spot<'a> {
    /// The value of a key, by its path.
    Key(&'a str),
    /// An entry of a list.
    Entry(&'a str, &'a str),
    /// A client rule, by its position.
    Rule(usize),
    /// An entry of the baseline of a client rule.
    RuleEntry(usize, &'a str),
}

/// Line and column of spots, sorted by their hashes.
#[derive(Debug, Default)]
struct Spots(Box<[(u64, u32, u32)]>);

/// Where one audience is declared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Declaration<'p> {
    places: &'p Places,
    audience: &'p AudiencePlaces,
}

impl Places {
    /// The places of the documents of a policy, each with whether it is of a file outside of the policy directory. Documents are
    /// taken one after another, so that their trees need not be there together.
    #[must_use]
    pub fn new(documents: impl Iterator<Item = (Document, bool)>) -> Self {
        let mut places = Self::default();
        for (document, is_outside) in documents {
            let file = SourceName { path: Arc::clone(&document.file), is_outside };
            if let Some(guardrails) = document.root.record("guardrails") {
                places.guardrails = Some((file.clone(), Spots::of("guardrails.", guardrails)));
            }
            for (spelled, written) in document.audiences() {
                let Ok(normal) = normalise(&spelled.value) else { continue };
                let position = (spelled.position.line, spelled.position.column);
                let declared = AudiencePlaces { file: file.clone(), position, spots: Spots::of("", written) };
                places.audiences.entry(normal.into()).or_insert(declared);
            }
        }
        places
    }

    /// Where an audience is declared; nowhere if these are not the files of its policy.
    #[must_use]
    pub fn place(&self, policy: &AudiencePolicy) -> Option<FilePlace> {
        self.find(policy).map(|declared| declared.place())
    }

    /// Where a key of an audience is written, by its path; nowhere if it has its default.
    #[must_use]
    pub fn setting(&self, policy: &AudiencePolicy, path: &str) -> Option<FilePlace> {
        self.find(policy)?.setting(path)
    }

    /// Where a client rule of an audience begins, by its position.
    #[must_use]
    pub fn rule(&self, policy: &AudiencePolicy, at: usize) -> Option<FilePlace> {
        self.find(policy)?.rule(at)
    }

    pub(super) fn find(&self, policy: &AudiencePolicy) -> Option<Declaration<'_>> {
        Some(Declaration { places: self, audience: self.audiences.get(policy.normal())? })
    }
}

impl Spots {
    fn of(prefix: &str, mapping: &Mapping) -> Self {
        let mut spots = Vec::new();
        collect(prefix, mapping, &mut spots);
        spots.sort_unstable();
        Self(spots.into())
    }

    fn find(&self, spot: &Spot<'_>) -> Option<(u32, u32)> {
        let hash = hash(spot);
        // Of equal entries the first; there are none in a valid policy.
        let at = self.0.partition_point(|(known, ..)| *known < hash);
        self.0.get(at).filter(|(known, ..)| *known == hash).map(|(_, line, column)| (*line, *column))
    }
}

fn collect(prefix: &str, mapping: &Mapping, spots: &mut Vec<(u64, u32, u32)>) {
    let mut add = |spot: Spot<'_>, at: Position| spots.push((hash(&spot), at.line, at.column));
    for member in &mapping.members {
        let path = format!("{prefix}{}", member.key);
        add(Spot::Key(&path), member.position);
        match &member.value {
            Value::List(list) => {
                for entry in &list.entries {
                    add(Spot::Entry(&path, &entry.value), entry.position);
                }
            }
            Value::Records(rules) => {
                for (at, rule) in rules.iter().enumerate() {
                    add(Spot::Rule(at), rule.text("name").map_or(rule.position, |name| name.position));
                    for entry in rule.entries("baselineClientScopes") {
                        add(Spot::RuleEntry(at, &entry.value), entry.position);
                    }
                }
            }
            _ => {}
        }
    }
    for member in &mapping.members {
        if let Value::Record(record) = &member.value {
            collect(&format!("{prefix}{}.", member.key), record, spots);
        }
    }
}

fn hash(spot: &Spot<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    spot.hash(&mut hasher);
    hasher.finish()
}

impl Declaration<'_> {
    /// Whether a link out of the policy directory leads to the file.
    pub(super) const fn is_outside(&self) -> bool {
        self.audience.file.is_outside
    }

    /// The place of the audience itself.
    pub(super) fn place(&self) -> FilePlace {
        at(&self.audience.file, self.audience.position)
    }

    /// The entry at a position of a list of the audience, by its path; nowhere if the list was filled in.
    pub(super) fn entry(&self, path: &'static str, compiled: &ScopeList, position: usize) -> ListEntry {
        let entry = compiled.get(position).unwrap_or_default();
        ListEntry { list: path, entry: entry.to_owned(), place: self.spot(&Spot::Entry(path, entry)) }
    }

    /// The entry at a position of the baseline of a client rule.
    pub(super) fn of_rule(&self, policy: &AudiencePolicy, rule: usize, position: usize) -> ListEntry {
        let compiled = policy.client_rules.get(rule);
        let entry = compiled.and_then(|rule| rule.baseline_client_scopes.get(position)).unwrap_or_default();
        let place = self.spot(&Spot::RuleEntry(rule, entry));
        ListEntry { list: "clientRules.baselineClientScopes", entry: entry.to_owned(), place }
    }

    /// Where a client rule begins.
    pub(super) fn rule(&self, rule: usize) -> Option<FilePlace> {
        self.spot(&Spot::Rule(rule))
    }

    /// The entry at a position of the folded `forbiddenScopes`.
    pub(super) fn forbidden(&self, policy: &AudiencePolicy, position: usize) -> ListEntry {
        let entry = policy.forbidden_scopes.get(position).unwrap_or_default();
        self.folded("forbiddenScopes", "guardrails.forbiddenScopes", entry)
    }

    /// The entry at a position of the folded `privilegedScopes`.
    pub(super) fn privileged(&self, policy: &AudiencePolicy, position: usize) -> ListEntry {
        let entry = policy.privileged_scopes.get(position).unwrap_or_default();
        self.folded("privilegedScopes", "guardrails.privilegedScopes", entry)
    }

    /// A word that a setting has, and where it is written.
    pub(super) fn choice(&self, path: &'static str, word: &str) -> ListEntry {
        ListEntry { list: path, entry: word.to_owned(), place: self.setting(path) }
    }

    /// The place of a setting, if it was written.
    pub(super) fn setting(&self, path: &str) -> Option<FilePlace> {
        self.spot(&Spot::Key(path))
    }

    fn spot(&self, spot: &Spot<'_>) -> Option<FilePlace> {
        Some(at(&self.audience.file, self.audience.spots.find(spot)?))
    }

    /// An entry that comes from the guardrails, or else from the audience's own list.
    fn folded(&self, own: &'static str, guardrails: &'static str, entry: &str) -> ListEntry {
        let from_guardrails = self.places.guardrails.as_ref().and_then(|(file, spots)| {
            Some((guardrails, at(file, spots.find(&Spot::Entry(guardrails, entry))?)))
        });
        let from_own = || Some((own, self.spot(&Spot::Entry(own, entry))?));
        let (list, place) = from_guardrails.or_else(from_own).unzip();
        ListEntry { list: list.unwrap_or(own), entry: entry.to_owned(), place }
    }
}

fn at(file: &SourceName, (line, column): (u32, u32)) -> FilePlace {
    FilePlace { file: file.path.as_ref().to_owned(), line, column }
}
