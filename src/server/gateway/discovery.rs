//! Discovery that is followed: the documents of the upstream are read at the start and again and again, and the last good ones serve.
//!
//! Without a document nothing is passed on, since nobody knows where the endpoints are at which a scope has to be decided.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::StatusCode;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Gateway;
use super::upstream::UpstreamError;
use crate::backoff::{Backoff, jittered};
use crate::escape::shown;
use crate::gateway::discovery::{DiscoveryDocument, DiscoveryError, DiscoveryRules, MAX_DOCUMENT_BYTES};
use crate::gateway::endpoint::{EndpointFlag, EndpointName, EndpointTable};
use crate::gateway::kind::UpstreamKind;
use crate::server::task_request::TaskRequestListener;
use crate::status::{ConditionStatus, StatusTracker, kind};
use crate::store::Active;

/// What is known of the upstream from its documents and from flags.
#[derive(Debug)]
pub(in crate::server) struct KnownUpstream {
    pub(super) table: EndpointTable,
    /// Each endpoint with the 0-based place of its issuer and its path.
    endpoints: Vec<(EndpointName, usize, String)>,
    /// By issuer; `None` for one that has no document and whose endpoints flags name.
    documents: Vec<Option<DiscoveryDocument>>,
    /// The documents for clients, made for the policy of a generation.
    shown: Mutex<Option<(u64, Vec<Bytes>)>>,
}

impl KnownUpstream {
    /// The document of an issuer for clients; `None` if it has none.
    pub(super) fn document(&self, issuer: usize, policy: &Active) -> Option<Bytes> {
        self.documents.get(issuer)?.as_ref()?;
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.as_ref().is_none_or(|(generation, _)| *generation != policy.generation) {
            let mut scopes: Vec<&str> = Vec::new();
            let mut seen = hashbrown::HashSet::new();
            for scope in policy.set.audiences().iter().flat_map(|audience| audience.advertised_scopes()) {
                if seen.insert(scope) {
                    scopes.push(scope);
                }
            }
            let text = |document: &Option<DiscoveryDocument>| {
                let text = document.as_ref().map(|document| document.advertising(scopes.iter().copied()));
                Bytes::from(text.unwrap_or_default())
            };
            *shown = Some((policy.generation, self.documents.iter().map(text).collect()));
        }
        shown.as_ref()?.1.get(issuer).cloned()
    }

    /// The issuer as authorization responses name it, where they do (RFC 9207).
    pub(super) fn response_issuer(&self, issuer: usize) -> Option<&str> {
        let document = self.documents.get(issuer)?.as_ref()?;
        document.sends_iss.then_some(document.issuer.as_str())
    }
}

/// Why the documents cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryFault {
    /// There is no answer.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The answer is no document.
    #[error("the upstream answered `{}` with {status}", shown(path))]
    Status {
        /// What was asked for.
        path: String,
        /// The status.
        status: StatusCode,
    },
    /// The document is not what clients would believe.
    #[error(transparent)]
    Document(#[from] DiscoveryError),
}

impl DiscoveryFault {
    /// Whether somebody has to configure something before it can be right.
    pub(in crate::server) const fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::Document(
                DiscoveryError::Issuer { .. }
                    | DiscoveryError::Outside { .. }
                    | DiscoveryError::Path { .. }
                    | DiscoveryError::Differs { .. }
                    | DiscoveryError::NoAuthorization
            )
        )
    }

    /// The reason of the condition `UpstreamAccepted`.
    const fn reason(&self) -> &'static str {
        match self {
            Self::Upstream(_) | Self::Status { .. } => "UpstreamUnreachable",
            Self::Document(DiscoveryError::Issuer { .. }) => "IssuerMismatch",
            Self::Document(_) => "DiscoveryInvalid",
        }
    }
}

/// What the documents are read against.
#[derive(Clone, Debug)]
pub(super) struct ExpectedUpstream {
    pub(super) kind: UpstreamKind,
    pub(super) public_url: String,
    pub(super) upstream_url: String,
    pub(super) issuer_paths: Vec<String>,
    pub(super) endpoints: Vec<EndpointFlag>,
    pub(super) rewrite: bool,
    pub(super) refuses_request_objects: bool,
    pub(super) interval: Duration,
}

impl ExpectedUpstream {
    /// The 0-based place of the issuer whose endpoint has this path: the one with the longest path that it is below, or the first.
    fn issuer_of(&self, path: &str) -> usize {
        let is_above = |issuer: &str| path.strip_prefix(issuer).is_some_and(|rest| rest.starts_with('/'));
        let above = self.issuer_paths.iter().enumerate().filter(|(_, issuer)| is_above(issuer));
        above.max_by_key(|(_, issuer)| issuer.len()).map_or(0, |(place, _)| place)
    }
}

/// What is known now. Clones share it.
pub(super) type CurrentUpstream = Arc<ArcSwapOption<KnownUpstream>>;

