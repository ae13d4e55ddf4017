//! Questions that somebody asks in the console: decided like every other one, explained, and forgotten.
//!
//! Nothing is granted, so nothing is recorded or counted. A question is smaller than one over gRPC may be, and few are answered
//! at a time, so that whoever reaches the admin endpoint cannot hold up the server.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Limited};
use serde::Serialize;
use serde_json::Value;
use tokio::time::timeout;

use super::served::{ServedPlaces, ServedPolicy};
use crate::escape::{self, shown};
use crate::explanation::words::AnswerText;
use crate::proto::json;
use crate::rpc::explain::{Explained, ExplainedRequest};
use crate::rpc::limits::MAX_LOOKUPS;

/// Why a question is not answered: the status and what to say.
pub(super) type NotAnswered = (StatusCode, String);

/// Reads the message of a question.
///
/// # Errors
/// If it is no JSON, not sent as such, too large, or too slow to come.
pub(super) async fn read<Q, B>(request: Request<B>) -> Result<Q, NotAnswered>
where
    Q: ExplainedRequest,
    B: Body,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let (head, body) = request.into_parts();
    if !is_json(&head.headers) {
        // A form of another site can send no JSON without asking first, which it is not allowed.
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "only application/json".to_owned()));
    }
    let body = Limited::new(body, MAX_QUESTION_BYTES);
    let too_large = (StatusCode::PAYLOAD_TOO_LARGE, format!("at most {MAX_QUESTION_BYTES} bytes"));
    let body = match timeout(BODY_DEADLINE, body.collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => return Err(too_large),
        Err(_) => return Err((StatusCode::REQUEST_TIMEOUT, "the question did not come in time".to_owned())),
    };
    let wrong = |error: &dyn std::fmt::Display| (StatusCode::BAD_REQUEST, shown(&error.to_string()));
    let value: Value = serde_json::from_slice(&body).map_err(|error| wrong(&error))?;
    let question: Q = json::from_value(value).map_err(|error| wrong(&error))?;
    question.check_question().map_err(|error| wrong(&error))?;
    Ok(question)
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let name = content_type.split(';').next().unwrap_or_default();
    name.trim().eq_ignore_ascii_case(crate::server::admin::JSON)
}

/// What the page gets.
#[derive(Debug, Serialize)]
struct ConsoleAnswer {
    /// What the API answers.
    answer: Value,
    text: AnswerText,
    command: String,
}

/// Answers a question. Blocks for as long as deciding takes, and the first time for as long as reading the places of a policy.
///
/// # Errors
/// If it takes too many look-ups, or cannot be printed.
pub(super) fn answer<Q: ExplainedRequest>(question: &Q, policy: &ServedPolicy) -> Result<Bytes, NotAnswered> {
    let set = &policy.active.set;
    if question.work(set, MAX_LOOKUPS) > MAX_LOOKUPS {
        let text = "the question is too large for the console; `scopeward explain` has no such limit";
        return Err((StatusCode::PAYLOAD_TOO_LARGE, text.to_owned()));
    }
    let is_near_wanted = set.audiences().len() <= MAX_COMPARED_AUDIENCES;
    let ServedPlaces { places, changed_files } = policy.places();
    let Explained { mut text, response, .. } = question.explain(&policy.active, places, is_near_wanted);
    if *changed_files > 0 {
        text.notes.push(format!(
            "{changed_files} files of this policy have changed since it was read: where they declare what is not known"
        ));
    }
    cut(&mut text);
    let printed = || {
        let answer = serde_json::from_str(&json::to_string(&response).ok()?).ok()?;
        let command = question.command().ok()?;
        escape::json(&ConsoleAnswer { answer, text, command }).ok()
    };
    printed().map(Bytes::from).ok_or_else(|| {
        tracing::error!("the console could not print an answer as JSON");
        (StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be printed".to_owned())
    })
}

/// Leaves out scopes beyond those that somebody reads.
fn cut(text: &mut AnswerText) {
    let all: usize = text.audiences.iter().map(|audience| audience.scopes.len()).sum();
    let mut left = MAX_SHOWN_SCOPES;
    for audience in &mut text.audiences {
        audience.scopes.truncate(left);
        left -= audience.scopes.len();
    }
    if all > MAX_SHOWN_SCOPES {
        text.notes.push(format!(
            "of {all} scopes the first {MAX_SHOWN_SCOPES} are explained here; `scopeward explain` has all"
        ));
    }
}

/// The most bytes of a question: a quarter of what gRPC takes.
const MAX_QUESTION_BYTES: usize = 64 * 1024;
/// How long a question may take to come.
const BODY_DEADLINE: Duration = Duration::from_secs(3);
/// The most audiences that an unknown one is compared with.
const MAX_COMPARED_AUDIENCES: usize = 5_000;
/// The most scopes of an explanation.
const MAX_SHOWN_SCOPES: usize = 500;
