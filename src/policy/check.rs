//! The rules of a policy: documents become a [`PolicySet`], or every finding is reported.
//!
//! Works in two steps so that an unchanged file need not be looked at again: [`check_document`] judges
//! one file under the guardrails of the set, [`assemble`] judges what concerns several files and puts
//! the set together. Nothing is corrected silently and nothing stops at the first finding.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::document::Document;
use super::finding::{self, AcceptedWarnings, Code, Finding, Findings, Position, nearest};
use super::format::read::{List, LocatedText, Member};
use super::index::AudienceIndex;
use super::outline::{Outline, Outlines};
use super::yaml::Aliases;
use super::{Alias, AudiencePolicy, MAX_BASELINE_CLIENT_SCOPES, MAX_REGISTRATION_AUDIENCES, PolicySet};
use crate::audience::{normalise, without_query};
use crate::escape::shown;
use crate::scope::{ScopeList, check_token};

mod audience;
mod compose;
mod file;
mod shared_parts;
mod warning;

pub use compose::PreviousSet;
pub use file::{check_document, check_text};

/// What holds for every audience of the set.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Guardrails {
    forbidden_scopes: ScopeList,
    privileged_scopes: ScopeList,
    max_baseline_client_scopes: usize,
    /// Their file is outside of the policy directory, and not to be quoted.
    is_outside: bool,
}

impl Default for Guardrails {
    fn default() -> Self {
        Self {
            forbidden_scopes: ScopeList::default(),
            privileged_scopes: ScopeList::default(),
            max_baseline_client_scopes: MAX_BASELINE_CLIENT_SCOPES,
            is_outside: false,
        }
    }
}

impl Guardrails {
    /// The guardrails of a set: those of the first file by name that has any (a second one is a finding).
    #[must_use]
    pub fn of<'d>(documents: impl IntoIterator<Item = &'d Document>) -> Self {
        // By name: the order in which files are found has no meaning.
        documents
            .into_iter()
            .filter_map(|document| Some((&document.file, document.guardrails()?)))
            .min_by_key(|(file, _)| *file)
            .map(|(_, guardrails)| Self::new(guardrails, false))
            .unwrap_or_default()
    }

    /// Takes the valid part of a document's guardrails; of a file outside of the policy directory no finding
    /// quotes an entry.
    #[must_use]
    pub fn new(guardrails: &Member, is_outside: bool) -> Self {
        let Some(guardrails) = guardrails.record() else { return Self::default() };
        let valid = |key: &str| {
            let entries = guardrails.entries(key).map(|entry| &*entry.value);
            ScopeList::new(entries.filter(|scope| check_token(scope).is_ok()))
        };
        let max = guardrails.number("maxBaselineClientScopes").map_or(usize::MAX, |max| max.value as usize);
        Self {
            forbidden_scopes: valid("forbiddenScopes"),
            privileged_scopes: valid("privilegedScopes"),
            max_baseline_client_scopes: max.min(MAX_BASELINE_CLIENT_SCOPES),
            is_outside,
        }
    }
}

/// One file, judged under the guardrails of its set.
#[derive(Clone, Debug)]
pub struct CheckedDocument {
    /// Path of the file as found.
    pub file: Arc<str>,
    /// What is wrong within the file, in file order.
    pub findings: Findings,
    /// What is doubtful in it and not accepted, should the set be valid; in file order.
    pub warnings: Findings,
    /// The guardrails that it declares.
    pub guardrails: Option<Member>,
    /// Warnings that it does not have, although there is cause for them.
    accepted: AcceptedWarnings,
    declared: Vec<DeclaredAudience>,
    /// None of its audiences has a name that is easily taken for another one, see [`warning::is_plain`].
    is_plain: bool,
    default_audience: Option<LocatedText>,
    registration_audiences: Option<List>,
    outline: Outline,
    aliases: Aliases,
    unreadable: bool,
}

/// An audience of a file. There may be a million of them, so it is small.
#[derive(Clone, Debug)]
struct DeclaredAudience {
    position: Position,
    /// `aliases` as written, if there are any.
    aliases: Option<Box<List>>,
    policy: Result<Arc<AudiencePolicy>, Box<Invalid>>,
}

