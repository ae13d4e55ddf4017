//! Who may call: the access file while the server runs, and the one place where a call is let in or refused.
//!
//! A call is identified by what its connection and it itself show, with every call anew, so that a change of the file counts at once.
//! The texts of refusals say nothing of audiences: they are made before the message of a call is read.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub mod count;

use self::count::{CallerCounters, CallerCounts};
use super::follow::FollowedFiles;
use super::pressure::Pressure;
use super::recorder::AuditRecorder;
use crate::access::{
    AccessDocument, AccessList, AuthenticatedBy, CallerRules, CheckedAccess, Credentials, Right,
};
use crate::budget::{Budget, Permit};
use crate::policy::finding::Findings;
use crate::policy::outline::Outlines;
use crate::proto::v1;
use crate::rpc::caller::{Caller, CallerIdentity, PeerAddress};
use crate::rpc::error::RpcError;
use crate::status::{ConditionStatus, StatusTracker, kind};
use crate::store::load::finding;
use crate::store::read::{ReadError, ReadSettings, SourceFile, read_folder};
use crate::throttle::Throttle;

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(super) struct PeerIdentity {
    pub(super) address: PeerAddress,
    /// The one URI in a client certificate, if it is one.
    pub(super) spiffe_id: Option<Box<str>>,
    /// The DNS names in a client certificate.
    pub(super) dns_names: Box<[Box<str>]>,
}

/// Who may call a method.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Needs {
    /// Everybody: health.
    Nothing,
    /// Every caller of the access file: reflection.
    Listing,
    /// Callers with this right.
    Right(Right),
}

/// Lets calls in, or refuses them. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    /// Everybody may do everything without it.
    access: Option<Arc<ArcSwap<ServingAccess>>>,
    counts: CallerCounts,
}

/// The access file that counts, with what its callers hold.
#[derive(Debug)]
struct ServingAccess {
    list: AccessList,
    /// In the order of the list.
    callers: Vec<ServedCaller>,
    digest: String,
    /// 1 for the first file of this process.
    generation: u64,
    outline: Outlines,
    /// Cancelled when another file takes its place.
    replaced: CancellationToken,
}

#[derive(Clone, Debug)]
struct ServedCaller {
    caller: Arc<Caller>,
    calls: Option<Budget>,
    counted: Arc<CallerCounters>,
}

impl ServingAccess {
    /// Callers that stay keep their calls in flight.
    fn new(checked: CheckedAccess, outline: Outlines, before: Option<&Self>, counts: &CallerCounts) -> Self {
        let old: HashMap<&str, &ServedCaller> = before
            .iter()
            .flat_map(|before| before.callers.iter())
            .map(|served| (&*served.caller.name, served))
            .collect();
        let CheckedAccess { list, digest, .. } = checked;
        let counts = counts.follow(list.callers().iter().map(|rules| &*rules.name));
        let callers = list.callers().iter().map(|rules| {
            let old = old.get(&*rules.name);
            let calls = rules.max_calls.map(|most| {
                let kept = old.and_then(|old| old.calls.clone()).filter(|budget| budget.limit() == most);
                kept.unwrap_or_else(|| Budget::new(most))
            });
            let kept = old.map(|old| &old.caller).filter(|caller| caller.audiences == rules.audiences);
            let caller = kept
                .cloned()
                .unwrap_or_else(|| Arc::new(Caller::new(Arc::clone(&rules.name), rules.audiences.clone())));
            let counted = counts.get(&*rules.name).cloned().unwrap_or_default();
            ServedCaller { caller, calls, counted }
        });
        let callers = callers.collect();
        let generation = before.map_or(0, |before| before.generation) + 1;
        Self { list, callers, digest, generation, outline, replaced: CancellationToken::new() }
    }

    /// Who calls; `None` if that is nobody of the file.
    fn identify(&self, peer: &PeerIdentity, token: Option<&[u8]>) -> Option<Identified<'_>> {
        let uid = match peer.address {
            PeerAddress::Unix { uid } => Some(uid),
            PeerAddress::Tcp(_) => None,
        };
        let shown =
            Credentials { spiffe_id: peer.spiffe_id.as_deref(), dns_names: &peer.dns_names, token, uid };
        let (at, authenticated_by) = self.list.identify(&shown)?;
        Some(Identified {
            rules: self.list.callers().get(at)?,
            served: self.callers.get(at)?,
            authenticated_by,
        })
    }
}

