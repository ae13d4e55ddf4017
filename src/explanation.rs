//! Why an answer is what it is: its trail as facts, with their grounds in the files.
//!
//! What `explain` prints and the console shows. Knows no files but the places of what they declare, and not how it is shown.

use serde::Serialize;

use self::places::{Declaration, FilePlace, ListEntry, Places};
use crate::decision::client::holds;
use crate::decision::{Answer, Client, Coverage, Reason, ScopeOutcome, ScopeStep, Withheld};
use crate::policy::finding::nearest_few;
use crate::policy::{AudiencePolicy, ClientCondition, PolicySet};

pub mod places;
pub mod words;

/// What there is to say about one answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Whether the scope was omitted, or decided as if it had been.
    pub as_omitted: bool,
    /// How each scope fared at each audience.
    pub trail: Vec<Fact>,
    /// Which client rules hold, at each audience.
    pub client_rules: Vec<RuleMatch>,
    /// The settings that had a part in the answer, at each audience.
    pub settings: Vec<Setting>,
    /// For each audience that was named and is unknown, those that were probably meant.
    pub near_audiences: Vec<NearAudiences>,
    /// Where each audience is declared.
    #[serde(skip)]
    places: Vec<(String, FilePlace)>,
}

/// An unknown audience and those that were probably meant.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NearAudiences {
    /// As named.
    pub audience: String,
    /// The nearest first; may be empty.
    pub near: Vec<String>,
}

/// How one scope fared at one audience.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fact {
    /// As spelled in the policy.
    pub audience: String,
    /// The scope.
    pub scope: String,
    /// Whether the request named it.
    pub asked: bool,
    /// `GRANTED`, `REFUSED` or `WITHHELD` (not given unasked).
    pub outcome: &'static str,
    /// Why it was refused or withheld; empty if granted.
    pub reason: &'static str,
    /// The entry of `scopesSupported` that covers it.
    pub supported: Option<ListEntry>,
    /// The entry of `forbiddenScopes` that stops it.
    pub forbidden: Option<ListEntry>,
    /// The entry of `privilegedScopes` that it is under.
    pub privileged: Option<ListEntry>,
    /// What covers it; at registration, what gives it.
    pub held: Option<Holding>,
    /// Whether `alwaysGrantScopes` has it, at an authorize request that names other scopes.
    pub always: bool,
    /// The setting that lets it stand in for an omitted scope, at an authorize request.
    pub stands_in: Option<ListEntry>,
    /// Why nothing covers it, where that is why it was refused or withheld.
    pub not_held: Option<NotHeld>,
}

/// Why a client does not hold a scope.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NotHeld {
    /// `NOT_REGISTERED`, `BASELINE_NOT_FOR_EXISTING_CLIENTS` (a baseline or rule has it, and does not cover this client),
    /// `REGISTRATION_UNKNOWN`, `REGISTRATION_UNKNOWN_FOR_TOKEN` (the same at the token endpoint, where defaults do not count), or
    /// `NOT_IN_GRANT`.
    pub because: &'static str,
    /// The setting that says so; none where the client has not registered it, or the grant does not have it.
    #[serde(flatten)]
    pub setting: Option<ListEntry>,
}

/// What covers a scope.
#[derive(Debug, Serialize)]
pub struct Holding {
    /// `REGISTERED`, `DEFAULT`, `BASELINE`, `STEP_UP`, `ANY_SUPPORTED` for an unknown registration
    /// that is taken as everything, or `GRANTED` for the grant of a token.
    pub origin: &'static str,
    /// Name of the client rule; empty if none gives it.
    pub rule: String,
    /// The entry; at `REGISTERED` and `GRANTED` the registered or granted scope, in no list of the policy.
    #[serde(flatten)]
    pub entry: ListEntry,
}

/// A client rule and whether it holds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleMatch {
    /// As spelled in the policy.
    pub audience: String,
    /// Its name.
    pub name: String,
    /// Whether every member of `when` holds.
    pub holds: bool,
    /// The members of `when` that do not hold.
    pub not_met: Vec<&'static str>,
    /// Where it begins.
    #[serde(flatten)]
    pub place: Option<FilePlace>,
}

/// A setting of an audience.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Setting {
    /// As spelled in the policy.
    pub audience: String,
    /// Its key, by its path.
    pub key: &'static str,
    /// Its value.
    pub value: String,
    /// Where it was written; nowhere if it is the default.
    #[serde(flatten)]
    pub place: Option<FilePlace>,
}

