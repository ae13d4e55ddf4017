//! Audiences of the policy that serves: a page of those that were searched for, and all about one.

use serde::Serialize;
use serde_json::{Map, Value};

use super::search::{SearchIndex, SearchWords};
use super::served::ServedPolicy;
use crate::explanation::places::FilePlace;
use crate::policy::format::Compiled;
use crate::policy::keys::{AudienceKey, meanings};
use crate::policy::{AudiencePolicy, ClientCondition, ClientRule, ClientSource, RedirectCondition};

/// A page of audiences.
#[derive(Debug, Serialize)]
pub(super) struct AudiencePage<'p> {
    /// Audiences of the policy.
    total: usize,
    /// Those that were found.
    matches: usize,
    /// How many of those are before the page.
    from: usize,
    generation: u64,
    audiences: Vec<AudienceRow<'p>>,
}

#[derive(Debug, Serialize)]
struct AudienceRow<'p> {
    audience: &'p str,
    description: &'p str,
    /// How many scopes it supports.
    scopes: usize,
    baseline: Vec<&'p str>,
    matching: &'static str,
}

/// Finds a page.
pub(super) fn find<'p>(
    policy: &'p ServedPolicy,
    index: &SearchIndex,
    words: &SearchWords,
    from: usize,
    limit: usize,
) -> AudiencePage<'p> {
    let found = index.find(words);
    let all = policy.active.set.audiences();
    // A page beyond the end is the last one.
    let last = found.len().saturating_sub(1) / limit * limit;
    let from = from.min(last);
    let rows =
        found.iter().skip(from).take(limit).filter_map(|at| all.get(*at)).map(|audience| AudienceRow {
            audience: &audience.audience,
            description: &audience.description,
            scopes: audience.scopes_supported.len(),
            baseline: audience.baseline_client_scopes.iter().collect(),
            matching: audience.scope_matching.as_str(),
        });
    AudiencePage {
        total: all.len(),
        matches: found.len(),
        from,
        generation: policy.active.generation,
        audiences: rows.collect(),
    }
}

/// All about one audience, defaults filled in and guardrails folded in.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AudienceFacts<'p> {
    audience: &'p str,
    description: &'p str,
    /// Where it is declared; empty if that is not known.
    place: String,
    aliases: Vec<&'p str>,
    /// Every key that has a meaning, in the order of the reference.
    keys: Vec<KeyFacts<'p>>,
    rules: Vec<RuleFacts<'p>>,
    /// Scopes and their texts.
    scope_descriptions: Map<String, Value>,
}

/// A key: its value, or the entries of its list.
#[derive(Debug, Serialize)]
struct KeyFacts<'p> {
    key: &'p str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entries: Option<Vec<&'p str>>,
    /// Where it is written; empty if it has its default.
    place: String,
}

#[derive(Debug, Serialize)]
struct RuleFacts<'p> {
    name: &'p str,
    /// The members of `when`.
    when: Vec<String>,
    baseline: Vec<&'p str>,
    place: String,
}

impl<'p> AudienceFacts<'p> {
    /// What there is to say about an audience.
    pub(super) fn new(policy: &'p ServedPolicy, audience: &'p AudiencePolicy) -> Self {
        let places = &policy.places().places;
        let place = |place: Option<FilePlace>| place.map(|place| place.to_string()).unwrap_or_default();
        let text = |(scope, text): &(Box<str>, Box<str>)| (scope.to_string(), Value::from(&**text));
        Self {
            audience: &audience.audience,
            description: &audience.description,
            place: place(places.place(audience)),
            aliases: audience.aliases.iter().map(|alias| &*alias.spelled).collect(),
            keys: meanings()
                .iter()
                .filter_map(|AudienceKey { path, read, effect: _ }| {
                    let (value, entries) = match read {
                        Compiled::Scopes(read) => (None, Some(read(audience).iter().collect())),
                        Compiled::Word(read) => (Some(read(audience).to_owned()), None),
                        Compiled::BySource(read) => (Some(read(audience).to_string()), None),
                        // They have members of their own.
                        Compiled::Aliases(_) | Compiled::Rules(_) => return None,
                    };
                    Some(KeyFacts { key: path, value, entries, place: place(places.setting(audience, path)) })
                })
                .collect(),
            rules: (0..)
                .zip(&*audience.client_rules)
                .map(|(at, ClientRule { name, when, baseline_client_scopes })| RuleFacts {
                    name,
                    when: members(when),
                    baseline: baseline_client_scopes.iter().collect(),
                    place: place(places.rule(audience, at)),
                })
                .collect(),
            scope_descriptions: audience.scope_descriptions.iter().map(text).collect(),
        }
    }
}

/// The members of a condition, as in policy files.
fn members(when: &ClientCondition) -> Vec<String> {
    let ClientCondition {
        source,
        client_id_host,
        software_id,
        client_name,
        redirect_uri,
        grant_types,
        application_type,
    } = when;
    let redirect_uri = redirect_uri.as_ref().map(|uri| match uri {
        RedirectCondition::Loopback => "loopback",
        RedirectCondition::Exact(uri) => uri,
    });
    let grant_types = grant_types.as_ref().map(|types| format!("[{}]", types.join(", ")));
    [
        ("source", source.map(ClientSource::as_str)),
        ("clientIdHost", client_id_host.as_deref()),
        ("softwareId", software_id.as_deref()),
        ("clientName", client_name.as_deref()),
        ("redirectUri", redirect_uri),
        ("grantTypes", grant_types.as_deref()),
        ("applicationType", application_type.as_deref()),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some(format!("{key}: {}", value?)))
    .collect()
}
