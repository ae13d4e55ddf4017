//! The console: a read-only page at `/console` of the admin endpoint, and the JSON that it is made of.
//!
//! Shows the policy and the state of the server, to whoever reaches the admin endpoint. Has no data of clients, takes no
//! credential and changes nothing. The page is part of the binary and loads nothing from elsewhere. What takes more than a moment
//! is done off the serving threads, a few at a time, so that probes are answered whatever the console is asked.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::ALLOW;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::Full;
use percent_encoding::percent_decode_str;
use serde::Serialize;

use self::ask::NotAnswered;
use self::audiences::AudienceFacts;
use self::overview::{FindingHelp, Overview, StatusPage};
use self::search::{SearchIndex, SearchWords};
use self::served::{Served, ServedPolicy};
use super::admin::{AdminAnswer, JSON, answer, busy, not_found, text};
use crate::budget::Budget;
use crate::escape;
use crate::policy::finding::Code;
use crate::rpc::count::DecisionCounts;
use crate::rpc::explain::ExplainedRequest;
use crate::rpc::policy_status::StatusMessages;
use crate::rpc::v1;
use crate::store::Active;

mod ask;
mod assets;
mod audiences;
mod guard;
mod overview;
mod search;
pub(super) mod served;

/// Answers everything below `/console`. Clones share everything.
#[derive(Clone)]
pub(super) struct Console(Arc<ConsoleState>);

struct ConsoleState {
    messages: StatusMessages,
    decisions: DecisionCounts,
    served: Served,
    started: (Instant, SystemTime),
    /// The newest status, printed.
    status: Mutex<Option<Arc<StatusPage>>>,
    /// Of the policy that was searched last.
    index: Mutex<Option<(Weak<Active>, Arc<SearchIndex>)>>,
    /// Questions that are being received.
    receiving: Budget,
    /// What is being searched, decided and explained, until it is sent.
    working: Budget,
}

impl Console {
    /// The console of a process that starts now.
    pub(super) fn new(messages: StatusMessages, decisions: DecisionCounts, served: Served) -> Self {
        Self(Arc::new(ConsoleState {
            messages,
            decisions,
            served,
            started: (Instant::now(), SystemTime::now()),
            status: Mutex::default(),
            index: Mutex::default(),
            receiving: Budget::new(MAX_RECEIVING),
            working: Budget::new(MAX_WORKING),
        }))
    }

    /// Returns `true` if a request is for the console.
    pub(super) fn is_asked<B>(request: &Request<B>) -> bool {
        let path = request.uri().path().strip_prefix("/console");
        path.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Answers a request for which [`Console::is_asked`] holds.
    pub(super) async fn answer<B>(&self, request: Request<B>) -> AdminAnswer
    where
        B: Body,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let (mut response, permit) = match guard::check(&request) {
            Err(refusal) => (text(refusal.code(), format!("{refusal}\n")), None),
            Ok(()) => self.route(request).await,
        };
        guard::protect(response.headers_mut());
        (response, permit)
    }