/// An audience of a file with errors: known by name only.
#[derive(Clone, Debug)]
struct Invalid {
    audience: Box<str>,
    normal: Option<Box<str>>,
    aliases: Box<[Alias]>,
    ignore_query: bool,
}

impl DeclaredAudience {
    /// Keeps only the names of a compiled audience.
    fn forget(&mut self) {
        if let Ok(policy) = &self.policy {
            self.policy = Err(Box::new(Invalid {
                audience: policy.audience.clone(),
                normal: Some(policy.normal().into()),
                aliases: policy.aliases.clone(),
                ignore_query: policy.ignore_query,
            }));
        }
    }

    /// Where one of its aliases is written.
    fn alias_position(&self, spelled: &str) -> Option<Position> {
        let entries = &self.aliases.as_ref()?.entries;
        entries.iter().find(|alias| *alias.value == *spelled).map(|alias| alias.position)
    }

    fn audience(&self) -> &str {
        match &self.policy {
            Ok(policy) => &policy.audience,
            Err(invalid) => &invalid.audience,
        }
    }

    fn normal(&self) -> Option<&str> {
        match &self.policy {
            Ok(policy) => Some(policy.normal()),
            Err(invalid) => invalid.normal.as_deref(),
        }
    }

    fn ignores_query(&self) -> bool {
        match &self.policy {
            Ok(policy) => policy.ignore_query,
            Err(invalid) => invalid.ignore_query,
        }
    }

    /// Everything that the audience is called, with its normal form, the audience itself first.
    fn names(&self) -> impl Iterator<Item = (&str, &str)> {
        let aliases = match &self.policy {
            Ok(policy) => &policy.aliases,
            Err(invalid) => &invalid.aliases,
        };
        let own = self.normal().map(|normal| (self.audience(), normal));
        own.into_iter().chain(aliases.iter().map(|alias| (&*alias.spelled, &*alias.normal)))
    }
}

/// A valid policy set and what its authors should still look at.
#[derive(Debug)]
pub struct Accepted {
    /// The set.
    pub set: PolicySet,
    /// Warnings only, by file and position.
    pub warnings: Findings,
    /// Everything that is written in its documents.
    pub outlines: Outlines,
}

/// Judges a set of documents: reads the guardrails, then each document, then the whole.
///
/// `source` names the set in findings that belong to no file.
///
/// # Errors
/// Every finding, warnings included, by file and position, if at least one is an error.
pub fn check(source: &Arc<str>, documents: &[Document]) -> Result<Accepted, Findings> {
    let guardrails = Guardrails::of(documents);
    let checked = documents.iter().map(|document| {
        check_document(document.clone(), &guardrails, AcceptedWarnings::NONE, Findings::new())
    });
    let checked: Vec<_> = checked.collect();
    assemble(source, &checked, [], &HashSet::new(), AcceptedWarnings::NONE, None)
}

/// Puts judged documents together to a set.
///
/// `source` names the set; `others` are findings from elsewhere, such as files that could not be read: errors among
/// them make the set incomplete. Of the files in `outside`, findings of other files quote nothing. Warnings about the
/// set of the `allowed` codes, and those that a document accepts, are left out. A set that shares documents with a
/// `previous` one takes much less time, and is the same.
///
/// # Errors
/// Every finding, warnings included, by file and position, if at least one is an error.
pub fn assemble<'d>(
    source: &Arc<str>,
    documents: impl IntoIterator<Item = &'d CheckedDocument>,
    others: impl IntoIterator<Item = Finding>,
    outside: &HashSet<&str>,
    allowed: AcceptedWarnings,
    previous: Option<&PreviousSet<'_>>,
) -> Result<Accepted, Findings> {
    let mut documents: Vec<&CheckedDocument> = documents.into_iter().collect();
    // The order in which files are found has no meaning.
    documents.sort_by(|one, other| one.file.cmp(&other.file));
    let accepted = documents.iter().fold(allowed, |accepted, document| accepted.and(document.accepted));
    let is_listed = |finding: &Finding| !accepted.contains(finding.code);
    let mut findings: Findings = others.into_iter().filter(is_listed).collect();
    // What an unreadable file declares is unknown: "not declared" would be a guess.
    let complete = findings.error_count() == 0 && documents.iter().all(|document| !document.unreadable);
    for document in &documents {
        findings.append(&document.findings);
    }

    let (set, twins) = match compose::compose(&documents, previous).filter(|_| findings.error_count() == 0) {
        Some(set) => (set, Vec::new()),
        None => judge(source, &documents, outside, complete, &mut findings)?,
    };
    for document in &documents {
        findings.append(&document.warnings);
    }
    findings.extend(warning::of_set(source, &set).into_iter().filter(is_listed));
    findings.extend(warning::of_guardrails(&documents, outside));
    findings.extend(twins);
    findings.sort();
    let outlines = documents.iter().map(|document| document.outline.clone()).collect();
    Ok(Accepted { set, warnings: findings, outlines })
}

