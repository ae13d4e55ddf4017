//! The policy of a running server as far as it tells it, compared with a new one.
//!
//! `DescribeAudience` is for discovery documents: it tells neither what protects nor who gets what by
//! a rule. The digest covers everything, so it at least says whether there is something unseen.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::audience::normalise;
use crate::cli::client::describe_all;
use crate::cli::remote::{ServerTarget, TimeoutArgs};
use crate::policy::change::{Change, ChangeKind};
use crate::policy::{AudiencePolicy, PolicySet};
use crate::rpc::v1;

/// What cannot be seen of the policy of a server.
pub(super) const NOT_TOLD: &[&str] =
    &["forbiddenScopes", "registration", "authorization", "clientRules", "defaultAudience"];

/// The same for people.
pub(super) fn caveat() -> String {
    format!(
        "a server tells what its audiences support, their baseline, default, privileged and step-up scopes, their matching, aliases and texts, and the digest of it all; {} \
         cannot be seen and may widen, too",
        NOT_TOLD.join(", ")
    )
}

/// What a server tells.
pub(super) struct Told {
    pub(super) digest: String,
    audiences: Vec<v1::AudienceDescription>,
}

/// Asks a server for all that it tells.
///
/// # Errors
/// If there is no answer.
pub(super) fn ask(server: &ServerTarget, timeout: TimeoutArgs) -> anyhow::Result<Told> {
    let v1::DescribeAudienceResponse { audiences, policy, .. } =
        describe_all(server, timeout, String::new())?;
    Ok(Told { digest: policy.unwrap_or_default().digest, audiences })
}

/// The changes that can be seen, audiences sorted.
pub(super) fn changes(told: &Told, after: &PolicySet) -> Vec<Change> {
    let normal = |audience: &str| match normalise(audience) {
        Ok(normal) => normal.into_owned(),
        Err(_) => audience.to_owned(),
    };
    let mut before: HashMap<String, &v1::AudienceDescription> =
        told.audiences.iter().map(|audience| (normal(&audience.audience), audience)).collect();
    let mut found = Vec::new();
    for new in after.audiences().iter() {
        match before.remove(new.normal()) {
            Some(old) => audience(old, new, &mut found),
            None => found.push(change(&new.audience, ChangeKind::AudienceAdded, true)),
        }
    }
    for old in before.into_values() {
        let removed = change(&old.audience, ChangeKind::AudienceRemoved, false);
        found.push(Change { removal: true, ..removed });
    }
    found.sort_by_cached_key(|one| normal(&one.audience));
    found
}

fn audience(old: &v1::AudienceDescription, new: &AudiencePolicy, found: &mut Vec<Change>) {
    let supported: Vec<&str> = new.published_scopes().collect();
    let baseline: Vec<&str> = new.baseline_client_scopes.iter().collect();
    let default: Vec<&str> = new.default_client_scopes.iter().collect();
    let privileged: Vec<&str> = new.privileged_scopes.iter().collect();
    let step_up: Vec<&str> = new.step_up_scopes.iter().collect();
    // Whether more entries give more, or less.
    for (key, before, after, more_is_wider) in [
        ("scopesSupported", &old.scopes_supported, supported, true),
        ("baselineClientScopes", &old.baseline_client_scopes, baseline, true),
        ("defaultClientScopes", &old.default_client_scopes, default, true),
        ("privilegedScopes", &old.privileged_scopes, privileged, false),
        ("authorization.stepUpScopes", &old.step_up_scopes, step_up, true),
    ] {
        let list = key.to_owned();
        let owned = |scopes: Vec<&str>| scopes.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let added = owned(after.iter().copied().filter(|new| !before.iter().any(|old| old == new)).collect());
        let removed: Vec<String> =
            before.iter().filter(|old| !after.contains(&old.as_str())).cloned().collect();
        if added.is_empty() && removed.is_empty() {
            if *before != after {
                found.push(change(&new.audience, ChangeKind::Reordered { list }, false));
            }
            continue;
        }
        if !added.is_empty() {
            let kind = ChangeKind::ScopesAdded { list: list.clone(), scopes: added };
            found.push(change(&new.audience, kind, more_is_wider));
        }
        if !removed.is_empty() {
            let kind = ChangeKind::ScopesRemoved { list, scopes: removed };
            found.push(change(&new.audience, kind, !more_is_wider));
        }
    }
    let names = |kind: fn(String, Vec<String>) -> ChangeKind, names: Vec<String>, widening| {
        (!names.is_empty()).then(|| change(&new.audience, kind("aliases".to_owned(), names), widening))
    };
    let aliases: Vec<&str> = new.aliases.iter().map(|alias| &*alias.spelled).collect();
    let added = aliases.iter().filter(|alias| !old.aliases.iter().any(|known| known == *alias));
    let added = added.map(|alias| (*alias).to_owned()).collect();
    let removed = old.aliases.iter().filter(|alias| !aliases.contains(&alias.as_str())).cloned().collect();
    found.extend(names(|list, names| ChangeKind::NamesAdded { list, names }, added, true));
    found.extend(names(|list, names| ChangeKind::NamesRemoved { list, names }, removed, false));
    texts(old, new, found);
    let matching = new.scope_matching.as_str();
    if old.scope_matching != matching {
        let (before, after) = (old.scope_matching.clone(), matching.to_owned());
        let kind = ChangeKind::Setting { key: "scopeMatching".to_owned(), before, after };
        found.push(change(&new.audience, kind, true));
    }
}

/// What people read, which gives nothing to anybody.
fn texts(old: &v1::AudienceDescription, new: &AudiencePolicy, found: &mut Vec<Change>) {
    let mut text = |key: String, before: &str, after: &str| {
        if before != after {
            let shown = |text: &str| if text.is_empty() { "(none)".to_owned() } else { text.to_owned() };
            let kind = ChangeKind::Setting { key, before: shown(before), after: shown(after) };
            found.push(change(&new.audience, kind, false));
        }
    };
    text("description".to_owned(), &old.description, &new.description);
    let after: BTreeMap<&str, &str> =
        new.scope_descriptions.iter().map(|(scope, text)| (&**scope, &**text)).collect();
    let before: BTreeMap<&str, &str> =
        old.scope_descriptions.iter().map(|(scope, text)| (&**scope, &**text)).collect();
    let scopes: BTreeSet<&str> = after.keys().chain(before.keys()).copied().collect();
    for scope in scopes {
        let of = |texts: &BTreeMap<&str, &str>| texts.get(scope).copied().unwrap_or_default().to_owned();
        text(format!("scopeDescriptions.{}", crate::escape::shown(scope)), &of(&before), &of(&after));
    }
}

fn change(audience: &str, kind: ChangeKind, widening: bool) -> Change {
    Change { audience: audience.to_owned(), kind, widening, removal: false }
}
