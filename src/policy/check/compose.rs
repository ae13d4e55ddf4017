//! Puts documents together to a set where nothing is wrong between them, from what a set before had of them.
//!
//! Decides nothing about findings: where there may be one, there is no set, and the module above looks for all of it.

use std::collections::HashSet;
use std::sync::Arc;

use super::{CheckedDocument, DeclaredAudience, warning};
use crate::policy::finding::Code;
use crate::policy::format::read::LocatedText;
use crate::policy::index::AudienceIndex;
use crate::policy::{AudiencePolicy, MAX_REGISTRATION_AUDIENCES, PolicySet};

/// A valid set, and the documents that it was made of.
#[derive(Debug)]
pub struct PreviousSet<'d> {
    index: &'d AudienceIndex,
    documents: Vec<&'d CheckedDocument>,
}

impl<'d> PreviousSet<'d> {
    /// A set with its documents, in any order.
    pub(crate) const fn new(index: &'d AudienceIndex, documents: Vec<&'d CheckedDocument>) -> Self {
        Self { index, documents }
    }

    /// The audiences of other documents, by what differs; nothing if that is most of them, or a name means two audiences.
    fn patched(&self, documents: &[&CheckedDocument]) -> Option<AudienceIndex> {
        // Documents that did not change are the same memory.
        let addresses = |documents: &[&CheckedDocument]| -> HashSet<*const CheckedDocument> {
            documents.iter().map(|document| std::ptr::from_ref(*document)).collect()
        };
        let (before, now) = (addresses(&self.documents), addresses(documents));
        let is_in =
            |known: &HashSet<_>, document: &CheckedDocument| known.contains(&std::ptr::from_ref(document));
        let gone = self.documents.iter().filter(|document| !is_in(&now, document));
        let removed: Vec<_> = gone.flat_map(|document| valid(document)).collect::<Option<_>>()?;
        let new = documents.iter().filter(|document| !is_in(&before, document));
        let added: Vec<_> = new.flat_map(|document| valid(document)).collect::<Option<_>>()?;
        if removed.len() + added.len() > self.index.audiences().len() / 2 {
            return None;
        }
        self.index.patched(&removed, added.into_iter().map(Arc::clone).collect())
    }
}

/// The audiences of a document, `None` for one with errors.
fn valid(document: &CheckedDocument) -> impl Iterator<Item = Option<&Arc<AudiencePolicy>>> {
    document.declared.iter().map(|declared| declared.policy.as_ref().ok())
}

/// The set, if there is no finding that concerns several documents; warnings about the set as a whole are not looked at.
pub(super) fn compose(
    documents: &[&CheckedDocument],
    previous: Option<&PreviousSet<'_>>,
) -> Option<PolicySet> {
    let index = match previous.and_then(|previous| previous.patched(documents)) {
        Some(index) => index,
        None => {
            let all =
                documents.iter().flat_map(|document| valid(document)).map(|policy| policy.map(Arc::clone));
            AudienceIndex::unique(all.collect::<Option<Vec<_>>>()?)?
        }
    };
    if index.audiences().is_empty() || documents.iter().any(|document| has_twin(document, &index)) {
        return None;
    }
    at_most_one(documents.iter().map(|document| document.guardrails.as_ref()))?;
    let default = at_most_one(documents.iter().map(|document| document.default_audience.as_ref()))?;
    let registration =
        at_most_one(documents.iter().map(|document| document.registration_audiences.as_ref()))?;
    let find = |text: &LocatedText| index.find(&text.value).ok().flatten().cloned();
    let default = match default {
        Some(text) => Some(find(text)?),
        None => None,
    };
    let named = registration.map_or(&[][..], |list| &list.entries);
    let named: Vec<Arc<AudiencePolicy>> = named.iter().map(find).collect::<Option<_>>()?;
    let different: HashSet<&str> = named.iter().map(|audience| audience.normal()).collect();
    if different.len() < named.len() || named.len() > MAX_REGISTRATION_AUDIENCES {
        return None;
    }
    Some(PolicySet::new(index, default, named))
}

/// The one value of several, `None` if there are more.
fn at_most_one<T>(values: impl Iterator<Item = Option<T>>) -> Option<Option<T>> {
    let mut values = values.flatten();
    let first = values.next();
    values.next().is_none().then_some(first)
}

/// Returns `true` if an audience of the document is easily taken for another one of the set, which is a warning.
fn has_twin(document: &CheckedDocument, index: &AudienceIndex) -> bool {
    if document.is_plain || document.accepted.contains(Code::NearTwinAudience) {
        return false;
    }
    let names = |declared: &DeclaredAudience| -> Vec<String> {
        let normals = declared.names().map(|(_, normal)| normal);
        normals
            .flat_map(|normal| warning::plainer(normal).into_iter().flatten().map(|(plain, _)| plain))
            .collect()
    };
    document.declared.iter().any(|declared| {
        names(declared).iter().any(|plain| {
            let other = index.find(plain).ok().flatten();
            other.is_some_and(|other| declared.normal() != Some(other.normal()))
        })
    })
}
