//! The way of each scope through the policy, one line each: why an answer is what it is.

use crate::decision::{Answer, Coverage, ScopeOutcome, ScopeStep, Withheld};
use crate::escape::shown;

/// One line for each step of the answer, in the order decided.
#[must_use]
pub fn lines(answer: &Answer<'_>) -> Vec<String> {
    answer.trail.iter().map(line).collect()
}

/// One step, as in ``admin at https://mcp.example.com: asked, not in scopesSupported: UNSUPPORTED``.
fn line(step: &ScopeStep<'_>) -> String {
    let ScopeStep { scope, audience, asked, supported, forbidden, held, outcome } = step;
    let mut facts = vec![if *asked { "asked".to_owned() } else { "not asked".to_owned() }];
    if !asked && audience.always_grant_scopes.contains(scope) {
        facts.push("in alwaysGrantScopes".to_owned());
    }
    let entry = |list: &crate::scope::ScopeList, at: usize| {
        let entry = list.get(at).unwrap_or_default();
        if entry == *scope { String::new() } else { format!(" `{entry}`") }
    };
    if let Some(at) = forbidden {
        facts.push(format!("forbidden by forbiddenScopes{}", entry(&audience.forbidden_scopes, *at)));
    }
    match supported {
        Some(at) => {
            let pattern = entry(&audience.scopes_supported, *at);
            if !pattern.is_empty() {
                facts.push(format!("supported by{pattern}"));
            }
        }
        None => facts.push("not in scopesSupported".to_owned()),
    }
    match held {
        Some(Coverage::Registered(token)) if token == scope => facts.push("registered".to_owned()),
        Some(Coverage::Registered(token)) => facts.push(format!("registered by `{}`", shown(token))),
        Some(Coverage::Granted(token)) if token == scope => facts.push("in the grant".to_owned()),
        Some(Coverage::Granted(token)) => facts.push(format!("in the grant by `{}`", shown(token))),
        Some(Coverage::AnySupported) => facts.push("registration unknown, any supported scope".to_owned()),
        Some(Coverage::Default(at)) => {
            facts.push(format!("in defaultClientScopes{}", entry(&audience.default_client_scopes, *at)));
        }
        Some(Coverage::Baseline(at)) => {
            facts.push(format!("in baselineClientScopes{}", entry(&audience.baseline_client_scopes, *at)));
        }
        Some(Coverage::Rule(rule, at)) => {
            if let Some(rule) = audience.client_rules.get(*rule) {
                let entry = entry(&rule.baseline_client_scopes, *at);
                facts.push(format!("given by client rule `{}`{entry}", shown(&rule.name)));
            }
        }
        Some(Coverage::StepUp(at)) => {
            facts.push(format!("in stepUpScopes{}", entry(&audience.step_up_scopes, *at)));
        }
        None => {}
    }
    let outcome = match outcome {
        ScopeOutcome::Granted => "granted",
        ScopeOutcome::Refused(reason) => reason.as_str(),
        ScopeOutcome::Withheld(Withheld::Forbidden) => "withheld, it is forbidden",
        ScopeOutcome::Withheld(Withheld::Unsupported) => "withheld, it is not supported any more",
        ScopeOutcome::Withheld(Withheld::Privileged) => "withheld, a privileged scope has to be asked for",
        ScopeOutcome::Withheld(Withheld::StepUp) => "withheld, a step-up scope has to be asked for",
        ScopeOutcome::Withheld(Withheld::Wildcard) => "withheld, it is a pattern",
        ScopeOutcome::Withheld(Withheld::NotHeld) => "withheld, the client does not hold it",
    };
    format!("{} at {}: {}: {outcome}", shown(scope), shown(&audience.audience), facts.join(", "))
}
