//! The nearest static configuration of a policy, for authorization servers that will not ask.
//!
//! Such a configuration knows lists of scopes and no questions, so most policies say more. What is lost is told as
//! [`Departure`]s, and the text has them as comments. Reads no files.

use std::fmt::{self, Write as _};

use crate::escape::shown;
use crate::policy::{
    AudiencePolicy, IMPLIED_DEFAULT_SCOPES, NothingLeft, OmittedScope, PolicySet, Treatment,
};
use crate::scope::matching::{ScopeMatching, has_star_segment};

mod script;

/// Whose configuration it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StaticServer {
    /// The embedded authorization server of ToolHive: members of its run configuration, in YAML.
    ToolHive,
    /// Keycloak: a shell script for its `kcadm.sh`.
    Keycloak,
    /// The OAuth provider of Better Auth 1.7: options, in TypeScript.
    BetterAuth,
    /// The auth server of the MCP Python SDK: its `ClientRegistrationOptions`, in Python.
    McpSdk,
}

/// What becomes of clients where the configuration departs from the policy.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum DepartureEffect {
    /// They may get more than by the policy.
    More,
    /// They get less than by the policy, or are refused.
    Less,
    /// What they get is for the server to say.
    Other,
}

impl fmt::Display for DepartureEffect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::More => "more than the policy",
            Self::Less => "less than the policy",
            Self::Other => "otherwise",
        })
    }
}

/// One thing that the configuration cannot say as the policy does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Departure {
    /// What becomes of clients.
    pub effect: DepartureEffect,
    /// What differs, as one sentence without a full stop. Safe to print.
    pub about: String,
}

/// A configuration, and what it cannot say.
#[derive(Clone, Debug)]
pub struct StaticConfiguration {
    /// The text of the file, with the departures as comments.
    pub text: String,
    /// What lets clients have more first. Never empty: no server audits or reloads its own.
    pub departures: Vec<Departure>,
}

/// The lists that a configuration is made of, each in policy order.
struct Lists<'p> {
    /// What may be granted at all: supported, not forbidden, no patterns.
    supported: Vec<&'p str>,
    baseline: Vec<&'p str>,
    /// What a registration without scope gets: the defaults with the baseline behind them.
    omitted: Vec<&'p str>,
    /// Of the supported ones those that nobody is given unasked.
    privileged: Vec<&'p str>,
}

impl<'p> Lists<'p> {
    fn of(policy: &'p AudiencePolicy) -> Self {
        let matching = policy.scope_matching;
        let supported: Vec<&str> =
            policy.published_scopes().filter(|scope| !is_pattern(matching, scope)).collect();
        let granted = |scope: &&str| supported.contains(scope);
        let baseline: Vec<&str> = policy.baseline_client_scopes.iter().filter(granted).collect();
        let mut omitted: Vec<&str> = policy.default_client_scopes.iter().filter(granted).collect();
        for scope in &baseline {
            if !omitted.contains(scope) {
                omitted.push(scope);
            }
        }
        let privileged = supported
            .iter()
            .copied()
            .filter(|scope| matching.find_stop(&policy.privileged_scopes, scope).is_some())
            .collect();
        Self { supported, baseline, omitted, privileged }
    }
}

fn is_pattern(matching: ScopeMatching, scope: &str) -> bool {
    matching == ScopeMatching::Wildcard && has_star_segment(scope)
}

/// The configuration of one audience of a set.
///
/// It is written so that a server gives what the policy gives where that can be said, and else less; where neither can be said,
/// a departure of [`DepartureEffect::More`] tells so.
#[must_use]
pub fn export(set: &PolicySet, policy: &AudiencePolicy, server: StaticServer) -> StaticConfiguration {
    let lists = Lists::of(policy);
    let mut departures = departures(set, policy, &lists, server);
    departures.sort_by_key(|departure| departure.effect);
    let comment = if server == StaticServer::BetterAuth { "//" } else { "#" };
    let mut text = String::new();
    if server == StaticServer::Keycloak {
        text.push_str("#!/bin/sh\n");
    }
    let (audience, digest) = (shown(&policy.audience), set.digest());
    _ = writeln!(
        text,
        "{comment} The nearest to the audience `{audience}` of the policy {digest}, as of its export:"
    );
    _ = writeln!(text, "{comment} an edit of the policy is not in it. What it cannot say:");
    for Departure { effect, about } in &departures {
        _ = writeln!(text, "{comment} - {effect}: {about}");
    }
    match server {
        StaticServer::ToolHive => toolhive(&mut text, &lists),
        StaticServer::Keycloak => script::keycloak(&mut text, &lists.supported, &lists.omitted),
        StaticServer::BetterAuth => better_auth(&mut text, &lists),
        StaticServer::McpSdk => mcp_sdk(&mut text, &lists),
    }
    StaticConfiguration { text, departures }
}

