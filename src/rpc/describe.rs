//! `DescribeAudience`: one audience of a policy, or a page of all.

use prost::Message as _;

use crate::audience::MAX_AUDIENCE_BYTES;
use crate::rpc::error::RpcError;
use crate::rpc::limits::{DEFAULT_PAGE_SIZE, MAX_ANSWER_BYTES, MAX_PAGE_BYTES, MAX_PAGE_SIZE};
use crate::rpc::{convert, page, v1};
use crate::store::Active;

type Descriptions = (Vec<v1::AudienceDescription>, String);

/// What a policy has of what is asked for.
///
/// # Errors
/// If there is no such audience, the size or the token of a page is none, or the answer would be over its limit.
pub(super) fn describe(
    policy: &Active,
    request: &v1::DescribeAudienceRequest,
) -> Result<v1::DescribeAudienceResponse, RpcError> {
    let (audiences, next_page_token) =
        if request.audience.is_empty() { page_of(policy, request)? } else { one(policy, request)? };
    let policy = Some(convert::policy_version(policy));
    let response = v1::DescribeAudienceResponse { audiences, next_page_token, policy };
    if response.encoded_len() > MAX_ANSWER_BYTES {
        return Err(RpcError::AnswerTooLarge { limit: MAX_ANSWER_BYTES });
    }
    Ok(response)
}

/// The audience that is named.
fn one(policy: &Active, request: &v1::DescribeAudienceRequest) -> Result<Descriptions, RpcError> {
    let name = &request.audience;
    if name.len() > MAX_AUDIENCE_BYTES {
        let (field, actual) = ("audience".to_owned(), name.len());
        return Err(RpcError::OverLimit { field, unit: "bytes", limit: MAX_AUDIENCE_BYTES, actual });
    }
    // What cannot name an audience names none of this policy.
    let found = policy.set.audience(name).ok().flatten();
    let audience = found.ok_or_else(|| RpcError::AudienceNotFound { audience: name.clone() })?;
    Ok((vec![convert::audience_description(audience)], String::new()))
}

/// The audiences of a page, and the token of the next one; `""` after the last.
fn page_of(policy: &Active, request: &v1::DescribeAudienceRequest) -> Result<Descriptions, RpcError> {
    let size = match usize::try_from(request.page_size) {
        Err(_) => return Err(RpcError::InvalidPageSize { actual: request.page_size }),
        Ok(0) => DEFAULT_PAGE_SIZE,
        Ok(size) => size.min(MAX_PAGE_SIZE),
    };
    let all = policy.set.audiences();
    let start = if request.page_token.is_empty() {
        0
    } else {
        let last = page::last_of(&request.page_token).ok_or(RpcError::InvalidPageToken)?;
        all.partition_point(|audience| audience.normal() <= last.as_str())
    };
    let rest = all.get(start..).unwrap_or_default();
    let mut descriptions = Vec::with_capacity(size.min(rest.len()));
    let mut bytes = 0;
    for audience in rest.iter().take(size) {
        let description = convert::audience_description(audience);
        bytes += description.encoded_len();
        // One that is too long for a page has one to itself, or there would be no way past it.
        if bytes > MAX_PAGE_BYTES && !descriptions.is_empty() {
            break;
        }
        descriptions.push(description);
    }
    let is_last_page = descriptions.len() == rest.len();
    let last = descriptions.len().checked_sub(1).and_then(|at| rest.get(at)).filter(|_| !is_last_page);
    Ok((descriptions, last.map(|last| page::token_after(last.normal())).unwrap_or_default()))
}
