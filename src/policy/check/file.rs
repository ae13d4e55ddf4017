//! Judges one file under the guardrails of its set: its own keys, then each of its audiences.

use std::sync::Arc;

use super::audience::Checker;
use super::shared_parts::SharedParts;
use super::{CheckedDocument, DeclaredAudience, Guardrails, warning};
use crate::policy::document::Document;
use crate::policy::finding::{AcceptedWarnings, Code, Findings};
use crate::policy::format::read::{DocumentReader, LocatedText, Mapping};
use crate::policy::keys::{FORMAT, POLICY};
use crate::policy::outline::Outline;
use crate::policy::yaml::{self, Aliases, NodeKind, Tree};

/// Judges one document under the guardrails of its set; warnings of the `allowed` codes, and those that it accepts
/// itself, are left out. `warnings` is where the others go: none are in it yet.
///
/// Takes the document apart: what an audience says is gone once it is judged, so that a large policy is not
/// there twice.
#[must_use]
pub fn check_document(
    document: Document,
    guardrails: &Guardrails,
    allowed: AcceptedWarnings,
    warnings: Findings,
) -> CheckedDocument {
    let Document { file, mut root, findings, outline, aliases, unreadable } = document;
    let audiences = root.take_each("audiences");
    let mut checked = FileCheck::new(&file, &root, guardrails, allowed, findings, warnings);
    checked.declared.reserve_exact(audiences.len());
    for (audience, record) in audiences {
        checked.audience(&audience, &record);
    }
    checked.finish(&root, outline, aliases, unreadable)
}

/// Reads one file and judges it: the same as [`check_document`] of [`Document::read`], and faster where nothing is wrong, since
/// each audience is read, judged and forgotten before the next one is read.
#[must_use]
pub fn check_text(
    file: &Arc<str>,
    text: &str,
    guardrails: &Guardrails,
    allowed: AcceptedWarnings,
    warnings: Findings,
) -> CheckedDocument {
    let document = match yaml::parse(text) {
        Ok(tree) => match check_tree(file, tree, guardrails, allowed, warnings.clone()) {
            Some(checked) => return checked,
            None => Document::read(file, text),
        },
        Err(problem) => Document::from_tree(file, Err(problem)),
    };
    check_document(document, guardrails, allowed, warnings)
}

/// Judges the tree of a file audience by audience; nothing as soon as something is wrong with the file, since then all of its
/// shape has to be known before the rest is judged.
fn check_tree(
    file: &Arc<str>,
    tree: Tree<'_>,
    guardrails: &Guardrails,
    allowed: AcceptedWarnings,
    warnings: Findings,
) -> Option<CheckedDocument> {
    let Tree { root, aliases } = tree;
    let root = root?;
    let outline = Outline::of(&root);
    let mut reader = DocumentReader::new(file, Some(&FORMAT));
    let mut audiences = None;
    let root = reader.root_and(root, &POLICY, |_, key, node, section| {
        audiences = Some((key, node, section));
        None
    });
    let mut checked = FileCheck::new(file, &root, guardrails, allowed, Findings::new(), warnings);
    if let Some((key, node, section)) = audiences {
        let NodeKind::Mapping(entries) = node.kind else { return None };
        checked.declared.reserve_exact(entries.len());
        for (name, node) in entries {
            let (audience, record) = reader.each_entry(key, &name, &node, section)?;
            checked.audience(&audience, &record);
            if reader.findings.count() + checked.findings.error_count() > 0 {
                return None;
            }
        }
    }
    let is_sound = reader.findings.count() + checked.findings.error_count() == 0 && !reader.is_incomplete;
    is_sound.then(|| checked.finish(&root, outline, aliases, false))
}

/// What was found of a file so far.
struct FileCheck<'d> {
    file: &'d Arc<str>,
    guardrails: &'d Guardrails,
    accepted: AcceptedWarnings,
    findings: Findings,
    warnings: Findings,
    guesses: usize,
    shared: SharedParts,
    declared: Vec<DeclaredAudience>,
}