/// Which question was asked, with what matters of it here.
#[derive(Clone, Copy, Debug)]
pub enum Asked {
    /// A registration.
    Registration,
    /// An authorize request.
    Authorize {
        /// It names no scope.
        scope_omitted: bool,
        /// It says what the client registered.
        registration_known: bool,
    },
    /// A request for a token.
    Token {
        /// It names no scope.
        scope_omitted: bool,
        /// It says what the client registered.
        registration_known: bool,
        /// It says what the grant has, which alone counts then.
        has_grant: bool,
    },
}

impl Explanation {
    /// Collects the grounds of an answer.
    #[must_use]
    pub fn new(places: &Places, answer: &Answer<'_>, client: &Client<'_>, asked: Asked) -> Self {
        let as_omitted = answer.as_omitted;
        let mut explanation = Self {
            as_omitted,
            trail: Vec::new(),
            client_rules: Vec::new(),
            settings: Vec::new(),
            near_audiences: Vec::new(),
            places: Vec::new(),
        };
        for policy in &answer.audiences {
            let Some(declared) = places.find(policy) else { continue };
            explanation.places.push((policy.audience.to_string(), declared.place()));
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

    /// Adds the audiences among those named that are unknown, each with those that were probably meant. Files outside of the
    /// policy directory are not named.
    #[must_use]
    pub fn with_near_audiences(mut self, set: &PolicySet, places: &Places, named: &[String]) -> Self {
        let is_shown =
            |policy: &AudiencePolicy| places.find(policy).is_some_and(|declared| !declared.is_outside());
        let unknown = named.iter().filter(|name| !name.is_empty() && matches!(set.audience(name), Ok(None)));
        let near = |name: &String| {
            let names = set.audiences().iter().flat_map(|policy| {
                let aliases = policy.aliases.iter().map(|alias| &*alias.spelled);
                std::iter::once(&*policy.audience).chain(aliases).map(move |name| (name, policy))
            });
            let shown = names.filter(|(_, policy)| is_shown(policy)).map(|(name, _)| name);
            let near = nearest_few(name, shown, MAX_NEAR);
            NearAudiences { audience: name.clone(), near: near.into_iter().map(str::to_owned).collect() }
        };
        self.near_audiences = unknown.map(near).collect();
        self
    }
}

/// Most audiences that are named where one is unknown.
const MAX_NEAR: usize = 3;

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
    const NOT_HELD: [ScopeOutcome; 3] = [
        ScopeOutcome::Refused(Reason::Unregistered),
        ScopeOutcome::Refused(Reason::ExceedsGrant),
        ScopeOutcome::Withheld(Withheld::NotHeld),
    ];
    if !NOT_HELD.contains(&step.outcome) {
        return None;
    }
    let (registration_known, unknown) = match asked {
        Asked::Registration => return None,
        Asked::Authorize { registration_known, .. } => (registration_known, "REGISTRATION_UNKNOWN"),
        Asked::Token { has_grant: true, .. } => {
            return Some(NotHeld { because: "NOT_IN_GRANT", setting: None });
        }
        Asked::Token { registration_known, .. } => (registration_known, "REGISTRATION_UNKNOWN_FOR_TOKEN"),
    };
    let policy = step.audience;
    let has = |list| policy.scope_matching.find(list, step.scope).is_some();
    let mut rules = policy.client_rules.iter().filter(|rule| holds(&rule.when, client));
    let is_given = has(&policy.baseline_client_scopes) || rules.any(|rule| has(&rule.baseline_client_scopes));
    Some(if !registration_known {
        let value = policy.unknown_registration.of(client.source).as_str();
        let setting = declared.choice("authorization.unknownRegistration", value);
        NotHeld { because: unknown, setting: Some(setting) }
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
        Coverage::Granted(token) => {
            ("GRANTED", ListEntry { list: "granted_scope", entry: token.to_owned(), place: None })
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
        Asked::Token { scope_omitted, registration_known, has_grant } => {
            let mut list = vec![matching];
            if !scope_omitted {
                list.push(("token.unsupportedScopes", policy.token_unsupported_scopes.as_str()));
                list.push(("token.exceedingScopes", policy.token_exceeding_scopes.as_str()));
            }
            match (has_grant, registration_known) {
                (true, _) => {}
                (false, true) => list.push(("authorization.baselineForExistingClients", baseline)),
                (false, false) => list.push(("authorization.unknownRegistration", &*unknown)),
            }
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
