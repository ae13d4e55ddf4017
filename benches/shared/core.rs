//! A fixed loop over decisions of the pure core: what its instruction count is taken of, in a release build by
//! `cargo bench --bench instructions`, in a debug build by the test that compares it with the count that is kept.

use std::sync::Arc;

use scopeward::decision::{Client, authorize, registration};
use scopeward::policy::PolicySet;
use scopeward::policy::check::check;
use scopeward::policy::document::Document;

/// Decisions of one round.
pub const DECISIONS: u64 = 6 * AUDIENCES as u64;
const AUDIENCES: usize = 30;

/// Thirty audiences, ten for each way of matching.
pub fn policy() -> PolicySet {
    let mut text = String::from("audiences:\n");
    for at in 0..AUDIENCES {
        let (matching, star) = [("exact", ""), ("hierarchic", ""), ("wildcard", ".*")][at % 3];
        text.push_str(&format!(
            "  {}:\n    scopeMatching: {matching}\n    scopesSupported: [openid, offline_access, 'mcp{star}', mcp.read, mcp.write]\n    baselineClientScopes: [offline_access]\n    privilegedScopes: [mcp.admin]\n",
            audience(at)
        ));
    }
    set(&text)
}

/// The policy of one file.
pub fn set(text: &str) -> PolicySet {
    let documents = [Document::read(&Arc::from("core.yaml"), text)];
    check(&Arc::from("core"), &documents).expect("a valid policy").set
}

fn audience(at: usize) -> String {
    format!("https://service-{at:02}.example.com/api")
}

/// Decides `rounds` times [`DECISIONS`] questions; returns how many were allowed, which is [`ALLOWED`] of each round.
pub fn decide(set: &PolicySet, rounds: u64) -> u64 {
    let questions: Vec<Vec<String>> = (0..AUDIENCES).map(|at| vec![audience(at)]).collect();
    let pairs: Vec<Vec<String>> =
        (0..AUDIENCES).map(|at| vec![audience(at), audience((at + 1) % AUDIENCES)]).collect();
    let mut allowed = 0;
    for _ in 0..rounds {
        for at in 0..AUDIENCES {
            let expand = |scope| {
                let client = Client::default();
                let audiences = &questions[at];
                registration::expand(
                    set,
                    &registration::RegistrationQuestion {
                        audiences: audiences.into(),
                        scope,
                        previous_scope: None,
                        client,
                    },
                )
                .is_allowed()
            };
            let check = |audiences: &Vec<String>, scope, registered_scope| {
                let client = Client::default();
                authorize::check(
                    set,
                    &authorize::AuthorizeQuestion {
                        audiences: audiences.into(),
                        scope,
                        registered_scope,
                        client,
                    },
                )
                .is_allowed()
            };
            let (one, two) = (&questions[at], &pairs[at]);
            let four = "openid offline_access mcp.read mcp.write";
            let answers = [
                expand(Some("openid mcp.read")),
                expand(None),
                check(one, Some(four), Some(four)),
                check(one, None, Some("openid mcp.read")),
                check(two, Some("openid mcp.write"), Some(four)),
                check(one, Some("openid mcp.admin payments"), Some(four)),
            ];
            allowed += answers.into_iter().map(u64::from).sum::<u64>();
        }
    }
    allowed
}

/// How many decisions of one round are allowed: all but those for scopes that nobody may have.
pub const ALLOWED: u64 = 5 * AUDIENCES as u64;
