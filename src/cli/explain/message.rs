//! An answer as the message that a server would send, but for what only a server has: no generation
//! and no decision id.

use crate::decision::{Added, Answer, AudienceGrant, Origin, Reason, Refused};
use crate::policy::PolicySet;
use crate::rpc::v1;

pub(super) fn expand(set: &PolicySet, answer: &Answer<'_>) -> v1::ExpandRegistrationScopesResponse {
    v1::ExpandRegistrationScopesResponse {
        decision: decision(answer).into(),
        scope: answer.scope.join(" "),
        added: answer.added.iter().map(added).collect(),
        refused: answer.refused.iter().map(refused).collect(),
        oauth_error: oauth_error(answer),
        policy: Some(version(set)),
        decision_id: String::new(),
        reason: answer.reason.map_or(v1::Reason::Unspecified, reason).into(),
    }
}

pub(super) fn authorize(set: &PolicySet, answer: &Answer<'_>) -> v1::CheckAuthorizeScopesResponse {
    v1::CheckAuthorizeScopesResponse {
        decision: decision(answer).into(),
        scope: answer.scope.join(" "),
        added: answer.added.iter().map(added).collect(),
        refused: answer.refused.iter().map(refused).collect(),
        oauth_error: oauth_error(answer),
        policy: Some(version(set)),
        decision_id: String::new(),
        reason: answer.reason.map_or(v1::Reason::Unspecified, reason).into(),
        registered_scope: answer.registered_scope.join(" "),
        audience_grants: answer.audience_grants.iter().map(grant).collect(),
    }
}

fn decision(answer: &Answer<'_>) -> v1::Decision {
    if answer.is_allowed() { v1::Decision::Allow } else { v1::Decision::Deny }
}

fn added(added: &Added<'_>) -> v1::AddedScope {
    let origin = match added.origin {
        Origin::Registered => v1::Origin::Registered,
        Origin::Default => v1::Origin::Default,
        Origin::Baseline => v1::Origin::Baseline,
        Origin::StepUp => v1::Origin::StepUp,
    };
    v1::AddedScope { scope: added.scope.to_owned(), origin: origin.into(), rule: added.rule.to_owned() }
}

fn refused(refused: &Refused<'_>) -> v1::RefusedScope {
    v1::RefusedScope {
        scope: refused.scope.to_owned(),
        reason: reason(refused.reason).into(),
        message: refused.message.clone(),
    }
}

fn grant(grant: &AudienceGrant<'_>) -> v1::AudienceGrant {
    v1::AudienceGrant { audience: grant.audience.to_owned(), scope: grant.scope.join(" ") }
}

fn oauth_error(answer: &Answer<'_>) -> Option<v1::OAuthError> {
    answer.oauth_error.as_ref().map(|error| v1::OAuthError {
        error: error.error.to_owned(),
        error_description: error.error_description.clone(),
    })
}

fn version(set: &PolicySet) -> v1::PolicyVersion {
    v1::PolicyVersion { generation: 0, digest: set.digest().to_string() }
}

fn reason(reason: Reason) -> v1::Reason {
    match reason {
        Reason::Malformed => v1::Reason::Malformed,
        Reason::Forbidden => v1::Reason::Forbidden,
        Reason::Unsupported => v1::Reason::Unsupported,
        Reason::Unregistered => v1::Reason::Unregistered,
        Reason::ScopeRequired => v1::Reason::ScopeRequired,
        Reason::NothingGranted => v1::Reason::NothingGranted,
        Reason::AudienceUnknown => v1::Reason::AudienceUnknown,
        Reason::AudienceMalformed => v1::Reason::AudienceMalformed,
        Reason::AudienceRequired => v1::Reason::AudienceRequired,
    }
}
