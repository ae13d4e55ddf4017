//! What is answered: decisions, with reasons for the operator of the authorization server where they deny, and the metadata of the
//! decision point.
//!
//! A permit has no context, since a server may refuse one that it does not understand (Authorization API, "Decision"). Nothing here shapes a
//! token: a decision point may not broaden what is issued, and what this one narrows it narrows by scope.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{EvaluationError, TOKEN_ISSUANCE};
use crate::escape;
use crate::proto::v1;
use crate::scope::tokens;

/// The decision of one evaluation.
#[derive(Clone, Debug, PartialEq)]
pub struct TupleDecision {
    /// Whether it is permitted.
    pub is_permitted: bool,
    /// Why not; empty for a permit.
    context: Map<String, Value>,
}

impl TupleDecision {
    /// A permit.
    #[must_use]
    pub fn permitted() -> Self {
        Self { is_permitted: true, context: Map::new() }
    }

    /// A denial that the policy was not asked for.
    #[must_use]
    pub fn denied(why: &str) -> Self {
        Self::with(json!({ "reason_admin": { "403": why } }))
    }

    /// What an evaluation comes to that lacks something, in a request that is otherwise in order.
    #[must_use]
    pub fn malformed(error: &EvaluationError) -> Self {
        Self::with(json!({ "error": { "status": 400, "message": error.to_string() } }))
    }

    /// What an evaluation comes to that could not be decided.
    fn undecided(error: &v1::CheckError) -> Self {
        let status = match error.code {
            INVALID_ARGUMENT => 400,
            UNAVAILABLE | RESOURCE_EXHAUSTED => 503,
            _ => 500,
        };
        Self::with(json!({ "reason": error.reason, "error": { "status": status, "message": error.message } }))
    }

    /// What the result of a question of the token endpoint says; `None` if it is none.
    #[must_use]
    pub fn of_token(scope: Option<&str>, result: v1::BatchCheckTokenResult) -> Option<Self> {
        use v1::batch_check_token_result::Result::{Error, Response};
        Some(match result.result? {
            Response(answer) => Self::answered(scope, (&answer).into()),
            Error(error) => Self::undecided(&error),
        })
    }

    /// What the result of a question of an authorize request says; `None` if it is none.
    #[must_use]
    pub fn of_authorize(scope: Option<&str>, result: v1::BatchCheckResult) -> Option<Self> {
        use v1::batch_check_result::Result::{Error, Response};
        Some(match result.result? {
            Response(answer) => Self::answered(scope, (&answer).into()),
            Error(error) => Self::undecided(&error),
        })
    }

    /// What the answer of the policy says of a scope; of `None`, that there is none to permit.
    pub(super) fn answered(scope: Option<&str>, answer: TupleAnswer<'_>) -> Self {
        let TupleAnswer { decision, granted, refused, oauth_error, reason, decision_id } = answer;
        let is_granted = scope.is_some_and(|scope| tokens(granted).any(|token| token == scope));
        if decision == v1::Decision::Allow && is_granted {
            return Self::permitted();
        }
        let refused = refused.first();
        let reason = refused.map_or(reason, v1::RefusedScope::reason);
        let why = refused.map(|refused| refused.message.as_str()).filter(|message| !message.is_empty());
        let why = why.or(oauth_error.map(|error| error.error_description.as_str())).unwrap_or_default();
        Self::with(json!({
            "reason": reason.as_str_name().trim_start_matches("REASON_"),
            "reason_admin": { "403": why },
            "decision_id": decision_id,
        }))
    }

    fn with(context: Value) -> Self {
        let context = if let Value::Object(context) = context { context } else { Map::new() };
        Self { is_permitted: false, context }
    }

    fn json(&self) -> Value {
        match self.context.is_empty() {
            true => json!({ "decision": self.is_permitted }),
            false => json!({ "decision": self.is_permitted, "context": self.context }),
        }
    }
}

/// What answers of both questions have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct TupleAnswer<'a> {
    decision: v1::Decision,
    granted: &'a str,
    refused: &'a [v1::RefusedScope],
    oauth_error: Option<&'a v1::OAuthError>,
    reason: v1::Reason,
    decision_id: &'a str,
}

impl<'a> From<&'a v1::CheckTokenScopesResponse> for TupleAnswer<'a> {
    fn from(answer: &'a v1::CheckTokenScopesResponse) -> Self {
        Self {
            decision: answer.decision(),
            granted: &answer.scope,
            refused: &answer.refused,
            oauth_error: answer.oauth_error.as_ref(),
            reason: answer.reason(),
            decision_id: &answer.decision_id,
        }
    }
}

impl<'a> From<&'a v1::CheckAuthorizeScopesResponse> for TupleAnswer<'a> {
    fn from(answer: &'a v1::CheckAuthorizeScopesResponse) -> Self {
        Self {
            decision: answer.decision(),
            granted: &answer.scope,
            refused: &answer.refused,
            oauth_error: answer.oauth_error.as_ref(),
            reason: answer.reason(),
            decision_id: &answer.decision_id,
        }
    }
}

/// The response to a request: an array in the order of the evaluations, or the one decision.
#[must_use]
pub fn write(decisions: &[TupleDecision], is_single: bool) -> String {
    let all = decisions.iter().map(TupleDecision::json);
    let response = match (is_single, decisions) {
        (true, [one]) => one.json(),
        _ => json!({ "evaluations": all.collect::<Vec<_>>() }),
    };
    // Values have a JSON form.
    escape::json(&response).unwrap_or_default()
}

/// The metadata of the decision point at a URL without a path ("Policy Decision Point Metadata").
#[must_use]
pub fn metadata(base: &str) -> String {
    #[derive(Serialize)]
    struct Metadata<'m> {
        policy_decision_point: &'m str,
        access_evaluation_endpoint: String,
        access_evaluations_endpoint: String,
        capabilities: [&'static str; 1],
    }
    let metadata = Metadata {
        policy_decision_point: base,
        access_evaluation_endpoint: format!("{base}{EVALUATION_PATH}"),
        access_evaluations_endpoint: format!("{base}{EVALUATIONS_PATH}"),
        capabilities: [TOKEN_ISSUANCE],
    };
    // Texts have a JSON form.
    escape::json(&metadata).unwrap_or_default()
}

/// Where the Access Evaluation API is.
pub const EVALUATION_PATH: &str = "/access/v1/evaluation";
/// Where the Access Evaluations API is.
pub const EVALUATIONS_PATH: &str = "/access/v1/evaluations";
/// Where the metadata is.
pub const METADATA_PATH: &str = "/.well-known/authzen-configuration";
/// Codes of gRPC.
const INVALID_ARGUMENT: i32 = 3;
const RESOURCE_EXHAUSTED: i32 = 8;
const UNAVAILABLE: i32 = 14;