fn toolhive(text: &mut String, lists: &Lists<'_>) {
    text.push_str(
        "# For the run configuration of the embedded authorization server; the operator takes the second as \
         `baselineClientScopes`.\n",
    );
    _ = writeln!(text, "scopes_supported: {}", array(&lists.supported));
    _ = writeln!(text, "baseline_client_scopes: {}", array(&lists.baseline));
}

fn better_auth(text: &mut String, lists: &Lists<'_>) {
    let allowed: Vec<&str> =
        lists.supported.iter().copied().filter(|scope| !lists.privileged.contains(scope)).collect();
    text.push_str("// In the options of `oauthProvider`: `oauthProvider({ ...scopeOptions, ... })`.\nexport const scopeOptions = {\n");
    _ = writeln!(text, "  scopes: {},", array(&lists.supported));
    _ = writeln!(text, "  clientRegistrationDefaultScopes: {},", array(&lists.omitted));
    _ = writeln!(text, "  clientRegistrationAllowedScopes: {},", array(&allowed));
    text.push_str("};\n");
}

fn mcp_sdk(text: &mut String, lists: &Lists<'_>) {
    text.push_str(
        "# For `AuthSettings(client_registration_options=...)`.\nfrom mcp.server.auth.settings import ClientRegistrationOptions\n\n\
         client_registration_options = ClientRegistrationOptions(\n    enabled=True,\n",
    );
    _ = writeln!(text, "    valid_scopes={},", array(&lists.supported));
    _ = writeln!(text, "    default_scopes={},", array(&lists.omitted));
    text.push_str(")\n");
}

/// A list in the syntax that YAML, TypeScript and Python share: no scope has a quote or a backslash (RFC 6749 section 3.3).
fn array(scopes: &[&str]) -> String {
    let quoted: Vec<String> = scopes.iter().map(|scope| format!("\"{scope}\"")).collect();
    format!("[{}]", quoted.join(", "))
}

/// Scopes for a sentence.
fn named<'s>(scopes: impl IntoIterator<Item = &'s str>) -> String {
    let all: Vec<&str> = scopes.into_iter().collect();
    shown(&all.join(" "))
}

fn departures(
    set: &PolicySet,
    policy: &AudiencePolicy,
    lists: &Lists<'_>,
    server: StaticServer,
) -> Vec<Departure> {
    let mut found = Vec::new();
    let mut add = |effect, about: String| found.push(Departure { effect, about });
    add(DepartureEffect::Other, "nothing is recorded of what clients get without asking".to_owned());
    let others = set.audiences().len().saturating_sub(1);
    if others > 0 {
        let others =
            if others == 1 { "another audience".to_owned() } else { format!("{others} other audiences") };
        add(DepartureEffect::Less, format!("{others} of the policy: it has one alone"));
    }
    at_registration(policy, lists, server, &mut add);
    at_authorize(policy, lists, server, &mut add);
    found
}