/// Puts documents together to a set, and finds all that is wrong between them, or looks like it: the warnings are returned.
///
/// # Errors
/// Every finding, the given ones included, if at least one is an error.
fn judge<'d>(
    source: &Arc<str>,
    documents: &[&'d CheckedDocument],
    outside: &'d HashSet<&'d str>,
    complete: bool,
    findings: &mut Findings,
) -> Result<(PolicySet, Vec<Finding>), Findings> {
    let count = documents.iter().map(|document| document.declared.len()).sum();
    let mut names = NameOwners::of(documents, count, outside);
    let mut policies = Vec::with_capacity(count);
    let mut guardrails: Option<&CheckedDocument> = None;
    let mut default_audience: Option<(&CheckedDocument, &LocatedText)> = None;
    let mut registration_audiences: Option<(&CheckedDocument, &List)> = None;
    for document in documents {
        for declared in &document.declared {
            if names.declare(document, declared, findings) {
                policies.extend(declared.policy.as_ref().ok().map(Arc::clone));
            }
        }
        if let Some(own) = &document.guardrails {
            match guardrails {
                None => guardrails = Some(document),
                Some(original) => findings.push(in_file(
                    Code::DuplicateGuardrails,
                    document,
                    own.key_position,
                    "guardrails",
                    format!("`guardrails` are set in `{}` already", shown(&original.file)),
                    "keep all guardrails in one file".to_owned(),
                )),
            }
        }
        if let Some(own) = &document.default_audience {
            match default_audience {
                None => default_audience = Some((document, own)),
                Some((original, _)) => findings.push(in_file(
                    Code::DuplicateDefaultAudience,
                    document,
                    own.position,
                    &own.value,
                    format!("`defaultAudience` is set in `{}` already", shown(&original.file)),
                    "set it in one file".to_owned(),
                )),
            }
        }
        if let Some(own) = &document.registration_audiences {
            match registration_audiences {
                None => registration_audiences = Some((document, own)),
                Some((original, _)) => findings.push(in_file(
                    Code::DuplicateRegistrationAudiences,
                    document,
                    own.position,
                    "",
                    format!("`registrationAudiences` is set in `{}` already", shown(&original.file)),
                    "set it in one file".to_owned(),
                )),
            }
        }
    }

    let references = References { names: &names, complete };
    let default_audience = default_audience.and_then(|(document, text)| {
        let code = Code::DefaultAudienceNotDeclared;
        references.find("defaultAudience", code, document, text, findings)
    });
    let registration_audiences = registration_audiences
        .map(|(document, list)| references.find_all(document, list, findings))
        .unwrap_or_default();
    if complete && count == 0 {
        findings.push(Finding {
            code: Code::NoAudience,
            file: Arc::clone(source),
            position: Position::default(),
            audience: String::new(),
            value: String::new(),
            message: "the policy declares no audience".to_owned(),
            suggestion: "declare at least one under `audiences` in a `.yaml` or `.yml` file".to_owned(),
        });
    }
    if findings.error_count() > 0 {
        findings.sort();
        return Err(std::mem::take(findings));
    }
    let twins = warning::near_twins(documents, &names);
    let index = AudienceIndex::of(policies);
    let find = |name: &str| index.find(name).ok().flatten().cloned();
    let default_audience = default_audience.and_then(find);
    let registration_audiences = registration_audiences.into_iter().filter_map(find).collect();
    Ok((PolicySet::new(index, default_audience, registration_audiences), twins))
}