/// A caller of the access file.
struct Identified<'a> {
    rules: &'a CallerRules,
    served: &'a ServedCaller,
    authenticated_by: AuthenticatedBy,
}

impl Identified<'_> {
    /// The caller, if it may call the method.
    fn allowed(&self, needs: Needs, method: &str) -> Result<CallerIdentity, RpcError> {
        let Self { rules, served, authenticated_by } = *self;
        match needs {
            Needs::Right(right) if !rules.may(right) => {
                Err(RpcError::PermissionDenied { method: method.to_owned() })
            }
            _ => Ok(CallerIdentity { caller: Arc::clone(&served.caller), authenticated_by }),
        }
    }
}

/// A call that was let in.
#[derive(Debug)]
pub(super) struct LetIn {
    /// Who calls; nobody in particular without an access file, and at health.
    pub(super) identity: Option<CallerIdentity>,
    /// One of the calls of the caller, if their number is limited.
    pub(super) place: Option<Permit>,
    token: Option<Box<[u8]>>,
}

impl Gate {
    /// Lets everybody do everything.
    pub(super) fn open(counts: &CallerCounts) -> Self {
        Self { access: None, counts: counts.clone() }
    }

    /// Lets a call in, or says why not. A method that is not there needs [`Needs::Listing`].
    pub(super) fn admit(
        &self,
        peer: &PeerIdentity,
        headers: &HeaderMap,
        needs: Needs,
        method: &str,
        pressure: &Pressure,
    ) -> Result<LetIn, RpcError> {
        static REFUSALS: Throttle = Throttle::every_minute();
        let (Some(access), true) = (&self.access, needs != Needs::Nothing) else {
            self.counts.needs_none();
            return Ok(LetIn { identity: None, place: None, token: None });
        };
        let access = access.load();
        let token = bearer_token(headers);
        let identified = access.identify(peer, token);
        match &identified {
            Some(Identified { served, authenticated_by, .. }) => served.counted.count(*authenticated_by),
            None => self.counts.is_unknown(),
        }
        let allowed = identified.as_ref().ok_or(RpcError::Unauthenticated);
        let allowed = allowed.and_then(|caller| Ok((caller.allowed(needs, method)?, &caller.served.calls)));
        let (identity, calls) = allowed.inspect_err(|error| {
            if let Some(count) = REFUSALS.count(Instant::now()) {
                warn!(peer = %peer.address, %error, count, "calls were refused by the access file");
            }
        })?;
        let place = match calls {
            Some(calls) if matches!(needs, Needs::Right(_)) => {
                let full = |_| RpcError::Overloaded { cause: pressure.refuse_caller() };
                Some(calls.take(1).map_err(full)?)
            }
            _ => None,
        };
        Ok(LetIn { identity: Some(identity), place, token: token.map(Into::into) })
    }

    /// Completes when the call would no longer be let in, or not as the same caller with the same audiences.
    pub(super) fn revoked(
        &self,
        peer: Arc<PeerIdentity>,
        needs: Needs,
        method: String,
        let_in: &LetIn,
    ) -> Option<impl Future<Output = RpcError> + Send + use<>> {
        let access = Arc::clone(self.access.as_ref()?);
        let LetIn { identity, token, .. } = let_in;
        let (caller, token) = (Arc::clone(&identity.as_ref()?.caller), token.clone());
        Some(async move {
            loop {
                let replaced = {
                    let now = access.load();
                    let identified = now.identify(&peer, token.as_deref()).ok_or(RpcError::Unauthenticated);
                    match identified.and_then(|caller| caller.allowed(needs, &method)) {
                        Err(error) => return error,
                        Ok(identity) if !Arc::ptr_eq(&identity.caller, &caller) => {
                            return RpcError::AccessChanged;
                        }
                        Ok(_) => now.replaced.clone(),
                    }
                };
                replaced.cancelled().await;
            }
        })
    }
}

/// The token of an `authorization` header (RFC 6750 section 2.1). The scheme has no case (RFC 9110 section 11.1).
fn bearer_token(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(BEARER.len())?;
    let token = token.trim_ascii_start();
    (scheme.eq_ignore_ascii_case(BEARER) && !token.is_empty()).then_some(token)
}

const BEARER: &[u8] = b"Bearer ";

/// Why an access file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It is not valid.
    #[error("the access file is not valid")]
    Invalid {
        /// Everything that is wrong with it. Its text is not here for excerpts: a token may stand in it by mistake.
        findings: Findings,
    },
}