fn at_registration(
    policy: &AudiencePolicy,
    lists: &Lists<'_>,
    server: StaticServer,
    add: &mut impl FnMut(DepartureEffect, String),
) {
    match policy.scope_matching {
        ScopeMatching::Exact => {}
        ScopeMatching::Hierarchic => {
            add(
                DepartureEffect::Less,
                "a scope stands for itself alone, and not for those below it (`scopeMatching: hierarchic`)"
                    .to_owned(),
            );
        }
        ScopeMatching::Wildcard => {
            let patterns =
                named(policy.published_scopes().filter(|scope| is_pattern(policy.scope_matching, scope)));
            if !patterns.is_empty() {
                add(DepartureEffect::Less, format!("patterns are left out: `{patterns}`"));
            }
        }
    }
    let baseline = named(lists.baseline.iter().copied());
    match server {
        StaticServer::ToolHive => {
            let implied = IMPLIED_DEFAULT_SCOPES.into_iter().filter(|scope| lists.supported.contains(scope));
            let mut given: Vec<&str> = implied.chain(lists.baseline.iter().copied()).collect();
            given.sort_unstable();
            given.dedup();
            let mut wanted = lists.omitted.clone();
            wanted.sort_unstable();
            if given != wanted {
                let effect = if given.iter().all(|scope| wanted.contains(scope)) {
                    DepartureEffect::Less
                } else {
                    DepartureEffect::More
                };
                let (given, wanted) = (named(given), named(wanted));
                add(effect, format!("a registration without scope gets `{given}`, and not `{wanted}`"));
            }
        }
        StaticServer::BetterAuth => {
            add(
                DepartureEffect::More,
                "every registered client holds all of `clientRegistrationAllowedScopes`, whatever it registered with".to_owned(),
            );
            if !lists.privileged.is_empty() {
                let privileged = named(lists.privileged.iter().copied());
                add(
                    DepartureEffect::Less,
                    format!(
                        "no client can register privileged scopes, since every one would hold them: `{privileged}`"
                    ),
                );
            }
        }
        StaticServer::Keycloak | StaticServer::McpSdk if !lists.baseline.is_empty() => {
            add(
                DepartureEffect::Less,
                format!(
                    "a client that registers with a scope does not get the baseline in addition: `{baseline}`"
                ),
            );
        }
        StaticServer::Keycloak | StaticServer::McpSdk => {}
    }
    if server == StaticServer::Keycloak {
        add(
            DepartureEffect::Other,
            "scopes that the realm gives new clients by default stay as they are".to_owned(),
        );
    }
    for rule in &policy.client_rules {
        let (name, scopes) = (shown(&rule.name), named(rule.baseline_client_scopes.iter()));
        add(DepartureEffect::Less, format!("the client rule `{name}` is not in it: `{scopes}`"));
    }
    if policy.registration_unsupported_scopes == Treatment::Drop {
        add(DepartureEffect::Less, "a registration with a scope that is not supported is refused (`registration.unsupportedScopes: drop`)".to_owned());
    }
    if policy.registration_nothing_left == NothingLeft::Default {
        add(
            DepartureEffect::Less,
            "a registration of which no scope is left is refused (`registration.nothingLeft: default`)"
                .to_owned(),
        );
    }
}

fn at_authorize(
    policy: &AudiencePolicy,
    lists: &Lists<'_>,
    server: StaticServer,
    add: &mut impl FnMut(DepartureEffect, String),
) {
    if policy.baseline_for_existing_clients && !lists.baseline.is_empty() {
        let baseline = named(lists.baseline.iter().copied());
        add(
            DepartureEffect::Less,
            format!("clients that registered before do not get the baseline: `{baseline}`"),
        );
    }
    // All of them are held there.
    let holds_all = server == StaticServer::BetterAuth;
    if !policy.step_up_scopes.is_empty() && !holds_all {
        let scopes = named(policy.step_up_scopes.iter());
        add(
            DepartureEffect::Less,
            format!("step-up scopes are granted only to clients that registered with them: `{scopes}`"),
        );
    }
    if !policy.always_grant_scopes.is_empty() {
        let scopes = named(policy.always_grant_scopes.iter());
        add(
            DepartureEffect::Less,
            format!("nothing is granted beyond what was asked for (`alwaysGrantScopes`): `{scopes}`"),
        );
    }
    for (key, treatment) in
        [("unsupportedScopes", policy.unsupported_scopes), ("unregisteredScopes", policy.unregistered_scopes)]
    {
        if treatment == Treatment::Drop && !(holds_all && key == "unregisteredScopes") {
            add(
                DepartureEffect::Less,
                format!("an authorize request with such a scope is refused (`authorization.{key}: drop`)"),
            );
        }
    }
    if policy.nothing_left == NothingLeft::Default {
        add(DepartureEffect::Less, "an authorize request of which no scope is left is refused (`authorization.nothingLeft: default`)".to_owned());
    }
    let omitted = policy.omitted_scope.as_str();
    let effect = match (server, policy.omitted_scope) {
        (StaticServer::BetterAuth, OmittedScope::Registered) => return,
        (StaticServer::BetterAuth, _) => DepartureEffect::More,
        (StaticServer::ToolHive | StaticServer::Keycloak, OmittedScope::Reject) => DepartureEffect::Other,
        (StaticServer::ToolHive | StaticServer::Keycloak, _) => DepartureEffect::Less,
        (StaticServer::McpSdk, _) => DepartureEffect::Other,
    };
    let what = match server {
        StaticServer::BetterAuth => "gets all that the client holds",
        StaticServer::ToolHive => "gets no scope",
        StaticServer::Keycloak => "gets the default client scopes alone, of which none is in this",
        StaticServer::McpSdk => "gets what your provider gives it",
    };
    add(
        effect,
        format!("an authorize request without scope {what} (`authorization.omittedScope: {omitted}`)"),
    );
}

#[cfg(test)]
mod tests;