fn in_file(
    code: Code,
    document: &CheckedDocument,
    position: Position,
    value: &str,
    message: String,
    suggestion: String,
) -> Finding {
    let mut finding = Finding {
        code,
        file: Arc::clone(&document.file),
        position,
        audience: String::new(),
        value: finding::value(value),
        message,
        suggestion,
    };
    document.aliases.explain(&mut finding);
    finding
}

/// What the audiences of a set are called, and which one each name means.
struct NameOwners<'d> {
    exact: HashMap<&'d str, Owner<'d>>,
    /// By the name without its query; filled only if some audience ignores queries. The first
    /// audience of each, and the first of each that ignores queries.
    bare: Option<HashMap<&'d str, (Owner<'d>, Option<Owner<'d>>)>>,
    outside: &'d HashSet<&'d str>,
}

/// The audience that a name means.
#[derive(Clone, Copy)]
struct Owner<'d> {
    document: &'d CheckedDocument,
    declared: &'d DeclaredAudience,
    /// Its file is outside of the policy directory, and not to be quoted.
    is_outside: bool,
}

impl<'d> NameOwners<'d> {
    fn of(documents: &[&'d CheckedDocument], count: usize, outside: &'d HashSet<&'d str>) -> Self {
        let ignores =
            documents.iter().flat_map(|document| &document.declared).any(DeclaredAudience::ignores_query);
        Self { exact: HashMap::with_capacity(count), bare: ignores.then(HashMap::new), outside }
    }

    /// Takes the names of an audience; reports each that another audience has. Returns `true` if the
    /// audience itself was not declared before.
    fn declare(
        &mut self,
        document: &'d CheckedDocument,
        declared: &'d DeclaredAudience,
        findings: &mut Findings,
    ) -> bool {
        let own = Owner { document, declared, is_outside: self.outside.contains(&*document.file) };
        let mut is_new = declared.normal().is_some();
        for (at, (spelled, normal)) in declared.names().enumerate() {
            if let Some((other, exact)) = self.find_other(own, normal) {
                let is_alias = at > 0 || declared.normal().is_none();
                is_new &= is_alias;
                findings.push(taken(own, spelled, normal, is_alias, other, exact));
            }
            self.exact.entry(normal).or_insert(own);
            if let Some(bare) = &mut self.bare {
                let (_, ignoring) = bare.entry(without_query(normal)).or_insert((own, None));
                if declared.ignores_query() {
                    ignoring.get_or_insert(own);
                }
            }
        }
        is_new
    }

    /// The audience that has a name which compares equal to this one, and whether the two are equal
    /// with their queries.
    fn find_other(&self, own: Owner<'d>, normal: &str) -> Option<(Owner<'d>, bool)> {
        let is_other = |owner: &Owner<'d>| !std::ptr::eq(owner.declared, own.declared);
        if let Some(other) = self.exact.get(normal).copied().filter(is_other) {
            return Some((other, true));
        }
        let (first, ignoring) = self.bare.as_ref()?.get(without_query(normal))?;
        let first = own.declared.ignores_query().then_some(*first);
        first.or(*ignoring).filter(is_other).map(|other| (other, false))
    }

    fn get(&self, normal: &str) -> Option<&'d DeclaredAudience> {
        let owner = self.exact.get(normal).or_else(|| {
            let (_, ignoring) = self.bare.as_ref()?.get(without_query(normal))?;
            ignoring.as_ref()
        });
        owner.map(|owner| owner.declared)
    }
}