impl Gateway {
    /// Reads the documents of all issuers.
    pub(in crate::server) async fn discover(&self) -> Result<KnownUpstream, DiscoveryFault> {
        let expected = &self.expected;
        let mut table = EndpointTable::new(expected.kind, &expected.issuer_paths);
        let (mut documents, mut endpoints) = (Vec::new(), Vec::new());
        for (place, issuer_path) in expected.issuer_paths.iter().enumerate() {
            let flags: Vec<EndpointFlag> = expected
                .endpoints
                .iter()
                .filter(|flag| expected.issuer_of(&flag.path) == place)
                .cloned()
                .collect();
            let rules = DiscoveryRules {
                kind: expected.kind,
                public_url: &expected.public_url,
                upstream: &expected.upstream_url,
                issuer_path,
                flags: &flags,
                rewrite: expected.rewrite,
                refuses_request_objects: expected.refuses_request_objects,
            };
            let Some(document) = self.document_of(issuer_path).await? else {
                if !flags.iter().any(|flag| flag.name == EndpointName::Authorization) {
                    return Err(DiscoveryFault::Status {
                        path: openid_path(issuer_path),
                        status: StatusCode::NOT_FOUND,
                    });
                }
                endpoints.extend(flags.iter().map(|flag| (flag.name, place, flag.path.clone())));
                documents.push(None);
                continue;
            };
            let document = DiscoveryDocument::read(&rules, &document)?;
            endpoints.extend(document.endpoints.iter().map(|(name, path)| (*name, place, path.clone())));
            endpoints.extend(flags.iter().map(|flag| (flag.name, place, flag.path.clone())));
            documents.push(Some(document));
        }
        // An endpoint that the upstream no longer names may still be answered there.
        if let Some(before) = &*self.known.load() {
            let gone = before.endpoints.iter().filter(|known| !endpoints.contains(known)).cloned();
            let gone: Vec<_> = gone.take(MAX_FORMER_ENDPOINTS).collect();
            endpoints.extend(gone);
        }
        endpoints.iter().for_each(|(name, place, path)| table.add(*name, *place, path));
        Ok(KnownUpstream { table, endpoints, documents, shown: Mutex::default() })
    }

    /// The document of an issuer, wherever it is (OpenID Connect Discovery 1.0 section 4, RFC 8414 section 3.1); `None` if it is
    /// nowhere.
    async fn document_of(&self, issuer_path: &str) -> Result<Option<Bytes>, DiscoveryFault> {
        let mut paths = vec![
            openid_path(issuer_path),
            format!("/.well-known/oauth-authorization-server{issuer_path}"),
            format!("{issuer_path}/.well-known/oauth-authorization-server"),
        ];
        paths.dedup();
        for path in paths {
            let (status, body) = self.upstream.get(&path, MAX_DOCUMENT_BYTES).await?;
            match status {
                StatusCode::OK => return Ok(Some(body)),
                StatusCode::NOT_FOUND => {}
                status => return Err(DiscoveryFault::Status { path, status }),
            }
        }
        Ok(None)
    }

    /// Takes what an attempt came to: what is good serves, what is not leaves what was good before. Returns `true` if it was
    /// good.
    pub(in crate::server) fn take_discovered(
        &self,
        found: Result<KnownUpstream, DiscoveryFault>,
        tracker: &StatusTracker,
        now: SystemTime,
    ) -> bool {
        let url = &self.expected.upstream_url;
        match found {
            Ok(known) => {
                let rewritten = known.documents.iter().flatten().find(|document| document.is_rewritten);
                let is_first = self.known.load().is_none();
                if let (Some(document), true) = (rewritten, is_first) {
                    warn!(
                        issuer = shown(&document.issuer),
                        "the discovery document is rewritten: ID tokens still name the issuer of the upstream, and strict clients \
                         refuse them; give the upstream the public URL as its issuer instead"
                    );
                }
                self.known.store(Some(Arc::new(known)));
                tracker.hold_back(None, now);
                let message =
                    format!("the discovery document of {url} was read, and its issuer is the public URL");
                let changed =
                    tracker.set(kind::UPSTREAM_ACCEPTED, ConditionStatus::True, "UpstreamRead", message, now);
                if changed {
                    info!(upstream = url, "the discovery document was read");
                }
                true
            }
            Err(fault) => {
                let keeps = if self.known.load().is_some() {
                    "what was read last keeps serving"
                } else {
                    let message = format!("no discovery document of the upstream was read yet: {fault}");
                    tracker.hold_back(Some(("UpstreamUnknown", message)), now);
                    "nothing is passed on"
                };
                let message = format!("{fault}; {keeps}");
                let changed = tracker.set(
                    kind::UPSTREAM_ACCEPTED,
                    ConditionStatus::False,
                    fault.reason(),
                    message,
                    now,
                );
                if changed {
                    warn!(upstream = url, error = %fault, keeps, "the discovery document cannot be used");
                }
                false
            }
        }
    }

    /// Reads the documents again and again until it is told to stop.
    pub(in crate::server) async fn follow(
        &self,
        tracker: &StatusTracker,
        mut rereads: TaskRequestListener,
        stop: &CancellationToken,
    ) {
        let mut backoff = Backoff::new(FIRST_RETRY, self.expected.interval);
        let mut wait = if self.known.load().is_some() { self.expected.interval } else { backoff.failed() };
        loop {
            // Done once it is dropped, after the attempt.
            let _request = tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(wait) => None,
                request = rereads.next() => Some(request),
            };
            let found = tokio::select! {
                () = stop.cancelled() => return,
                found = self.discover() => found,
            };
            wait = if self.take_discovered(found, tracker, SystemTime::now()) {
                backoff.reset();
                jittered(self.expected.interval, 0.2)
            } else {
                backoff.failed()
            };
        }
    }
}

fn openid_path(issuer_path: &str) -> String {
    format!("{issuer_path}/.well-known/openid-configuration")
}

const MAX_FORMER_ENDPOINTS: usize = 100;
const FIRST_RETRY: Duration = Duration::from_millis(250);