    async fn route<B>(&self, request: Request<B>) -> AdminAnswer
    where
        B: Body,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let path = head.uri.path().strip_prefix("/console").unwrap_or_default();
        let is_question = matches!(path, "/api/expand" | "/api/authorize" | "/api/token");
        let methods = if is_question { "POST" } else { "GET, HEAD" };
        if !methods.split(", ").any(|method| method == head.method.as_str()) {
            return (only(methods), None);
        }
        let query = head.uri.query().unwrap_or_default().to_owned();
        let response = match path {
            "/api/live" => json(&self.0.live()),
            "/api/status" => answer(StatusCode::OK, JSON, self.0.status().json.clone()),
            "/api/help" => help(&query),
            "/api/audiences" => {
                return self.work(move |console, policy| Ok(console.audiences(policy, &query))).await;
            }
            "/api/audience" => return self.work(move |_, policy| audience(policy, &query)).await,
            "/api/expand" => {
                return self
                    .ask::<v1::ExpandRegistrationScopesRequest, B>(Request::from_parts(head, body))
                    .await;
            }
            "/api/authorize" => {
                return self.ask::<v1::CheckAuthorizeScopesRequest, B>(Request::from_parts(head, body)).await;
            }
            "/api/token" => {
                return self.ask::<v1::CheckTokenScopesRequest, B>(Request::from_parts(head, body)).await;
            }
            path => assets::find(path).unwrap_or_else(not_found),
        };
        (response, None)
    }

    /// Receives a question and answers it.
    async fn ask<Q, B>(&self, request: Request<B>) -> AdminAnswer
    where
        Q: ExplainedRequest + Send + 'static,
        B: Body,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let Ok(receiving) = self.0.receiving.take(1) else { return (busy(), None) };
        match ask::read::<Q, B>(request).await {
            Err(refusal) => (refused(refusal), Some(receiving)),
            Ok(question) => {
                drop(receiving);
                self.work(move |_, policy| Ok(answer(StatusCode::OK, JSON, ask::answer(&question, policy)?)))
                    .await
            }
        }
    }

    /// Does what takes longer than a moment, with the policy that serves.
    async fn work(
        &self,
        work: impl FnOnce(&ConsoleState, &ServedPolicy) -> Result<Response<Full<Bytes>>, NotAnswered>
        + Send
        + 'static,
    ) -> AdminAnswer {
        let Ok(permit) = self.0.working.take(1) else { return (busy(), None) };
        let Some(policy) = self.0.served.load_full() else {
            return (text(StatusCode::NOT_FOUND, "no policy serves\n".to_owned()), Some(permit));
        };
        let state = Arc::clone(&self.0);
        // The place is held even if the peer disconnects, for as long as there is work.
        let done =
            tokio::task::spawn_blocking(move || (work(&state, &policy).unwrap_or_else(refused), permit));
        match done.await {
            Ok((response, permit)) => (response, Some(permit)),
            Err(_) => (text(StatusCode::INTERNAL_SERVER_ERROR, "the console failed\n".to_owned()), None),
        }
    }
}

impl ConsoleState {
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

    /// A page of audiences. Makes the index if the policy is another one than last time.
    fn audiences(&self, policy: &ServedPolicy, query: &str) -> Response<Full<Bytes>> {
        let mut values = parameters(query);
        let mut number = |name| values.remove(name).and_then(|value| value.parse::<usize>().ok());
        let limit = number("limit").unwrap_or(DEFAULT_ROWS).clamp(1, MAX_ROWS);
        let from = number("from").unwrap_or_default();
        let words = SearchWords::parse(values.get("q").map_or("", String::as_str));
        let mut kept = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let index = match &*kept {
            Some((active, index)) if std::ptr::eq(active.as_ptr(), Arc::as_ptr(&policy.active)) => {
                Arc::clone(index)
            }
            _ => {
                let index = Arc::new(SearchIndex::new(&policy.active.set));
                *kept = Some((Arc::downgrade(&policy.active), Arc::clone(&index)));
                index
            }
        };
        drop(kept);
        json(&audiences::find(policy, &index, &words, from, limit))
    }
}

/// All about the audience that is named.
fn audience(policy: &ServedPolicy, query: &str) -> Result<Response<Full<Bytes>>, NotAnswered> {
    let name = parameters(query).remove("name").unwrap_or_default();
    match policy.active.set.audience(&name).ok().flatten() {
        Some(audience) => Ok(json(&AudienceFacts::new(policy, audience))),
        None => Err((StatusCode::NOT_FOUND, "the policy that serves has no such audience".to_owned())),
    }
}

/// The page about a code of findings.
fn help(query: &str) -> Response<Full<Bytes>> {
    let code = parameters(query).remove("code").and_then(|code| Code::parse(&code));
    code.map_or_else(not_found, |code| json(&FindingHelp { code: code.as_str(), text: code.page_text() }))
}

/// The parameters of a query, as forms write them; of equal names the last counts.
fn parameters(query: &str) -> HashMap<String, String> {
    let decoded = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}

/// For a method that a path does not have.
fn only(methods: &'static str) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("only {methods}\n"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}

fn refused((code, what): NotAnswered) -> Response<Full<Bytes>> {
    text(code, format!("{what}\n"))
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

/// The rows of a page of audiences, if the request does not say.
const DEFAULT_ROWS: usize = 25;
/// The most rows of a page of audiences.
const MAX_ROWS: usize = 100;
/// Questions that may be received at the same time.
const MAX_RECEIVING: usize = 8;
/// What may be worked on at the same time.
const MAX_WORKING: usize = 2;
