//! The way of each scope through the policy, one line each: why an answer is what it is.

use crate::decision::{Answer, Held, Outcome, Step, Withheld};
use crate::escape::shown;

/// One line for each step of the answer, in the order decided.
#[must_use]
pub fn lines(answer: &Answer<'_>) -> Vec<String> {
    answer.trail.iter().map(line).collect()
}

/// One step, as in ``admin at https://mcp.example.com: asked, not in scopesSupported: UNSUPPORTED``.
fn line(step: &Step<'_>) -> String {
    let Step { scope, audience, asked, supported, forbidden, held, outcome } = step;
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
        Some(Held::Registered(token)) if token == scope => facts.push("registered".to_owned()),
        Some(Held::Registered(token)) => facts.push(format!("registered by `{}`", shown(token))),
        Some(Held::AnySupported) => facts.push("registration unknown, any supported scope".to_owned()),
        Some(Held::Default(at)) => {
            facts.push(format!("in defaultClientScopes{}", entry(&audience.default_client_scopes, *at)));
        }
        Some(Held::Baseline(at)) => {
            facts.push(format!("in baselineClientScopes{}", entry(&audience.baseline_client_scopes, *at)));
        }
        Some(Held::Rule(rule, at)) => {
            if let Some(rule) = audience.client_rules.get(*rule) {
                let entry = entry(&rule.baseline_client_scopes, *at);
                facts.push(format!("given by client rule `{}`{entry}", shown(&rule.name)));
            }
        }
        Some(Held::StepUp(at)) => {
            facts.push(format!("in stepUpScopes{}", entry(&audience.step_up_scopes, *at)));
        }
        None => {}
    }
    let outcome = match outcome {
        Outcome::Granted => "granted",
        Outcome::Refused(reason) => reason.as_str(),
        Outcome::Withheld(Withheld::Forbidden) => "withheld, it is forbidden",
        Outcome::Withheld(Withheld::Unsupported) => "withheld, it is not supported any more",
        Outcome::Withheld(Withheld::Privileged) => "withheld, a privileged scope has to be asked for",
        Outcome::Withheld(Withheld::StepUp) => "withheld, a step-up scope has to be asked for",
        Outcome::Withheld(Withheld::Wildcard) => "withheld, it is a pattern",
        Outcome::Withheld(Withheld::NotHeld) => "withheld, the client does not hold it",
    };
    format!("{} at {}: {}: {outcome}", shown(scope), shown(&audience.audience), facts.join(", "))
}
