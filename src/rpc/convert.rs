//! Between the wire and the core, in both directions. Knows no rules: what a field means is the core's to say.

use crate::audience::MAX_AUDIENCE_BYTES;
use crate::call;
use crate::decision::limit::{MAX_AUDIENCES, MAX_CORRELATION_ID_BYTES};
use crate::decision::{self, Answer, AudienceGrant, QuestionError, TokenGrant, token};
use crate::policy::AudiencePolicy;
use crate::rpc::error::RpcError;
use crate::rpc::v1;
use crate::rpc::wire_id::WireId;
use crate::scope::{ScopeList, join};
use crate::store::Active;

/// The answer to a registration.
pub fn expand_response(
    answer: &Answer<'_>,
    policy: &Active,
    decision_id: &WireId,
) -> v1::ExpandRegistrationScopesResponse {
    v1::ExpandRegistrationScopesResponse {
        decision: decision(answer).into(),
        scope: join(&answer.scope),
        added: added(answer),
        reason: reason(answer.reason).into(),
        refused: refused(answer),
        oauth_error: answer.oauth_error.as_ref().map(oauth_error),
        policy: Some(policy_version(policy)),
        decision_id: decision_id.to_string(),
    }
}

/// The answer to an authorize request.
pub fn check_response(
    answer: &Answer<'_>,
    policy: &Active,
    decision_id: &WireId,
) -> v1::CheckAuthorizeScopesResponse {
    v1::CheckAuthorizeScopesResponse {
        decision: decision(answer).into(),
        scope: join(&answer.scope),
        added: added(answer),
        reason: reason(answer.reason).into(),
        refused: refused(answer),
        policy: Some(policy_version(policy)),
        decision_id: decision_id.to_string(),
        effective_registered_scope: join(answer.effective_registered_scope()),
        audience_grants: answer.audience_grants().map(audience_grant).collect(),
        oauth_error: answer.oauth_error.as_ref().map(oauth_error),
    }
}

/// The answer to a request for a token.
pub fn token_response(
    answer: &Answer<'_>,
    policy: &Active,
    decision_id: &WireId,
) -> v1::CheckTokenScopesResponse {
    v1::CheckTokenScopesResponse {
        decision: decision(answer).into(),
        scope: join(&answer.scope),
        refused: refused(answer),
        oauth_error: answer.oauth_error.as_ref().map(oauth_error),
        policy: Some(policy_version(policy)),
        decision_id: decision_id.to_string(),
        reason: reason(answer.reason).into(),
        audience_grants: answer.audience_grants().map(audience_grant).collect(),
    }
}

/// What the policy says about one audience, for discovery documents and consent pages.
pub(super) fn audience_description(audience: &AudiencePolicy) -> v1::AudienceDescription {
    let owned = |scopes: &ScopeList| scopes.iter().map(str::to_owned).collect();
    v1::AudienceDescription {
        audience: audience.audience.to_string(),
        scopes_supported: audience.published_scopes().map(str::to_owned).collect(),
        baseline_client_scopes: owned(&audience.baseline_client_scopes),
        default_client_scopes: owned(&audience.default_client_scopes),
        scope_matching: audience.scope_matching.as_str().to_owned(),
        privileged_scopes: owned(&audience.privileged_scopes),
        step_up_scopes: owned(&audience.step_up_scopes),
        advertised_scopes: audience.advertised_scopes().map(str::to_owned).collect(),
        scope_descriptions: audience
            .scope_descriptions
            .iter()
            .map(|(scope, text)| (scope.to_string(), text.to_string()))
            .collect(),
        description: audience.description.to_string(),
        aliases: audience.aliases.iter().map(|alias| alias.spelled.to_string()).collect(),
    }
}

/// Names the set that decided.
pub(super) fn policy_version(policy: &Active) -> v1::PolicyVersion {
    v1::PolicyVersion { generation: policy.generation, digest: policy.set.digest().as_str().to_owned() }
}

/// Checks what a request for a token has to say of its grant. `path` leads to the question inside of the request, as for
/// `question_error`.
///
/// # Errors
///
/// [`RpcError`] for a field that is missing, or a grant that this version does not know.
pub fn check_grant(
    grant: i32,
    granted_scope: Option<&str>,
    path: impl Fn() -> String,
) -> Result<(), RpcError> {
    let known = v1::TokenGrant::try_from(grant)
        .map_err(|_| RpcError::UnknownEnumValue { field: format!("{}grant", path()), value: grant })?;
    token::check_grant(call::grant(known), granted_scope).map_err(|error| question_error(&error, &path()))
}