/// A name that means another audience of the set already; `exact` is `false` if the two differ by
/// their query.
fn taken(
    own: Owner<'_>,
    spelled: &str,
    normal: &str,
    is_alias: bool,
    other: Owner<'_>,
    exact: bool,
) -> Finding {
    let Owner { document, declared, is_outside: _ } = own;
    let mut position = declared.position;
    if is_alias && let Some(alias) = declared.alias_position(spelled) {
        position = alias;
    }
    let what = if is_alias { "alias" } else { "audience" };
    let name = shown(spelled);
    let place = format!("`{}:{}`", shown(&other.document.file), other.declared.position.line);
    let meant = if other.is_outside { "..." } else { other.declared.audience() };
    let (message, suggestion) = if !exact {
        let message = format!(
            "{what} `{name}` differs only by its query from `{}` in {place}, and `ignoreQuery` is set",
            shown(meant)
        );
        (message, "remove `ignoreQuery`, or merge the two entries")
    } else if is_alias || other.declared.normal() != Some(normal) {
        let message = format!("{what} `{name}` already means the audience `{}` in {place}", shown(meant));
        (message, "one name means one audience; remove it from one of them")
    } else {
        let mut message = format!("audience `{name}` is declared in {place} already");
        if spelled != meant && !other.is_outside {
            message.push_str(&format!(", spelled `{}`", shown(meant)));
        }
        (message, "declare an audience once; merge the two entries")
    };
    let mut finding =
        in_file(Code::DuplicateAudience, document, position, spelled, message, suggestion.to_owned());
    finding.audience = finding::audience(declared.audience());
    finding
}

/// Finds the audiences that keys at the top of a file refer to.
struct References<'r, 'd> {
    names: &'r NameOwners<'d>,
    /// Whether everything that the set declares is known.
    complete: bool,
}

impl<'d> References<'_, 'd> {
    fn find(
        &self,
        key: &str,
        not_declared: Code,
        document: &CheckedDocument,
        text: &LocatedText,
        findings: &mut Findings,
    ) -> Option<&'d str> {
        let normal = match normalise(&text.value) {
            Ok(normal) => normal,
            Err(error) => {
                findings.push(in_file(
                    Code::AudienceMalformed,
                    document,
                    text.position,
                    &text.value,
                    format!("`{key}` `{}`: {error}", shown(&text.value)),
                    match text.value.trim() {
                        trimmed if trimmed != &*text.value && normalise(trimmed).is_ok() => {
                            format!(
                                "write `{}` behind its key, without white space around it",
                                shown(trimmed)
                            )
                        }
                        _ => "name a declared audience".to_owned(),
                    },
                ));
                return None;
            }
        };
        if let Some(declared) = self.names.get(&normal) {
            return declared.normal();
        }
        if self.complete {
            let exact = &self.names.exact;
            let near = if exact.len() <= 1000 {
                let quotable = exact.values().filter(|owner| !owner.is_outside);
                nearest(&text.value, quotable.map(|owner| owner.declared.audience()))
            } else {
                None
            };
            findings.push(in_file(
                not_declared,
                document,
                text.position,
                &text.value,
                format!("`{key}` `{}` is not declared in any file", shown(&text.value)),
                near.map_or_else(
                    || "declare it under `audiences`".to_owned(),
                    |near| format!("did you mean `{}`?", shown(near)),
                ),
            ));
        }
        None
    }

    /// The audiences of `registrationAudiences`, each once.
    fn find_all(&self, document: &CheckedDocument, list: &List, findings: &mut Findings) -> Vec<&'d str> {
        const KEY: &str = "registrationAudiences";
        let mut found: HashMap<&str, &LocatedText> = HashMap::new();
        let mut in_order = Vec::new();
        for text in list.entries.iter().take(MAX_REGISTRATION_AUDIENCES) {
            let code = Code::RegistrationAudienceNotDeclared;
            let Some(normal) = self.find(KEY, code, document, text, findings) else { continue };
            if let Some(first) = found.get(normal) {
                findings.push(in_file(
                    Code::DuplicateEntry,
                    document,
                    text.position,
                    &text.value,
                    format!(
                        "duplicate entry `{}` in `{KEY}`, first on line {}",
                        shown(&text.value),
                        first.position.line
                    ),
                    "remove it".to_owned(),
                ));
                continue;
            }
            found.insert(normal, text);
            in_order.push(normal);
        }
        in_order
    }
}

#[cfg(test)]
mod tests;
