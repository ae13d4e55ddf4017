//! The console: a read-only page at `/console` of the admin endpoint, and the JSON that it is made of.
//!
//! Shows the policy and the state of the server, to whoever reaches the admin endpoint. Has no data of clients, takes no
//! credential and changes nothing. The page is part of the binary and loads nothing from elsewhere.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::ALLOW;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

use self::overview::{Overview, StatusPage};
use super::admin::{AdminAnswer, JSON, answer, not_found, text};
use crate::escape;
use crate::rpc::count::DecisionCounts;
use crate::rpc::policy_status::StatusMessages;

mod assets;
mod guard;
mod overview;

/// Answers everything below `/console`.
pub(super) struct Console {
    messages: StatusMessages,
    decisions: DecisionCounts,
    started: (Instant, SystemTime),
    /// The newest status, printed.
    status: Mutex<Option<Arc<StatusPage>>>,
}

impl Console {
    /// The console of a process that starts now.
    pub(super) fn new(messages: StatusMessages, decisions: DecisionCounts) -> Self {
        let started = (Instant::now(), SystemTime::now());
        Self { messages, decisions, started, status: Mutex::default() }
    }

    /// Returns `true` if a request is for the console.
    pub(super) fn is_asked<B>(request: &Request<B>) -> bool {
        request
            .uri()
            .path()
            .strip_prefix("/console")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Answers a request for which [`Console::is_asked`] holds.
    pub(super) async fn answer<B>(&self, request: Request<B>) -> AdminAnswer {
        let (mut response, permit) = match guard::check(&request) {
            Err(refusal) => (text(refusal.code(), format!("{refusal}\n")), None),
            Ok(()) => self.route(request).await,
        };
        guard::protect(response.headers_mut());
        (response, permit)
    }

    async fn route<B>(&self, request: Request<B>) -> AdminAnswer {
        let path = request.uri().path().strip_prefix("/console").unwrap_or_default();
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return (only("GET, HEAD"), None);
        }
        let response = match path {
            "/api/live" => json(&self.live()),
            "/api/status" => answer(StatusCode::OK, JSON, self.status().json.clone()),
            path => assets::find(path).unwrap_or_else(not_found),
        };
        (response, None)
    }

    /// What changes all the time.
    fn live(&self) -> Overview {
        Overview {
            version: env!("CARGO_PKG_VERSION"),
            start_time: prost_types::Timestamp::from(self.started.1).to_string(),
            uptime_millis: u64::try_from(self.started.0.elapsed().as_millis()).unwrap_or(u64::MAX),
            status: self.status().token.clone(),
            decisions: overview::decisions(&self.decisions),
        }
    }

    /// The newest status; printed by the first that asks after a change.
    fn status(&self) -> Arc<StatusPage> {
        let newest = self.messages.newest();
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        match &*status {
            Some(page) if page.is_of(&newest) => Arc::clone(page),
            before => {
                let number = before.as_ref().map_or(1, |page| page.number + 1);
                let start = self.started.1.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
                let page = Arc::new(StatusPage::new(newest, number, &format!("{start}-{number}")));
                *status = Some(Arc::clone(&page));
                page
            }
        }
    }
}

/// For a method that a path does not have.
fn only(methods: &'static str) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("only {methods}\n"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}

/// A value as JSON.
fn json<T: Serialize>(value: &T) -> Response<Full<Bytes>> {
    match escape::json(value) {
        Ok(json) => answer(StatusCode::OK, JSON, json),
        Err(error) => {
            tracing::error!(%error, "the console could not print an answer as JSON");
            answer(StatusCode::INTERNAL_SERVER_ERROR, JSON, "{}")
        }
    }
}