/// Reads and checks an access file.
///
/// # Errors
/// If it cannot be read, or is not valid.
pub fn read_access(path: &Path) -> Result<ReadAccess, AccessError> {
    // Whoever names a file means what it leads to, as the volumes of Kubernetes have it.
    let settings = ReadSettings { allow_outside_links: true, ..ReadSettings::default() };
    let snapshot = read_folder(&[path.to_owned()], None, &settings)?;
    let mut findings: Findings = snapshot.problems.iter().map(finding).collect();
    let files = snapshot.files;
    let Some(file) = files.first().filter(|_| findings.is_empty()) else {
        return Err(AccessError::Invalid { findings });
    };
    let AccessDocument { outcome, outline } = AccessDocument::read(&file.path, file.text());
    match outcome {
        Ok(checked) => Ok(ReadAccess { checked, outline, files }),
        Err(found) => {
            findings.append(&found);
            Err(AccessError::Invalid { findings })
        }
    }
}

/// A valid access file with its text.
#[derive(Debug)]
pub struct ReadAccess {
    /// What it says.
    pub checked: CheckedAccess,
    /// All that is written in it.
    pub outline: Outlines,
    /// The file.
    pub files: Vec<SourceFile>,
}

/// How callers can reach the server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    /// Certificates of clients are asked for.
    pub(super) has_client_ca: bool,
    /// It listens on a Unix socket.
    pub(super) has_socket: bool,
    /// Other machines reach it without TLS.
    pub(super) has_remote_plaintext: bool,
}

/// Follows the access file: what is valid counts, what is not leaves the last good one.
#[derive(Debug)]
pub(super) struct AccessFollower {
    path: PathBuf,
    reach: Reach,
    serving: Arc<ArcSwap<ServingAccess>>,
    followed: FollowedFiles,
    /// Since when the file is as it is.
    quiet_since: Instant,
    removal_quiet: Duration,
    /// What is wrong, as the look before found it.
    found_wrong: Option<String>,
    is_failing: bool,
    waits: bool,
    tracker: Arc<StatusTracker>,
    recorder: AuditRecorder,
    counts: CallerCounts,
}

impl AccessFollower {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// If it cannot be used.
    pub(super) fn start(
        path: PathBuf,
        reach: Reach,
        removal_quiet: Duration,
        tracker: Arc<StatusTracker>,
        recorder: AuditRecorder,
        counts: CallerCounts,
    ) -> Result<(Self, Gate), AccessError> {
        let ReadAccess { checked, outline, .. } = read_access(&path)?;
        let warnings = checked.warnings.clone();
        let serving = Arc::new(ArcSwap::from_pointee(ServingAccess::new(checked, outline, None, &counts)));
        let follower = Self {
            followed: FollowedFiles::new(vec![path.clone()]),
            path,
            reach,
            serving: Arc::clone(&serving),
            quiet_since: Instant::now(),
            removal_quiet,
            found_wrong: None,
            is_failing: false,
            waits: false,
            tracker,
            recorder,
            counts: counts.clone(),
        };
        follower.accepted(None, &warnings, SystemTime::now());
        Ok((follower, Gate { access: Some(serving), counts }))
    }

    /// Says what can never match, or shows a secret, because of how the server listens.
    fn compare_with_listeners(&self, list: &AccessList) {
        let Reach { has_client_ca, has_socket, has_remote_plaintext } = self.reach;
        let named = |keys| {
            let mut callers = list.known_by(keys);
            callers.next().map(|first| (first.name.to_string(), 1 + callers.count()))
        };
        if !has_client_ca && let Some((caller, count)) = named(&["spiffeId", "dnsName"]) {
            warn!(
                caller,
                count,
                "the access file has callers with certificates, but no --tls-client-ca-file says who issues them"
            );
        }
        if !has_socket && let Some((caller, count)) = named(&["unixUid"]) {
            warn!(
                caller,
                count, "the access file has callers with unixUid, but the server listens on no Unix socket"
            );
        }
        if has_remote_plaintext && let Some((caller, count)) = named(&["tokenSha256"]) {
            warn!(
                caller,
                count, "the access file has callers with tokens, which other machines send in plaintext"
            );
        }
    }

    /// Reads the file at the next look, changed or not.
    pub(super) const fn forget_state(&mut self) {
        self.followed.forget_state();
    }

