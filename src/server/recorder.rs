//! Decisions and policy changes become audit records here: the one place that knows both the wire
//! and the audit log.
//!
//! An expansion is durable before it is answered; a denial or a policy change never delays anything.

use std::time::SystemTime;

use crate::audit::{self, AuditEvent, AuditLog, EventKind};
use crate::decision;
use crate::rpc::record::{Durable, Kind, NoRoom, NotDurable, Record, Recorder, Room};
use crate::rpc::v1;
use crate::server::reload::PolicyChange;

/// Whether expansions wait until their record is durable.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum AuditMode {
    /// They do: no record, no answer.
    #[default]
    Blocking,
    /// Nothing waits: what cannot be recorded is counted into a gap.
    Batch,
}

/// Records in an audit log.
#[derive(Clone, Debug)]
pub struct AuditRecorder {
    log: AuditLog,
    mode: AuditMode,
}

impl AuditRecorder {
    /// Records into `log`.
    #[must_use]
    pub const fn new(log: AuditLog, mode: AuditMode) -> Self {
        Self { log, mode }
    }

    /// Records a policy change, accepted or rejected, without waiting.
    pub fn policy_change(&self, change: PolicyChange) {
        let PolicyChange { accepted, generation, digest, previous_digest, finding_count } = change;
        let mut event = AuditEvent::new(EventKind::PolicyChange, SystemTime::now());
        event.policy = audit::PolicyVersion { generation, digest };
        let finding_count = u32::try_from(finding_count).unwrap_or(u32::MAX);
        event.policy_change = Some(audit::PolicyChange { accepted, previous_digest, finding_count });
        self.log.enqueue(&event);
    }
}

impl Recorder for AuditRecorder {
    fn reserve(&self, request_bytes: usize) -> Result<Room, NoRoom> {
        match self.mode {
            AuditMode::Batch => Ok(Room::default()),
            AuditMode::Blocking => {
                let bytes = EVENT_BYTES.saturating_add(request_bytes.saturating_mul(EVENT_FACTOR));
                self.log.reserve(bytes).map(Room::from).map_err(|_| NoRoom)
            }
        }
    }

    fn record(&self, record: Record<'_>, room: Room) -> Option<Durable> {
        let event = event(&record);
        let Some(room) = room.into_permit().filter(|_| record.kind == Kind::Expansion) else {
            self.log.enqueue(&event);
            return None;
        };
        // The event is on its way before anybody waits for it, so that a batch shares one write, and a caller that
        // disconnects leaves it whole.
        let appending = self.log.append(&event, room);
        Some(Box::pin(async move {
            let recorded = match appending {
                Ok(appending) => appending.await,
                Err(error) => Err(error),
            };
            recorded.map(drop).map_err(|error| {
                tracing::debug!(%error, "answer withheld, its audit record is not durable");
                NotDurable
            })
        }))
    }
}

/// What the record of an answer takes beside what the request said: ids, hashes, digest, peer, added baseline scopes.
const EVENT_BYTES: usize = 2048;
/// How often a scope of the request may be in its record: requested or registered, effective, added.
const EVENT_FACTOR: usize = 3;

fn event(record: &Record<'_>) -> AuditEvent {
    let Record {
        kind,
        method,
        asked_audiences,
        client,
        requested_scope,
        registered_scope,
        answer,
        policy,
        decision_id,
        call,
    } = *record;
    let kind = match kind {
        Kind::Expansion => EventKind::Expansion,
        Kind::Denial => EventKind::Denial,
    };
    let mut event = AuditEvent::new(kind, SystemTime::now());
    event.decision_id = Some(decision_id);
    method.clone_into(&mut event.method);
    // The audiences that decided; as named where they could not be found.
    event.audiences = if answer.audiences.is_empty() {
        asked_audiences.to_vec()
    } else {
        answer.audiences.iter().map(|audience| audience.audience.to_string()).collect()
    };
    if let Some(client) = client {
        event.claim(claimed(client));
    }
    event.requested_scope = requested_scope.map(str::to_owned);
    event.registered_scope = registered_scope.map(str::to_owned);
    event.effective_scope = crate::scope::join(&answer.scope);
    event.added = answer
        .added
        .iter()
        .map(|added| audit::AddedScope {
            scope: added.scope.to_owned(),
            origin: origin(added.origin),
            rule: added.rule.to_owned(),
        })
        .collect();
    event.refused = answer
        .refused
        .iter()
        .map(|refused| audit::RefusedScope {
            scope: refused.scope.to_owned(),
            reason: reason(refused.reason),
            message: refused.message.clone(),
        })
        .collect();
    event.reason = answer.reason.map(reason);
    event.policy =
        audit::PolicyVersion { generation: policy.generation, digest: policy.set.digest().to_string() };
    event.peer = call.peer().map(|peer| peer.to_string()).unwrap_or_default();
    call.trace_id().clone_into(&mut event.trace_id);
    event.attempt = call.attempt();
    event
}

fn claimed(client: &v1::Client) -> audit::Client {
    audit::Client {
        client_id: client.client_id.clone(),
        source: match client.source() {
            v1::ClientSource::Unspecified => None,
            v1::ClientSource::Dcr => Some(audit::ClientSource::Dcr),
            v1::ClientSource::Cimd => Some(audit::ClientSource::Cimd),
            v1::ClientSource::Static => Some(audit::ClientSource::Static),
        },
        client_name: client.client_name.clone(),
        software_id: client.software_id.clone(),
        software_version: client.software_version.clone(),
        redirect_uris: client.redirect_uris.clone(),
        grant_types: client.grant_types.clone(),
        application_type: client.application_type.clone(),
    }
}

const fn origin(origin: decision::Origin) -> audit::Origin {
    match origin {
        decision::Origin::Registered => audit::Origin::Registered,
        decision::Origin::Default => audit::Origin::Default,
        decision::Origin::Baseline => audit::Origin::Baseline,
        decision::Origin::StepUp => audit::Origin::StepUp,
    }
}

const fn reason(reason: decision::Reason) -> audit::Reason {
    use decision::Reason;
    match reason {
        Reason::Malformed => audit::Reason::Malformed,
        Reason::Forbidden => audit::Reason::Forbidden,
        Reason::Unsupported => audit::Reason::Unsupported,
        Reason::Unregistered => audit::Reason::Unregistered,
        Reason::ScopeRequired => audit::Reason::ScopeRequired,
        Reason::NothingGranted => audit::Reason::NothingGranted,
        Reason::AudienceUnknown => audit::Reason::AudienceUnknown,
        Reason::AudienceMalformed => audit::Reason::AudienceMalformed,
        Reason::AudienceRequired => audit::Reason::AudienceRequired,
    }
}
