//! How long the decision core takes for one question: no wire, no store, one thread.
//!
//! `cargo bench --bench decision` prints nanoseconds per decision, the median over batches with the
//! fastest and the slowest batch beside it, for small and large policies and each way of matching.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![expect(clippy::panic, reason = "a benchmark without a valid policy has nothing to measure")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use scopeward::decision::{Client, authorize, registration};
use scopeward::policy::PolicySet;
use scopeward::policy::check::check;
use scopeward::policy::document::Document;

const BATCHES: usize = 31;
const DECISIONS_PER_BATCH: usize = 20_000;
/// Different audiences that the questions go through, so that a large policy is not all in the cache.
const SPREAD: usize = 4096;
const AUDIENCES_PER_FILE: usize = 100;

fn main() {
    println!(
        "{:<11} {:>9} {:<44} {:>7} {:>7} {:>7}",
        "matching", "audiences", "question", "median", "min", "max"
    );
    for count in [10, 100_000] {
        for (matching, star) in [("exact", ""), ("hierarchic", ""), ("wildcard", ".*")] {
            let set = policy(count, matching, star);
            for case in CASES {
                let questions: Vec<Vec<String>> =
                    (0..SPREAD).map(|at| named(at, count, case.audiences)).collect();
                let figures = measure(|at| {
                    let audiences = questions.get(at % SPREAD).map_or(&[][..], Vec::as_slice);
                    usize::from(decide(&set, case, audiences))
                });
                println!(
                    "{matching:<11} {count:>9} {:<44} {:>7.0} {:>7.0} {:>7.0}",
                    case.name, figures.median, figures.min, figures.max
                );
            }
        }
    }
}

/// One kind of question.
struct Case {
    name: &'static str,
    audiences: usize,
    scope: Option<&'static str>,
    /// `None`: a registration.
    registered: Option<&'static str>,
    allowed: bool,
}

const FOUR: &str = "openid offline_access mcp.read mcp.write";
const CASES: &[Case] = &[
    Case { name: "register 4 scopes", audiences: 1, scope: Some(FOUR), registered: None, allowed: true },
    Case {
        name: "register 1 scope, baseline added",
        audiences: 1,
        scope: Some("openid"),
        registered: None,
        allowed: true,
    },
    Case {
        name: "register 4 scopes, 2 audiences",
        audiences: 2,
        scope: Some(FOUR),
        registered: None,
        allowed: true,
    },
    Case {
        name: "authorize 4 registered scopes",
        audiences: 1,
        scope: Some(FOUR),
        registered: Some(FOUR),
        allowed: true,
    },
    Case {
        name: "authorize 4 scopes, 1 from the baseline",
        audiences: 1,
        scope: Some(FOUR),
        registered: Some("openid mcp.read mcp.write"),
        allowed: true,
    },
    Case {
        name: "authorize 4 scopes, 1 refused",
        audiences: 1,
        scope: Some("openid offline_access mcp.read other"),
        registered: Some(FOUR),
        allowed: false,
    },
    Case {
        name: "authorize without scope",
        audiences: 1,
        scope: None,
        registered: Some(FOUR),
        allowed: true,
    },
    Case {
        name: "authorize 4 registered scopes, 2 audiences",
        audiences: 2,
        scope: Some(FOUR),
        registered: Some(FOUR),
        allowed: true,
    },
];

/// Asks once and checks the answer, so that a benchmark of the wrong answer cannot look good.
fn decide(set: &PolicySet, case: &Case, audiences: &[String]) -> bool {
    let client = Client::default();
    let answer = match case.registered {
        None => registration::expand(
            set,
            &registration::RegistrationQuestion {
                audiences: audiences.into(),
                scope: case.scope,
                client,
                previous_scope: None,
            },
        ),
        Some(registered) => {
            let registered_scope = Some(registered);
            authorize::check(
                set,
                &authorize::AuthorizeQuestion {
                    audiences: audiences.into(),
                    scope: case.scope,
                    registered_scope,
                    client,
                },
            )
        }
    };
    assert_eq!(answer.is_allowed(), case.allowed, "{}", case.name);
    black_box(answer).is_allowed()
}

struct Figures {
    median: f64,
    min: f64,
    max: f64,
}

fn measure(mut decide: impl FnMut(usize) -> usize) -> Figures {
    let mut batch = || {
        let start = Instant::now();
        let allowed: usize = (0..DECISIONS_PER_BATCH).map(&mut decide).sum();
        black_box(allowed);
        start.elapsed().as_secs_f64() * 1e9 / DECISIONS_PER_BATCH as f64
    };
    // Two batches to warm caches and the allocator.
    batch();
    batch();
    let mut times: Vec<f64> = (0..BATCHES).map(|_| batch()).collect();
    times.sort_by(f64::total_cmp);
    let at = |place: usize| times.get(place).copied().unwrap_or_default();
    Figures { median: at(BATCHES / 2), min: at(0), max: at(BATCHES - 1) }
}

/// Names of audiences, spread over the whole policy.
fn named(at: usize, count: usize, how_many: usize) -> Vec<String> {
    (0..how_many).map(|more| audience((at * 7919 + more) % count)).collect()
}

fn audience(number: usize) -> String {
    format!("https://api{number}.example.com/mcp")
}

/// Ten supported scopes an audience; under `wildcard` half of them are patterns.
fn policy(count: usize, matching: &str, star: &str) -> PolicySet {
    let numbers: Vec<usize> = (0..count).collect();
    let documents: Vec<Document> = numbers
        .chunks(AUDIENCES_PER_FILE)
        .enumerate()
        .map(|(file, numbers)| {
            let mut text = String::from("audiences:\n");
            for number in numbers {
                text.push_str(&format!(
                    "  {}:\n    scopesSupported: [openid, profile, email, offline_access, mcp{star}, files{star}, \
                     mail{star}, calendar{star}, {}]\n    \
                     baselineClientScopes: [offline_access]\n    forbiddenScopes: [admin{star}]\n    \
                     privilegedScopes: [mail.send]\n    scopeMatching: {matching}\n",
                    audience(*number),
                    if matching == "exact" { "mcp.read, mcp.write" } else { "contacts" },
                ));
            }
            Document::read(&Arc::from(format!("{file:05}.yaml")), &text)
        })
        .collect();
    match check(&Arc::from("policies"), &documents) {
        Ok(accepted) => accepted.set,
        Err(findings) => panic!("the policy is not valid: {:?}", findings.first().map(ToString::to_string)),
    }
}
