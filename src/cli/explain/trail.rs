//! The trail of an answer as facts with their grounds in the files: what `explain` prints and writes.

use serde::Serialize;

use super::sources::{Declaration, FilePlace, ListEntry, Sources};
use crate::decision::client::holds;
use crate::decision::{Answer, Client, Coverage, Reason, ScopeOutcome, ScopeStep, Withheld};
use crate::policy::{AudiencePolicy, ClientCondition};

/// What there is to say about one answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Explanation {
    /// Whether the scope was omitted, or decided as if it had been.
    pub(super) as_omitted: bool,
    /// How each scope fared at each audience.
    pub(super) trail: Vec<Fact>,
    /// Which client rules hold, at each audience.
    pub(super) client_rules: Vec<RuleMatch>,
    /// The settings that had a part in the answer, at each audience.
    pub(super) settings: Vec<Setting>,
    /// For each audience that was named and is unknown, those that were probably meant.
    pub(super) near_audiences: Vec<NearAudiences>,
}

/// An unknown audience and those that were probably meant.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NearAudiences {
    pub(super) audience: String,
    /// The nearest first; may be empty.
    pub(super) near: Vec<String>,
}

/// How one scope fared at one audience.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Fact {
    pub(super) audience: String,
    pub(super) scope: String,
    /// Whether the request named it.
    pub(super) asked: bool,
    /// `GRANTED`, `REFUSED` or `WITHHELD` (not given unasked).
    pub(super) outcome: &'static str,
    /// Why it was refused or withheld; empty if granted.
    pub(super) reason: &'static str,
    pub(super) supported: Option<ListEntry>,
    pub(super) forbidden: Option<ListEntry>,
    pub(super) privileged: Option<ListEntry>,
    /// What covers it; at registration, what gives it.
    pub(super) held: Option<Holding>,
    /// Whether `alwaysGrantScopes` has it, at an authorize request that names other scopes.
    pub(super) always: bool,
    /// The setting that lets it stand in for an omitted scope, at an authorize request.
    pub(super) stands_in: Option<ListEntry>,
    /// Why nothing covers it, where that is why it was refused or withheld.
    pub(super) not_held: Option<NotHeld>,
}

/// Why a client does not hold a scope.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NotHeld {
    /// `NOT_REGISTERED`, `BASELINE_NOT_FOR_EXISTING_CLIENTS` (a baseline or rule has it, and does not cover this client), or
    /// `REGISTRATION_UNKNOWN`.
    pub(super) because: &'static str,
    /// The setting that says so; none where the client has not registered it.
    #[serde(flatten)]
    pub(super) setting: Option<ListEntry>,
}

/// What covers a scope.
#[derive(Debug, Serialize)]
pub(super) struct Holding {
    /// `REGISTERED`, `DEFAULT`, `BASELINE`, `STEP_UP`, or `ANY_SUPPORTED` for an unknown registration
    /// that is taken as everything.
    pub(super) origin: &'static str,
    /// Name of the client rule; empty if none gives it.
    pub(super) rule: String,
    /// The entry; at `REGISTERED` the registered scope, in no list of the policy.
    #[serde(flatten)]
    pub(super) entry: ListEntry,
}

/// A client rule and whether it holds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RuleMatch {
    pub(super) audience: String,
    pub(super) name: String,
    pub(super) holds: bool,
    /// The members of `when` that do not hold.
    pub(super) not_met: Vec<&'static str>,
    #[serde(flatten)]
    pub(super) place: Option<FilePlace>,
}

/// A setting of an audience.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Setting {
    pub(super) audience: String,
    pub(super) key: &'static str,
    pub(super) value: String,
    /// Where it was written; nowhere if it is the default.
    #[serde(flatten)]
    pub(super) place: Option<FilePlace>,
}

/// Which question was asked, with what matters of it here.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked {
    Registration,
    Authorize { scope_omitted: bool, registration_known: bool },
}