/// What the core cannot decide as an error of ours. `prefix` leads to the question inside of the request, such as `checks[3].`.
pub fn question_error(error: &QuestionError, prefix: &str) -> RpcError {
    let over = |field: String, unit, limit, actual| RpcError::OverLimit {
        field: format!("{prefix}{field}"),
        unit,
        limit,
        actual,
    };
    match error {
        QuestionError::Audiences { count } => {
            over("audiences".to_owned(), "audiences", MAX_AUDIENCES, *count)
        }
        QuestionError::AudienceLength { index, length } => {
            over(format!("audiences[{index}]"), "bytes", MAX_AUDIENCE_BYTES, *length)
        }
        QuestionError::CorrelationIdLength { length } => {
            over("correlation_id".to_owned(), "bytes", MAX_CORRELATION_ID_BYTES, *length)
        }
        QuestionError::CorrelationIdByte { byte, offset } => {
            RpcError::NotPrintable { field: format!("{prefix}correlation_id"), byte: *byte, offset: *offset }
        }
        QuestionError::GrantMissing => RpcError::FieldMissing {
            field: format!("{prefix}grant"),
            because: "it says what the client presents",
        },
        QuestionError::GrantedScopeMissing { grant } => RpcError::FieldMissing {
            field: format!("{prefix}granted_scope"),
            because: match grant {
                TokenGrant::TokenExchange => "it says what the subject token stands for",
                _ => "it says what the grant that is refreshed stands for",
            },
        },
    }
}

pub(super) fn decision(answer: &Answer<'_>) -> v1::Decision {
    if answer.is_allowed() { v1::Decision::Allow } else { v1::Decision::Deny }
}

/// What the answer adds, for the answer and its audit event.
pub(super) fn added(answer: &Answer<'_>) -> Vec<v1::AddedScope> {
    let wire = |added: &decision::Added<'_>| v1::AddedScope {
        scope: added.scope.to_owned(),
        origin: origin(added.origin).into(),
        rule: added.rule.to_owned(),
    };
    answer.added.iter().map(wire).collect()
}

/// What the answer refuses, for the answer and its audit event.
pub(super) fn refused(answer: &Answer<'_>) -> Vec<v1::RefusedScope> {
    let wire = |refused: &decision::Refused<'_>| v1::RefusedScope {
        scope: refused.scope.to_owned(),
        reason: reason(Some(refused.reason)).into(),
        message: refused.message.clone(),
    };
    answer.refused.iter().map(wire).collect()
}

fn oauth_error(error: &decision::OAuthError) -> v1::OAuthError {
    v1::OAuthError { error: error.error.to_owned(), error_description: error.error_description.clone() }
}

fn audience_grant(grant: AudienceGrant<'_>) -> v1::AudienceGrant {
    v1::AudienceGrant { audience: grant.audience.to_owned(), scope: join(grant.scope) }
}

/// Why the whole was denied; unspecified if it was not.
pub(super) fn reason(reason: Option<decision::Reason>) -> v1::Reason {
    match reason {
        None => v1::Reason::Unspecified,
        Some(decision::Reason::Malformed) => v1::Reason::Malformed,
        Some(decision::Reason::Forbidden) => v1::Reason::Forbidden,
        Some(decision::Reason::Unsupported) => v1::Reason::Unsupported,
        Some(decision::Reason::Unregistered) => v1::Reason::Unregistered,
        Some(decision::Reason::ExceedsGrant) => v1::Reason::ExceedsGrant,
        Some(decision::Reason::ScopeRequired) => v1::Reason::ScopeRequired,
        Some(decision::Reason::NothingGranted) => v1::Reason::NothingGranted,
        Some(decision::Reason::AudienceUnknown) => v1::Reason::AudienceUnknown,
        Some(decision::Reason::AudienceMalformed) => v1::Reason::AudienceMalformed,
        Some(decision::Reason::AudienceRequired) => v1::Reason::AudienceRequired,
        Some(decision::Reason::TooManyScopes) => v1::Reason::TooManyScopes,
        Some(decision::Reason::ClientTooLarge) => v1::Reason::ClientTooLarge,
    }
}

pub(super) fn origin(origin: decision::Origin) -> v1::Origin {
    match origin {
        decision::Origin::Registered => v1::Origin::Registered,
        decision::Origin::Default => v1::Origin::Default,
        decision::Origin::Baseline => v1::Origin::Baseline,
        decision::Origin::StepUp => v1::Origin::StepUp,
        decision::Origin::Always => v1::Origin::Always,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::{Origin, Reason};

    #[test]
    fn reasons_and_origins_have_equal_names_on_both_sides() {
        for core in Reason::ALL {
            assert_eq!(reason(Some(core)).as_str_name(), format!("REASON_{}", core.as_str()));
        }
        for core in Origin::ALL {
            assert_eq!(origin(core).as_str_name(), format!("ORIGIN_{}", core.as_str()));
        }
    }

    #[test]
    fn limits_of_the_core_name_the_field_with_its_path() {
        let error = QuestionError::AudienceLength { index: 2, length: 2049 };
        let expected = "`checks[7].audiences[2]` has 2049 bytes, the limit is 2048";
        assert_eq!(question_error(&error, "checks[7].").to_string(), expected);
        let error = QuestionError::CorrelationIdByte { byte: 7, offset: 3 };
        let expected = "`checks[7].correlation_id`: byte 0x07 at offset 3 is not printable ASCII";
        assert_eq!(question_error(&error, "checks[7].").to_string(), expected);
    }
}
