//! What to ask two policies about: scopes of each kind that they treat alike, and clients that their rules tell apart.

use std::collections::{BTreeSet, HashMap};

use crate::decision::client::MAX_CLIENT_NAME_BYTES;
use crate::policy::{AudiencePolicy, ClientCondition, ClientSource, RedirectCondition};
use crate::proto::v1;
use crate::scope::MAX_TOKEN_BYTES;
use crate::scope::matching::{ScopeMatching, has_star_segment, prefixes};

/// Most scopes of the lists, and of those made from them.
const MAX_SCOPES: usize = 4_096;
/// Most scopes that are asked about.
const MAX_ASKED: usize = 128;
/// Most scopes that are asked about of those that both policies treat alike.
const ALIKE: usize = 2;
/// A segment that no list has.
const OTHER: &str = "~other~";

/// What to ask about.
#[derive(Debug)]
pub(super) struct Probes {
    /// Scopes, no two of which need to be alike.
    pub(super) scopes: Vec<String>,
    /// What is always granted to those who hold it.
    pub(super) always: Vec<String>,
    /// Clients: one of each source that no rule knows, and one for each rule.
    pub(super) clients: Vec<v1::Client>,
    /// For a scope, others that cover it where they are registered.
    covering: HashMap<String, Vec<String>>,
}

impl Probes {
    /// The probes for two policies, each of one or several audiences; `None` if there are too many.
    pub(super) fn of(old: &[&AudiencePolicy], new: &[&AudiencePolicy]) -> Option<Self> {
        let both: Vec<&AudiencePolicy> = old.iter().chain(new).copied().collect();
        let mut all = BTreeSet::from([OTHER.to_owned(), format!("{OTHER}.")]);
        for policy in &both {
            let rules = policy.client_rules.iter().flat_map(|rule| rule.baseline_client_scopes.iter());
            let lists = [
                &policy.scopes_supported,
                &policy.baseline_client_scopes,
                &policy.default_client_scopes,
                &policy.privileged_scopes,
                &policy.forbidden_scopes,
                &policy.step_up_scopes,
                &policy.always_grant_scopes,
            ];
            all.extend(lists.into_iter().flat_map(|list| list.iter()).chain(rules).map(str::to_owned));
            if all.len() > MAX_SCOPES {
                return None;
            }
        }
        let has = |matching| both.iter().any(|policy| policy.scope_matching == matching);
        let mut made = BTreeSet::new();
        if has(ScopeMatching::Hierarchic) || has(ScopeMatching::Wildcard) {
            for scope in &all {
                made.extend(
                    prefixes(scope, MAX_TOKEN_BYTES).filter(|prefix| !prefix.is_empty()).map(str::to_owned),
                );
                made.insert(format!("{scope}.{OTHER}"));
            }
        }
        if has(ScopeMatching::Wildcard) {
            let patterns: Vec<&String> = all.iter().filter(|scope| has_star_segment(scope)).collect();
            if patterns.len() > MAX_ASKED {
                return None;
            }
            for scope in &patterns {
                made.insert(instance(scope, OTHER, OTHER));
                made.insert(instance(scope, OTHER, &format!("{OTHER}.{OTHER}")));
            }
            for scope in &all {
                made.insert(format!("{scope}.*"));
                made.extend(patterns.iter().filter_map(|pattern| meet(pattern, scope)));
            }
            let meets: Vec<String> = made.iter().filter(|scope| has_star_segment(scope)).cloned().collect();
            made.extend(meets.iter().map(|scope| instance(scope, OTHER, OTHER)));
            made.insert("*".to_owned());
            made.insert(format!("{OTHER}.{OTHER}"));
        }
        all.extend(made.into_iter().filter(|scope| scope.len() <= MAX_TOKEN_BYTES));
        if all.len() > MAX_SCOPES {
            return None;
        }
        let mut kinds: HashMap<Vec<u8>, usize> = HashMap::new();
        let mut scopes = Vec::new();
        for scope in &all {
            let count = kinds.entry(treatment(&both, scope)).or_default();
            *count += 1;
            if *count <= ALIKE {
                scopes.push(scope.clone());
            }
        }
        if scopes.len() > MAX_ASKED {
            return None;
        }
        let covering = scopes.iter().map(|scope| (scope.clone(), covering(scope, &all, old, new))).collect();
        let always: BTreeSet<&str> =
            new.iter().flat_map(|policy| policy.always_grant_scopes.iter()).collect();
        Some(Self {
            scopes,
            always: always.into_iter().map(str::to_owned).collect(),
            clients: clients(&both),
            covering,
        })
    }

    /// Scopes that cover this one where a client registered them.
    pub(super) fn covering(&self, scope: &str) -> impl Iterator<Item = &String> {
        self.covering.get(scope).into_iter().flatten()
    }
}