impl Explanation {
    /// Collects the grounds of an answer.
    pub(super) fn new(sources: &Sources, answer: &Answer<'_>, client: &Client<'_>, asked: Asked) -> Self {
        let as_omitted = answer.as_omitted;
        let mut explanation = Self {
            as_omitted,
            trail: Vec::new(),
            client_rules: Vec::new(),
            settings: Vec::new(),
            near_audiences: Vec::new(),
        };
        for policy in &answer.audiences {
            let Some(declared) = sources.find(policy) else { continue };
            let steps = answer.trail.iter().filter(|step| std::ptr::eq(step.audience, *policy));
            explanation.trail.extend(steps.map(|step| Fact {
                stands_in: stands_in(&declared, step, asked).filter(|_| as_omitted),
                not_held: not_held(&declared, step, client, asked),
                ..fact(&declared, step)
            }));
            explanation.client_rules.extend(rules(&declared, policy, client));
            explanation.settings.extend(settings(&declared, policy, asked, as_omitted));
        }
        explanation
    }
}

fn fact(declared: &Declaration<'_>, step: &ScopeStep<'_>) -> Fact {
    let policy = step.audience;
    let (outcome, reason) = match step.outcome {
        ScopeOutcome::Granted => ("GRANTED", ""),
        ScopeOutcome::Refused(reason) => ("REFUSED", reason.as_str()),
        ScopeOutcome::Withheld(why) => ("WITHHELD", withheld(why)),
    };
    Fact {
        audience: policy.audience.to_string(),
        scope: step.scope.to_owned(),
        asked: step.asked,
        outcome,
        reason,
        supported: step.supported.map(|at| declared.entry("scopesSupported", &policy.scopes_supported, at)),
        forbidden: step.forbidden.map(|at| declared.forbidden(policy, at)),
        privileged: policy
            .scope_matching
            .find_stop(&policy.privileged_scopes, step.scope)
            .map(|at| declared.privileged(policy, at)),
        held: step.held.map(|held| holding(declared, step, held)),
        always: !step.asked && policy.always_grant_scopes.contains(step.scope),
        stands_in: None,
        not_held: None,
    }
}

/// The setting that names what stands in for an omitted scope, for a scope that was not asked for.
fn stands_in(declared: &Declaration<'_>, step: &ScopeStep<'_>, asked: Asked) -> Option<ListEntry> {
    let is_authorize = matches!(asked, Asked::Authorize { .. });
    (is_authorize && !step.asked)
        .then(|| declared.choice("authorization.omittedScope", step.audience.omitted_scope.as_str()))
}

fn not_held(
    declared: &Declaration<'_>,
    step: &ScopeStep<'_>,
    client: &Client<'_>,
    asked: Asked,
) -> Option<NotHeld> {
    const NOT_HELD: [ScopeOutcome; 2] =
        [ScopeOutcome::Refused(Reason::Unregistered), ScopeOutcome::Withheld(Withheld::NotHeld)];
    let Asked::Authorize { registration_known, .. } = asked else { return None };
    if !NOT_HELD.contains(&step.outcome) {
        return None;
    }
    let policy = step.audience;
    let has = |list| policy.scope_matching.find(list, step.scope).is_some();
    let mut rules = policy.client_rules.iter().filter(|rule| holds(&rule.when, client));
    let is_given = has(&policy.baseline_client_scopes) || rules.any(|rule| has(&rule.baseline_client_scopes));
    Some(if !registration_known {
        let value = policy.unknown_registration.of(client.source).as_str();
        let setting = declared.choice("authorization.unknownRegistration", value);
        NotHeld { because: "REGISTRATION_UNKNOWN", setting: Some(setting) }
    } else if is_given && !policy.baseline_for_existing_clients {
        let setting = declared.choice("authorization.baselineForExistingClients", "false");
        NotHeld { because: "BASELINE_NOT_FOR_EXISTING_CLIENTS", setting: Some(setting) }
    } else {
        NotHeld { because: "NOT_REGISTERED", setting: None }
    })
}

