//! What the console shows of the whole: what serves, its conditions and findings, and what is counted.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use crate::proto::json;
use crate::rpc::count::DecisionCounts;
use crate::rpc::policy_status::Rendered;
use crate::rpc::v1;
use crate::status::condition_type::CONDITION_TYPES;

/// What changes all the time; asked for every second by each open page.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Overview {
    pub(super) version: &'static str,
    /// When the process started, in RFC 3339.
    pub(super) start_time: String,
    /// How long ago that is, on a clock that does not jump.
    pub(super) uptime_millis: u64,
    /// Of the newest status; the page asks for the status if it has another one.
    pub(super) status: String,
    pub(super) decisions: Vec<DecisionTotal>,
}

/// The page about a code of findings.
#[derive(Debug, Serialize)]
pub(super) struct FindingHelp {
    pub(super) code: &'static str,
    /// Markdown.
    pub(super) text: &'static str,
}

/// Answers since the start of the process.
#[derive(Debug, Serialize)]
pub(super) struct DecisionTotal {
    /// The RPC.
    method: &'static str,
    /// `ALLOW` or `DENY`.
    decision: &'static str,
    /// Empty if they allow.
    reason: &'static str,
    count: u64,
}

/// The counters as they are.
pub(super) fn decisions(counts: &DecisionCounts) -> Vec<DecisionTotal> {
    let total = |(method, reason, count): (_, Option<crate::decision::Reason>, _)| DecisionTotal {
        method,
        decision: if reason.is_none() { "ALLOW" } else { "DENY" },
        reason: reason.map_or("", |reason| reason.as_str()),
        count,
    };
    counts.totals().map(total).collect()
}

/// One status, printed.
#[derive(Debug)]
pub(super) struct StatusPage {
    of: Arc<Rendered>,
    pub(super) number: u64,
    /// Another one for each status of each process.
    pub(super) token: String,
    pub(super) json: Bytes,
}

impl StatusPage {
    /// Prints a status, with what the page shows of it: audiences that are well, and findings beyond the first, are left out.
    pub(super) fn new(of: Arc<Rendered>, number: u64, token: &str) -> Self {
        let mut status = of.message().clone();
        status.audience_statuses.retain(|one| one.conditions.iter().any(is_trouble));
        status.audience_statuses.truncate(MAX_SHOWN_AUDIENCES);
        if let Some(attempt) = &mut status.last_attempt {
            attempt.findings.truncate(MAX_SHOWN_FINDINGS);
        }
        let json = match json::to_string(&status) {
            Ok(json) => json,
            Err(error) => {
                tracing::error!(%error, "status could not be printed as JSON");
                "{}".to_owned()
            }
        };
        // The token is made of digits.
        let json = format!("{{\"token\":\"{token}\",\"status\":{json}}}").into();
        Self { of, number, token: token.to_owned(), json }
    }

    /// Returns `true` if this is that status.
    pub(super) fn is_of(&self, newest: &Arc<Rendered>) -> bool {
        Arc::ptr_eq(&self.of, newest)
    }
}

/// Whether a condition is not as it should be.
fn is_trouble(condition: &v1::Condition) -> bool {
    let is_only_true =
        CONDITION_TYPES.iter().any(|known| known.kind == condition.r#type && known.is_only_true);
    is_only_true || condition.status != "True"
}

/// Most findings that the page shows at once; the count says how many there are.
const MAX_SHOWN_FINDINGS: usize = 200;
/// Most audiences in trouble that the page shows.
const MAX_SHOWN_AUDIENCES: usize = 100;