impl<'d> FileCheck<'d> {
    /// Judges what is not said of an audience. `findings` are those of the shape of the file.
    fn new(
        file: &'d Arc<str>,
        root: &Mapping,
        guardrails: &'d Guardrails,
        allowed: AcceptedWarnings,
        mut findings: Findings,
        warnings: Findings,
    ) -> Self {
        let accepted: AcceptedWarnings =
            root.entries("acceptWarnings").filter_map(|entry| Code::parse(&entry.value)).collect();
        findings.accept(allowed);
        let mut checked = Self {
            file,
            guardrails,
            accepted: accepted.and(allowed),
            findings,
            warnings,
            guesses: 0,
            shared: SharedParts::default(),
            declared: Vec::new(),
        };
        if let Some(own) = root.record("guardrails") {
            checked.checker("").guardrails(own);
        }
        checked
    }

    fn checker<'a>(&'a mut self, audience: &'a str) -> Checker<'a> {
        Checker {
            file: self.file,
            audience,
            rule: String::new(),
            guardrails: self.guardrails,
            findings: &mut self.findings,
            warnings: &mut self.warnings,
            left_out: self.accepted,
            guesses: &mut self.guesses,
            shared: &mut self.shared,
        }
    }

    fn audience(&mut self, audience: &LocatedText, record: &Mapping) {
        let was_valid = self.findings.error_count() == 0;
        let policy = self.checker(&audience.value).audience(audience, record);
        if was_valid && self.findings.error_count() > 0 {
            // There will be no set: only the names are still of use.
            self.declared.iter_mut().for_each(DeclaredAudience::forget);
        }
        let aliases = record.list("aliases").map(|list| Box::new(list.clone()));
        self.declared.push(DeclaredAudience { position: audience.position, aliases, policy });
    }

    fn finish(self, root: &Mapping, outline: Outline, aliases: Aliases, unreadable: bool) -> CheckedDocument {
        let Self { file, accepted, mut findings, mut warnings, declared, .. } = self;
        for found in [&mut findings, &mut warnings] {
            found.update(|finding| aliases.explain(finding));
        }
        findings.sort_by_key(|finding| finding.position);
        warnings.sort_by_key(|finding| finding.position);
        CheckedDocument {
            file: Arc::clone(file),
            findings,
            warnings,
            guardrails: root.get("guardrails").cloned(),
            accepted,
            is_plain: is_plain(&declared),
            declared,
            default_audience: root.text("defaultAudience").map(LocatedText::from),
            registration_audiences: root.list("registrationAudiences").cloned(),
            outline,
            aliases,
            unreadable,
        }
    }
}

fn is_plain(declared: &[DeclaredAudience]) -> bool {
    declared.iter().flat_map(DeclaredAudience::names).all(|(_, normal)| warning::is_plain(normal))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::sample::FULL;

    #[test]
    fn a_file_without_findings_is_judged_audience_by_audience() {
        let none = AcceptedWarnings::NONE;
        let is_by_audience = |text: &str| {
            let guardrails = Guardrails::default();
            let tree = yaml::parse(text).unwrap();
            check_tree(&Arc::from("a.yaml"), tree, &guardrails, none, Findings::new()).is_some()
        };
        assert!(is_by_audience(FULL));
        assert!(is_by_audience("guardrails: {privilegedScopes: [a]}"));
        assert!(is_by_audience(
            "audiences: {a: {scopesSupported: [b]}}\nacceptWarnings: [OmittedScopeDenied]"
        ));
        for wrong in [
            "",
            "audiences: []",
            "audiences: {a: {scopesSupported: [b]}}\nx: 1",
            "audiences: {a: {scopesSupported: [b]}, c: {scopesSupported: 1}}",
            "audiences: {a: {scopesSupported: [b]}, c: {scopesSupported: [d, d]}}",
            "audiences: {a: {scopesSupported: [b]}}\nguardrails: {forbiddenScopes: ['x y']}",
        ] {
            assert!(!is_by_audience(wrong), "{wrong}");
        }
    }
}