    /// Looks once. As with the policy, something that disappears counts only once nothing was written for a while; what is wrong only if
    /// the next look finds the same.
    pub(super) fn look(&mut self, now: SystemTime) {
        let changed = self.followed.look(now);
        if self.followed.was_written() {
            self.quiet_since = Instant::now();
        }
        if !changed && self.found_wrong.is_none() && !self.waits {
            return;
        }
        match read_access(&self.path) {
            Ok(read) => self.take(read, now),
            Err(error) => self.refuse(&error, now),
        }
    }

    fn take(&mut self, read: ReadAccess, now: SystemTime) {
        let ReadAccess { checked, outline, .. } = read;
        self.found_wrong = None;
        let before = self.serving.load_full();
        self.waits = false;
        if checked.digest == before.digest {
            if self.is_failing {
                self.is_failing = false;
                self.show_accepted(now);
                info!("the access file is valid again, and is what counts");
            }
            return;
        }
        if before.outline.say_more_than(&outline) && self.quiet_since.elapsed() < self.removal_quiet {
            self.waits = true;
            return;
        }
        let warnings = checked.warnings.clone();
        let access = ServingAccess::new(checked, outline, Some(&before), &self.counts);
        self.serving.store(Arc::new(access));
        self.is_failing = false;
        self.accepted(Some(&before), &warnings, now);
        before.replaced.cancel();
    }

    /// Tells everybody of the file that counts from now on.
    fn accepted(&self, before: Option<&ServingAccess>, warnings: &Findings, now: SystemTime) {
        let access = self.serving.load();
        for warning in warnings {
            warn!(%warning, "access file");
        }
        self.compare_with_listeners(&access.list);
        let nobody = AccessList::default();
        let (changes, widening) = access.list.changes(before.map_or(&nobody, |before| &before.list));
        let change_count = changes.len();
        info!(
            generation = access.generation,
            digest = access.digest,
            changes = change_count,
            "the access file counts"
        );
        self.recorder.access_change(
            &access.digest,
            access.generation,
            v1::PolicyChange {
                accepted: true,
                previous_digest: before.map(|before| before.digest.clone()).unwrap_or_default(),
                finding_count: 0,
                changes: changes.into_iter().take(MAX_CHANGES).collect(),
                change_count: u32::try_from(change_count).unwrap_or(u32::MAX),
                widening_count: u32::try_from(widening).unwrap_or(u32::MAX),
            },
        );
        self.show_accepted(now);
    }

    fn show_accepted(&self, now: SystemTime) {
        let message = "the access file is what counts".to_owned();
        self.tracker.set(kind::ACCESS_ACCEPTED, ConditionStatus::True, "AccessFileValid", message, now);
    }

    fn refuse(&mut self, error: &AccessError, now: SystemTime) {
        let (reason, words, count) = match error {
            AccessError::Read(error) => ("AccessFileUnreadable", error.to_string(), 0),
            AccessError::Invalid { findings } => {
                let first = findings.first_error().map(ToString::to_string).unwrap_or_default();
                let errors = match findings.error_count() {
                    1 => "1 error".to_owned(),
                    count => format!("{count} errors"),
                };
                ("AccessFileInvalid", format!("{errors}, first {first}"), findings.count())
            }
        };
        if self.found_wrong.as_ref() == Some(&words) {
            let message = format!("{words}; the last good file keeps counting, a restart would fail");
            let changed =
                self.tracker.set(kind::ACCESS_ACCEPTED, ConditionStatus::False, reason, message, now);
            if changed {
                warn!(error = words, "the access file is not valid, the last good one keeps counting");
                let access = self.serving.load();
                self.recorder.access_change(
                    &access.digest,
                    access.generation,
                    v1::PolicyChange {
                        finding_count: u32::try_from(count).unwrap_or(u32::MAX),
                        ..v1::PolicyChange::default()
                    },
                );
            }
            self.is_failing = true;
        }
        self.found_wrong = Some(words);
    }
}

/// As many as an event of the policy has.
const MAX_CHANGES: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_token_is_what_follows_the_scheme() {
        let token = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, http::HeaderValue::from_static(value));
            bearer_token(&headers).map(|token| String::from_utf8_lossy(token).into_owned())
        };
        assert_eq!(token("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(token("bEARER  abc").as_deref(), Some("abc"));
        for none in ["", "Bearer", "Bearer ", "Basic abc", "Bearerabc", "abc"] {
            assert_eq!(token(none), None, "{none}");
        }
        assert_eq!(bearer_token(&HeaderMap::new()), None);
    }
}