fn holding(declared: &Declaration<'_>, step: &ScopeStep<'_>, held: Coverage<'_>) -> Holding {
    let policy = step.audience;
    let mut name = String::new();
    let (origin, entry) = match held {
        Coverage::Registered(token) => {
            ("REGISTERED", ListEntry { list: "registered_scope", entry: token.to_owned(), place: None })
        }
        Coverage::AnySupported => {
            let key = "authorization.unknownRegistration";
            let value = policy.unknown_registration.to_string();
            ("ANY_SUPPORTED", ListEntry { list: key, entry: value, place: declared.setting(key) })
        }
        Coverage::Default(at) => {
            ("DEFAULT", declared.entry("defaultClientScopes", &policy.default_client_scopes, at))
        }
        Coverage::Baseline(at) => {
            ("BASELINE", declared.entry("baselineClientScopes", &policy.baseline_client_scopes, at))
        }
        Coverage::Rule(rule, at) => {
            name = policy.client_rules.get(rule).map(|rule| rule.name.to_string()).unwrap_or_default();
            ("BASELINE", declared.of_rule(policy, rule, at))
        }
        Coverage::StepUp(at) => {
            ("STEP_UP", declared.entry("authorization.stepUpScopes", &policy.step_up_scopes, at))
        }
    };
    Holding { origin, rule: name, entry }
}

const fn withheld(why: Withheld) -> &'static str {
    match why {
        Withheld::Forbidden => "FORBIDDEN",
        Withheld::Unsupported => "UNSUPPORTED",
        Withheld::Privileged => "PRIVILEGED",
        Withheld::StepUp => "STEP_UP",
        Withheld::Wildcard => "WILDCARD",
        Withheld::NotHeld => "NOT_HELD",
    }
}

fn rules<'a>(
    declared: &'a Declaration<'_>,
    policy: &'a AudiencePolicy,
    client: &'a Client<'_>,
) -> impl Iterator<Item = RuleMatch> {
    policy.client_rules.iter().enumerate().map(move |(at, rule)| {
        let not_met: Vec<_> = members(&rule.when)
            .into_iter()
            .filter(|(_, member)| !holds(member, client))
            .map(|(key, _)| key)
            .collect();
        RuleMatch {
            audience: policy.audience.to_string(),
            name: rule.name.to_string(),
            holds: not_met.is_empty(),
            not_met,
            place: declared.rule(at),
        }
    })
}

/// Each member of a condition as a condition of its own. A member that is not there always holds.
fn members(when: &ClientCondition) -> [(&'static str, ClientCondition); 7] {
    let ClientCondition {
        source,
        client_id_host,
        software_id,
        client_name,
        redirect_uri,
        grant_types,
        application_type,
    } = when.clone();
    let none = ClientCondition::default;
    [
        ("source", ClientCondition { source, ..none() }),
        ("clientIdHost", ClientCondition { client_id_host, ..none() }),
        ("softwareId", ClientCondition { software_id, ..none() }),
        ("clientName", ClientCondition { client_name, ..none() }),
        ("redirectUri", ClientCondition { redirect_uri, ..none() }),
        ("grantTypes", ClientCondition { grant_types, ..none() }),
        ("applicationType", ClientCondition { application_type, ..none() }),
    ]
}

/// The settings that can change the answer to a question of this kind.
fn settings(
    declared: &Declaration<'_>,
    policy: &AudiencePolicy,
    asked: Asked,
    as_omitted: bool,
) -> Vec<Setting> {
    let baseline = if policy.baseline_for_existing_clients { "true" } else { "false" };
    let unknown = policy.unknown_registration.to_string();
    let matching = ("scopeMatching", policy.scope_matching.as_str());
    let list = match asked {
        Asked::Registration => {
            vec![
                matching,
                ("registration.unsupportedScopes", policy.registration_unsupported_scopes.as_str()),
                ("registration.nothingLeft", policy.registration_nothing_left.as_str()),
            ]
        }
        Asked::Authorize { scope_omitted, registration_known } => {
            let mut list = vec![matching];
            if !scope_omitted {
                list.push(("authorization.unsupportedScopes", policy.unsupported_scopes.as_str()));
                list.push(("authorization.unregisteredScopes", policy.unregistered_scopes.as_str()));
                list.push(("authorization.nothingLeft", policy.nothing_left.as_str()));
            }
            if as_omitted {
                list.push(("authorization.omittedScope", policy.omitted_scope.as_str()));
            }
            list.push(if registration_known {
                ("authorization.baselineForExistingClients", baseline)
            } else {
                ("authorization.unknownRegistration", &*unknown)
            });
            list
        }
    };
    let setting = |(key, value): (&'static str, &str)| Setting {
        audience: policy.audience.to_string(),
        key,
        value: value.to_owned(),
        place: declared.setting(key),
    };
    list.into_iter().map(setting).collect()
}
