//! A set that is made of another one and the files that changed is the set that is made of all files.

use std::collections::HashSet;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::judged;
use crate::policy::PolicySet;
use crate::policy::check::{Accepted, CheckedDocument, Guardrails, PreviousSet, assemble, judge};
use crate::policy::document::Document;
use crate::policy::finding::{AcceptedWarnings, Findings};

/// Names that are equal, nearly equal and different.
const NAMES: [&str; 11] = [
    "https://a.example",
    "https://a.example/",
    "HTTPS://A.example:443",
    "http://a.example",
    "https://a.example/x",
    "https://a.example/x/",
    "https://a.example/x?q",
    "api",
    "API",
    "urn:b",
    "zz",
];

fn audience() -> impl Strategy<Value = String> {
    let more = select(vec![
        "",
        "",
        "",
        ", baselineClientScopes: [a]",
        ", description: Words",
        ", scopeMatching: wildcard",
        ", privilegedScopes: [p]",
        ", authorization: {alwaysGrantScopes: [b]}",
    ]);
    let rare = select(vec!["", "", "", "", "", "", "", ", ignoreQuery: true", ", baselineClientScopes: [x]"]);
    let aliases = option::weighted(0.2, select(&NAMES[..]));
    (select(vec!["a, b", "a, b, c"]), more, rare, aliases).prop_map(|(scopes, more, rare, alias)| {
        let more = if more.contains("baseline") && rare.contains("baseline") { "" } else { more };
        let rare = if rare.contains("ignore") { rare } else { rare.trim_end() };
        let alias = alias.map(|alias| format!(", aliases: ['{alias}']")).unwrap_or_default();
        format!("{{scopesSupported: [{scopes}]{more}{rare}{alias}}}")
    })
}

fn file() -> impl Strategy<Value = String> {
    let audiences = subsequence(&NAMES[..], 0..4).prop_flat_map(|names| {
        let count = names.len();
        (Just(names), vec(audience(), count))
    });
    let top = select(vec![
        "",
        "",
        "",
        "",
        "defaultAudience: api\n",
        "registrationAudiences: [zz, api]\n",
        "registrationAudiences: [zz, zz]\n",
        "guardrails: {privilegedScopes: [p, c]}\n",
        "acceptWarnings: [NearTwinAudience]\n",
    ]);
    (audiences, top).prop_map(|((names, audiences), top)| {
        let mut text = format!("{top}audiences:\n");
        for (name, audience) in names.iter().zip(audiences) {
            text.push_str(&format!("  '{name}': {audience}\n"));
        }
        text
    })
}

/// Everything that can be seen of a set.
fn seen(set: &PolicySet) -> Vec<String> {
    let named = NAMES.iter().map(|name| format!("{name} {:?}", set.audience(name)));
    let rest = [
        format!("{:?} {:?}", set.digest(), set.cost()),
        format!("{:?} {:?}", set.default_audience(), set.registration_audiences()),
        format!("{:?}", set.audiences()),
    ];
    named.chain(rest).collect()
}

fn compared(outcome: &Result<Accepted, Findings>) -> (Vec<String>, Vec<String>) {
    match outcome {
        Ok(accepted) => (seen(&accepted.set), accepted.warnings.iter().map(ToString::to_string).collect()),
        Err(findings) => (Vec::new(), findings.iter().map(ToString::to_string).collect()),
    }
}

/// A file that is there, and what was made of it.
type CheckedText = Option<(String, Arc<CheckedDocument>)>;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        std::env::var("TEST_PATCHED_SETS").ok().and_then(|cases| cases.parse().ok()).unwrap_or(400)
    ))]

    #[test]
    fn a_patched_set_is_the_set_of_all_files(
        start in vec(file(), 1..7),
        edits in vec((0..7usize, option::weighted(0.9, file())), 1..6),
    ) {
        let mut texts: Vec<Option<String>> = start.into_iter().map(Some).collect();
        texts.resize(7, None);
        let outside = HashSet::new();
        let source = Arc::from("policies");
        let mut valid: Option<(Vec<CheckedText>, Guardrails, Accepted)> = None;
        for edit in std::iter::once(None).chain(edits.into_iter().map(Some)) {
            if let Some((at, text)) = edit {
                texts[at] = text;
            }
            let read = |at: usize, text: &String| Document::read(&Arc::from(format!("{at}.yaml")), text);
            let documents: Vec<_> =
                texts.iter().enumerate().filter_map(|(at, text)| Some(read(at, text.as_ref()?))).collect();
            let guardrails = Guardrails::of(&documents);
            // As a store does: a document that is as it was in the last valid set is not judged again.
            let checked: Vec<CheckedText> = texts.iter().enumerate().map(|(at, text)| {
                let text = text.as_ref()?;
                let known = valid.as_ref().and_then(|(known, under, _)| {
                    known[at].as_ref().filter(|(known, _)| known == text && *under == guardrails).cloned()
                });
                Some(known.unwrap_or_else(|| {
                    let checked = judged(&format!("{at}.yaml"), text, &guardrails);
                    (text.clone(), Arc::new(checked))
                }))
            }).collect();
            let all: Vec<&CheckedDocument> = checked.iter().flatten().map(|(_, document)| &**document).collect();
            let previous = valid.as_ref().map(|(documents, _, accepted)| {
                let documents = documents.iter().flatten().map(|(_, document)| &**document).collect();
                PreviousSet::new(accepted.set.index(), documents)
            });
            let none = AcceptedWarnings::NONE;
            let patched = assemble(&source, all.iter().copied(), [], &outside, none, previous.as_ref());
            let whole = assemble(&source, all.iter().copied(), [], &outside, none, None);
            prop_assert_eq!(compared(&patched), compared(&whole));
            let mut findings = Findings::new();
            for document in &all {
                findings.append(&document.findings);
            }
            let complete = all.iter().all(|document| !document.unreadable);
            match judge(&source, &all, &outside, complete, &mut findings) {
                Ok((set, twins)) => {
                    let accepted = whole.as_ref().expect("the slow way found nothing");
                    prop_assert_eq!(seen(&set), seen(&accepted.set));
                    prop_assert!(twins.iter().all(|twin| accepted.warnings.contains(twin)));
                }
                Err(findings) => {
                    let found = findings.iter().map(ToString::to_string).collect::<Vec<_>>();
                    prop_assert_eq!((Vec::new(), found), compared(&whole));
                }
            }
            if let Ok(accepted) = patched {
                valid = Some((checked, guardrails, accepted));
            }
        }
    }
}
