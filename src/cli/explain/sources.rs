//! Where in the files a decision has its grounds: from the compiled policy back to file, line and column.

use std::fmt;

use serde::Serialize;

use crate::audience::normalise;
use crate::policy::AudiencePolicy;
use crate::policy::document::{AudienceDocument, Document, List};
use crate::policy::finding::{Position, shown};
use crate::scope::ScopeList;
use crate::store::read::SourceFile;

/// The files of a valid policy as data.
#[derive(Debug)]
pub(super) struct Sources {
    documents: Vec<Document>,
}

/// A place in a file.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Place {
    file: String,
    line: u32,
    column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}:{}", shown(&self.file), self.line, self.column)
    }
}

/// One entry of a list of the policy.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Entry {
    /// The key of the list.
    pub(super) list: &'static str,
    /// The entry as written.
    pub(super) entry: String,
    /// Where it stands; nowhere if the list was filled in.
    #[serde(flatten)]
    pub(super) place: Option<Place>,
}

/// Where one audience is declared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Declared<'s> {
    sources: &'s Sources,
    document: &'s Document,
    audience: &'s AudienceDocument,
}

impl Sources {
    /// Reads the files of a policy.
    pub(super) fn new(files: &[SourceFile]) -> Self {
        Self { documents: files.iter().map(|file| Document::read(&file.path, &file.text)).collect() }
    }

    /// Where an audience is declared; always somewhere, for an audience of the policy of these files.
    pub(super) fn find(&self, policy: &AudiencePolicy) -> Option<Declared<'_>> {
        self.documents.iter().find_map(|document| {
            let audience = document.audiences.iter().find(|declared| {
                normalise(&declared.audience.value).is_ok_and(|normal| *normal == *policy.normal())
            })?;
            Some(Declared { sources: self, document, audience })
        })
    }
}

impl<'s> Declared<'s> {
    /// The place of the audience itself.
    pub(super) fn place(&self) -> Place {
        self.at(self.audience.audience.position)
    }

    /// The entry at a position of `scopesSupported`.
    pub(super) fn supported(&self, policy: &AudiencePolicy, at: usize) -> Entry {
        self.own("scopesSupported", self.audience.scopes_supported.as_ref(), &policy.scopes_supported, at)
    }

    /// The entry at a position of `baselineClientScopes`.
    pub(super) fn baseline(&self, policy: &AudiencePolicy, at: usize) -> Entry {
        let list = self.audience.baseline_client_scopes.as_ref();
        self.own("baselineClientScopes", list, &policy.baseline_client_scopes, at)
    }

    /// The entry at a position of `defaultClientScopes`; nowhere if the list was filled in.
    pub(super) fn default(&self, policy: &AudiencePolicy, at: usize) -> Entry {
        let list = self.audience.default_client_scopes.as_ref();
        self.own("defaultClientScopes", list, &policy.default_client_scopes, at)
    }

    /// The entry at a position of `authorization.stepUpScopes`.
    pub(super) fn step_up(&self, policy: &AudiencePolicy, at: usize) -> Entry {
        let list = self.audience.step_up_scopes.as_ref();
        self.own("authorization.stepUpScopes", list, &policy.step_up_scopes, at)
    }

    /// The entry at a position of the baseline of a client rule.
    pub(super) fn of_rule(&self, policy: &AudiencePolicy, rule: usize, at: usize) -> Entry {
        let document = self.audience.client_rules.get(rule);
        let list = document.and_then(|rule| rule.baseline_client_scopes.as_ref());
        static NONE: std::sync::LazyLock<ScopeList> = std::sync::LazyLock::new(ScopeList::default);
        let compiled = policy.client_rules.get(rule).map_or(&*NONE, |rule| &rule.baseline_client_scopes);
        self.own("clientRules.baselineClientScopes", list, compiled, at)
    }

    /// Where a client rule begins.
    pub(super) fn rule(&self, rule: usize) -> Option<Place> {
        let rule = self.audience.client_rules.get(rule)?;
        Some(self.at(rule.name.as_ref().map_or(rule.position, |name| name.position)))
    }

    /// The entry at a position of the folded `forbiddenScopes`.
    pub(super) fn forbidden(&self, policy: &AudiencePolicy, at: usize) -> Entry {
        let own = self.audience.forbidden_scopes.as_ref();
        self.folded(
            ("forbiddenScopes", own),
            |document| {
                Some(("guardrails.forbiddenScopes", document.guardrails.as_ref()?.forbidden_scopes.as_ref()?))
            },
            policy.forbidden_scopes.get(at).unwrap_or_default(),
        )
    }

    /// The entry at a position of the folded `privilegedScopes`.
    pub(super) fn privileged(&self, policy: &AudiencePolicy, at: usize) -> Entry {
        let own = self.audience.privileged_scopes.as_ref();
        self.folded(
            ("privilegedScopes", own),
            |document| {
                let list = document.guardrails.as_ref()?.privileged_scopes.as_ref()?;
                Some(("guardrails.privilegedScopes", list))
            },
            policy.privileged_scopes.get(at).unwrap_or_default(),
        )
    }

    /// The place of a setting, if it was written.
    pub(super) fn setting(&self, key: &str) -> Option<Place> {
        let audience = self.audience;
        let position = match key {
            "registration.unsupportedScopes" => audience.registration_unsupported_scopes?.position,
            "authorization.unsupportedScopes" => audience.unsupported_scopes?.position,
            "authorization.unregisteredScopes" => audience.unregistered_scopes?.position,
            "authorization.omittedScope" => audience.omitted_scope?.position,
            "authorization.unknownRegistration" => audience.unknown_registration?.position,
            "authorization.baselineForExistingClients" => audience.baseline_for_existing_clients?.position,
            "scopeMatching" => audience.scope_matching?.position,
            _ => return None,
        };
        Some(self.at(position))
    }

    fn at(&self, position: Position) -> Place {
        place(self.document, position)
    }

    fn own(&self, key: &'static str, list: Option<&List>, compiled: &ScopeList, at: usize) -> Entry {
        let entry = compiled.get(at).unwrap_or_default();
        let place = list.and_then(|list| position(list, entry)).map(|position| self.at(position));
        Entry { list: key, entry: entry.to_owned(), place }
    }

    /// An entry that comes from the guardrails, or else from the audience's own list.
    fn folded(
        &self,
        own: (&'static str, Option<&List>),
        guardrails: impl Fn(&'s Document) -> Option<(&'static str, &'s List)>,
        entry: &str,
    ) -> Entry {
        let from_guardrails = self.sources.documents.iter().find_map(|document| {
            let (key, list) = guardrails(document)?;
            Some((key, place(document, position(list, entry)?)))
        });
        let (key, list) = own;
        let own = || Some((key, self.at(position(list?, entry)?)));
        let (list, place) = from_guardrails.or_else(own).unzip();
        Entry { list: list.unwrap_or(key), entry: entry.to_owned(), place }
    }
}

fn position(list: &List, entry: &str) -> Option<Position> {
    list.entries.iter().find(|text| *text.value == *entry).map(|text| text.position)
}

fn place(document: &Document, position: Position) -> Place {
    Place { file: document.file.as_ref().to_owned(), line: position.line, column: position.column }
}
