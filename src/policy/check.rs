//! The rules of a policy: documents become a [`PolicySet`], or every finding is reported.
//!
//! Works in two steps so that an unchanged file need not be looked at again: [`check_document`] judges
//! one file under the guardrails of the set, [`assemble`] judges what concerns several files and puts
//! the set together. Nothing is corrected silently and nothing stops at the first finding.

use std::collections::HashMap;
use std::sync::Arc;

use self::audience::Checker;
use super::document::{Document, GuardrailsDocument, List, Text};
use super::finding::{self, Code, Finding, Findings, Position, nearest, shown};
use super::{AudiencePolicy, MAX_BASELINE_CLIENT_SCOPES, PolicySet};
use crate::audience::normalise;
use crate::scope::{ScopeList, check_token};

mod audience;
pub mod warning;

/// Longest name of a client rule and longest `clientName` pattern in bytes.
pub const MAX_NAME_BYTES: usize = 256;

/// What holds for every audience of the set.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Guardrails {
    forbidden_scopes: Arc<ScopeList>,
    privileged_scopes: Arc<ScopeList>,
    max_baseline_client_scopes: usize,
}

impl Default for Guardrails {
    fn default() -> Self {
        Self {
            forbidden_scopes: Arc::default(),
            privileged_scopes: Arc::default(),
            max_baseline_client_scopes: MAX_BASELINE_CLIENT_SCOPES,
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
            .filter_map(|document| Some((&document.file, document.guardrails.as_ref()?)))
            .min_by_key(|(file, _)| *file)
            .map(|(_, guardrails)| Self::new(guardrails))
            .unwrap_or_default()
    }

    /// Takes the valid part of a document's guardrails.
    #[must_use]
    pub fn new(document: &GuardrailsDocument) -> Self {
        let valid = |list: &Option<List>| {
            let entries = list.iter().flat_map(|list| &list.entries);
            Arc::new(ScopeList::new(
                entries.map(|entry| &*entry.value).filter(|scope| check_token(scope).is_ok()),
            ))
        };
        let max = document.max_baseline_client_scopes.map_or(usize::MAX, |max| max.value as usize);
        Self {
            forbidden_scopes: valid(&document.forbidden_scopes),
            privileged_scopes: valid(&document.privileged_scopes),
            max_baseline_client_scopes: max.min(MAX_BASELINE_CLIENT_SCOPES),
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
    /// The guardrails that it declares.
    pub guardrails: Option<GuardrailsDocument>,
    declared: Vec<Declared>,
    default_audience: Option<Text>,
    unreadable: bool,
}

#[derive(Clone, Debug)]
struct Declared {
    position: Position,
    policy: Result<Arc<AudiencePolicy>, Invalid>,
}

/// An audience with findings: known by name only.
#[derive(Clone, Debug)]
struct Invalid {
    audience: Box<str>,
    normal: Option<Box<str>>,
}

impl Declared {
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
}

/// A valid policy set and what its authors should still look at.
#[derive(Debug)]
pub struct Accepted {
    /// The set.
    pub set: PolicySet,
    /// Warnings only, by file and position.
    pub warnings: Findings,
}

/// Judges a set of documents: reads the guardrails, then each document, then the whole.
///
/// `source` names the set in findings that belong to no file.
///
/// # Errors
/// Every finding, warnings included, by file and position, if at least one is an error.
pub fn check(source: &Arc<str>, documents: &[Document]) -> Result<Accepted, Findings> {
    let guardrails = Guardrails::of(documents);
    let checked: Vec<_> = documents.iter().map(|document| check_document(document, &guardrails)).collect();
    assemble(source, &checked, Findings::new())
}

/// Judges one document under the guardrails of its set.
#[must_use]
pub fn check_document(document: &Document, guardrails: &Guardrails) -> CheckedDocument {
    let mut checker = Checker {
        file: &document.file,
        audience: "",
        guardrails,
        findings: document.findings.clone(),
        guesses: 0,
    };
    if let Some(document) = &document.guardrails {
        checker.guardrails(document);
    }
    let mut declared = Vec::with_capacity(document.audiences.len());
    for audience in &document.audiences {
        checker.audience = &audience.audience.value;
        let policy = checker.audience(audience);
        declared.push(Declared { position: audience.audience.position, policy });
    }
    let mut findings = checker.findings;
    findings.sort_by_key(|finding| finding.position);
    CheckedDocument {
        file: Arc::clone(&document.file),
        findings,
        guardrails: document.guardrails.clone(),
        declared,
        default_audience: document.default_audience.clone(),
        unreadable: document.unreadable,
    }
}

/// Puts judged documents together to a set.
///
/// `source` names the set; `others` are findings from elsewhere (files that could not be read), which
/// make the set incomplete.
///
/// # Errors
/// Every finding, warnings included, by file and position, if at least one is an error.
pub fn assemble<'d>(
    source: &Arc<str>,
    documents: impl IntoIterator<Item = &'d CheckedDocument>,
    others: Findings,
) -> Result<Accepted, Findings> {
    let mut documents: Vec<&CheckedDocument> = documents.into_iter().collect();
    // The order in which files are found has no meaning.
    documents.sort_by(|one, other| one.file.cmp(&other.file));
    // What an unreadable file declares is unknown: "not declared" would be a guess.
    let complete = others.error_count() == 0 && documents.iter().all(|document| !document.unreadable);
    let mut findings = others;
    for document in &documents {
        findings.append(&document.findings);
    }

    let count = documents.iter().map(|document| document.declared.len()).sum();
    let mut first: HashMap<&str, (&Arc<str>, &Declared)> = HashMap::with_capacity(count);
    let mut policies = Vec::with_capacity(count);
    let mut guardrails: Option<&CheckedDocument> = None;
    let mut default_audience: Option<(&CheckedDocument, &Text)> = None;
    for document in &documents {
        for declared in &document.declared {
            let Some(normal) = declared.normal() else { continue };
            if let Some((file, original)) = first.get(normal) {
                findings.push(duplicate_audience(document, declared, file, original));
                continue;
            }
            first.insert(normal, (&document.file, declared));
            policies.extend(declared.policy.as_ref().ok().map(Arc::clone));
        }
        if let Some(own) = &document.guardrails {
            match guardrails {
                None => guardrails = Some(document),
                Some(original) => findings.push(in_file(
                    Code::DuplicateGuardrails,
                    document,
                    own.position,
                    "guardrails",
                    format!("`guardrails` stand in `{}` already", shown(&original.file)),
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
    }

    let mut default_normal = None;
    if let Some((document, text)) = default_audience {
        match normalise(&text.value) {
            Err(error) => findings.push(in_file(
                Code::AudienceMalformed,
                document,
                text.position,
                &text.value,
                format!("`defaultAudience` `{}`: {error}", shown(&text.value)),
                "name a declared audience".to_owned(),
            )),
            Ok(normal) if first.contains_key(&*normal) => default_normal = Some(normal.into_owned()),
            Ok(_) if !complete => {}
            Ok(_) => {
                let near = if first.len() <= 1000 {
                    nearest(&text.value, first.values().map(|(_, declared)| declared.audience()))
                } else {
                    None
                };
                findings.push(in_file(
                    Code::DefaultAudienceNotDeclared,
                    document,
                    text.position,
                    &text.value,
                    format!("`defaultAudience` `{}` is not declared in any file", shown(&text.value)),
                    near.map_or_else(
                        || "declare it under `audiences`".to_owned(),
                        |near| format!("did you mean `{}`?", shown(near)),
                    ),
                ));
            }
        }
    }
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
    drop(first);
    findings.sort();
    if findings.error_count() > 0 {
        return Err(findings);
    }
    Ok(Accepted { set: PolicySet::new(policies, default_normal.as_deref()), warnings: findings })
}

fn in_file(
    code: Code,
    document: &CheckedDocument,
    position: Position,
    value: &str,
    message: String,
    suggestion: String,
) -> Finding {
    let file = Arc::clone(&document.file);
    Finding {
        code,
        file,
        position,
        audience: String::new(),
        value: finding::value(value),
        message,
        suggestion,
    }
}

fn duplicate_audience(
    document: &CheckedDocument,
    declared: &Declared,
    file: &Arc<str>,
    original: &Declared,
) -> Finding {
    let audience = declared.audience();
    let mut message = format!(
        "audience `{}` is declared in `{}:{}` already",
        shown(audience),
        shown(file),
        original.position.line
    );
    if audience != original.audience() {
        message.push_str(&format!(", spelled `{}`", shown(original.audience())));
    }
    let mut finding = in_file(
        Code::DuplicateAudience,
        document,
        declared.position,
        audience,
        message,
        "declare an audience once; merge the two entries".to_owned(),
    );
    finding.audience = finding::audience(audience);
    finding
}

#[cfg(test)]
mod tests;