/// Which lists have a scope, at each policy.
fn treatment(policies: &[&AudiencePolicy], scope: &str) -> Vec<u8> {
    let mut treatment = Vec::new();
    for policy in policies {
        let matching = policy.scope_matching;
        let mut push = |found: bool| treatment.push(u8::from(found));
        push(matching.find(&policy.scopes_supported, scope).is_some());
        push(matching.find_stop(&policy.forbidden_scopes, scope).is_some());
        push(matching.find_stop(&policy.privileged_scopes, scope).is_some());
        push(matching == ScopeMatching::Wildcard && has_star_segment(scope));
        let rules = policy.client_rules.iter().map(|rule| &rule.baseline_client_scopes);
        let lists = [&policy.baseline_client_scopes, &policy.default_client_scopes, &policy.step_up_scopes];
        for list in lists.into_iter().chain([&policy.always_grant_scopes]).chain(rules) {
            push(matching.find(list, scope).is_some());
            push(list.contains(scope));
        }
    }
    treatment
}

/// Of the scopes that cover one another: those that do so at the newer policy and not at the older one, and one that does.
fn covering(
    scope: &str,
    all: &BTreeSet<String>,
    old: &[&AudiencePolicy],
    new: &[&AudiencePolicy],
) -> Vec<String> {
    let covers = |policies: &[&AudiencePolicy], token: &str| {
        policies.iter().any(|policy| {
            let matching = policy.scope_matching;
            matching.matches(token, scope)
                && matching.find(&policy.scopes_supported, token).is_some()
                && matching.find_stop(&policy.forbidden_scopes, token).is_none()
        })
    };
    let others = || all.iter().filter(|token| *token != scope && covers(new, token));
    let is_new = others().find(|token| !covers(old, token));
    is_new.into_iter().chain(others().next()).cloned().collect()
}

/// A pattern with its stars replaced; a last one may stand for several segments.
fn instance(pattern: &str, inner: &str, last: &str) -> String {
    let count = pattern.split('.').count();
    let segments = pattern.split('.').enumerate().map(|(at, segment)| match segment {
        "*" if at + 1 == count => last,
        "*" => inner,
        other => other,
    });
    segments.collect::<Vec<_>>().join(".")
}

/// What two patterns have in common, as a pattern; `None` if there is nothing.
fn meet(one: &str, other: &str) -> Option<String> {
    let (one, other): (Vec<&str>, Vec<&str>) = (one.split('.').collect(), other.split('.').collect());
    let length = one.len().max(other.len());
    let at = |pattern: &[&'_ str], place: usize| -> Option<String> {
        // A last star stands for all that follows.
        let segment = pattern.get(place).or_else(|| pattern.last().filter(|last| **last == "*"));
        segment.map(|segment| (*segment).to_owned())
    };
    let segments: Option<Vec<String>> = (0..length)
        .map(|place| match (at(&one, place)?, at(&other, place)?) {
            (one, other) if one == "*" => Some(other),
            (one, other) if other == "*" || one == other => Some(one),
            _ => None,
        })
        .collect();
    Some(segments?.join("."))
}

/// A client of each source that no rule on anything else knows, and for each rule one that has what it asks for and no more.
fn clients(policies: &[&AudiencePolicy]) -> Vec<v1::Client> {
    let rules = policies.iter().flat_map(|policy| policy.client_rules.iter()).map(|rule| &rule.when);
    let mut clients = Vec::new();
    for when in std::iter::once(&ClientCondition::default()).chain(rules) {
        let sources = match (when.source, &when.client_id_host) {
            (Some(source), _) => vec![Some(source)],
            (None, Some(_)) => vec![Some(ClientSource::Cimd)],
            (None, None) => {
                vec![None, Some(ClientSource::Cimd), Some(ClientSource::Dcr), Some(ClientSource::Static)]
            }
        };
        for source in sources {
            let client = client(when, source);
            if !clients.contains(&client) {
                clients.push(client);
            }
        }
    }
    clients
}

/// What is not asked for is something that no rule asks for.
fn client(when: &ClientCondition, source: Option<ClientSource>) -> v1::Client {
    let ClientCondition {
        source: _,
        client_id_host,
        software_id,
        client_name,
        redirect_uri,
        grant_types,
        application_type,
    } = when;
    let owned = |text: &Option<Box<str>>| text.as_deref().unwrap_or_default().to_owned();
    let other_uri = || format!("https://{}.invalid/", OTHER.trim_matches('~'));
    let source = match source {
        None => v1::ClientSource::Unspecified,
        Some(ClientSource::Cimd) => v1::ClientSource::Cimd,
        Some(ClientSource::Dcr) => v1::ClientSource::Dcr,
        Some(ClientSource::Static) => v1::ClientSource::Static,
    };
    let name = owned(client_name).replace('*', "\u{1}");
    v1::Client {
        client_id: client_id_host.as_ref().map(|host| format!("https://{host}/{OTHER}")).unwrap_or_default(),
        source: source.into(),
        client_name: if name.len() > MAX_CLIENT_NAME_BYTES {
            owned(client_name).replace('*', "")
        } else {
            name
        },
        software_id: owned(software_id),
        software_version: String::new(),
        redirect_uris: match redirect_uri {
            None => Vec::new(),
            Some(RedirectCondition::Loopback) => vec![format!("http://localhost/{OTHER}")],
            // One of them is enough for that rule, and not for one that wants all of them to be loopback.
            Some(RedirectCondition::Exact(uri)) => vec![uri.to_string(), other_uri()],
        },
        // None would mean `authorization_code`.
        grant_types: match grant_types {
            None => vec![OTHER.to_owned()],
            Some(types) => types.iter().map(|grant| grant.to_string()).collect(),
        },
        application_type: owned(application_type),
    }
}
