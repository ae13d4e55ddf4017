//! The answer of a batch, kept within what clients take by default (4 MiB).
//!
//! Texts for people go first: once the answer grows too large, the messages of refused scopes are left out of all items. An item that
//! does not fit even so is an error of its own, so that its caller can ask it alone.

use prost::Message;

use crate::rpc::error::RpcError;
use crate::rpc::limits::{MAX_ANSWER_BYTES, MAX_BATCH_ITEMS};
use crate::rpc::v1;
use crate::rpc::v1::batch_check_result::Result as ItemResult;

/// The results so far, in the order asked.
#[derive(Debug, Default)]
pub(super) struct BatchAnswer {
    results: Vec<v1::BatchCheckResult>,
    /// Encoded length of the response so far.
    bytes: usize,
    /// Whether messages of refused scopes are left out.
    without_messages: bool,
}

impl BatchAnswer {
    /// Adds the result of the next item.
    pub(super) fn push(&mut self, result: Result<v1::CheckAuthorizeScopesResponse, RpcError>) {
        let mut result = match result {
            Ok(mut response) => {
                if self.without_messages {
                    leave_out_messages(&mut response);
                }
                item(ItemResult::Response(response))
            }
            Err(error) => item(ItemResult::Error(error.to_check_error())),
        };
        if self.bytes + bytes_of(&result) > MAX_RESULT_BYTES && !self.without_messages {
            self.without_messages = true;
            for result in self.results.iter_mut().chain([&mut result]) {
                if let Some(ItemResult::Response(response)) = &mut result.result {
                    leave_out_messages(response);
                }
            }
            self.bytes = self.results.iter().map(bytes_of).sum();
        }
        if self.bytes + bytes_of(&result) > MAX_RESULT_BYTES
            && matches!(result.result, Some(ItemResult::Response(_)))
        {
            result = item(ItemResult::Error(
                RpcError::AnswerTooLarge { limit: MAX_ANSWER_BYTES }.to_check_error(),
            ));
        }
        self.bytes += bytes_of(&result);
        self.results.push(result);
    }

    /// Puts an error in the place of a result that was added before.
    pub(super) fn fail(&mut self, at: usize, error: &RpcError) {
        if let Some(result) = self.results.get_mut(at) {
            *result = item(ItemResult::Error(error.to_check_error()));
        }
    }

    pub(super) fn into_response(self) -> v1::BatchCheckAuthorizeScopesResponse {
        v1::BatchCheckAuthorizeScopesResponse { results: self.results }
    }
}

fn item(result: ItemResult) -> v1::BatchCheckResult {
    v1::BatchCheckResult { result: Some(result) }
}

fn leave_out_messages(response: &mut v1::CheckAuthorizeScopesResponse) {
    response.refused.iter_mut().for_each(|refused| refused.message = String::new());
}

/// What a result takes in the response: a tag, its length, itself.
fn bytes_of(result: &v1::BatchCheckResult) -> usize {
    let length = result.encoded_len();
    1 + prost::length_delimiter_len(length) + length
}

/// What results may have together, so that there is room for an error in the place of each.
const MAX_RESULT_BYTES: usize = MAX_ANSWER_BYTES - MAX_BATCH_ITEMS * MAX_ERROR_BYTES;
/// More than an error of an item has.
const MAX_ERROR_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer with `count` refused scopes of 500 bytes, and messages as long.
    fn response(count: usize) -> v1::CheckAuthorizeScopesResponse {
        let refused = v1::RefusedScope { scope: "s".repeat(500), message: "m".repeat(500), reason: 3 };
        v1::CheckAuthorizeScopesResponse { refused: vec![refused; count], ..Default::default() }
    }

    /// How many results have messages, have none, and are errors of which reason.
    fn shape(answer: BatchAnswer) -> (usize, usize, Vec<String>) {
        let response = answer.into_response();
        assert!(response.encoded_len() <= MAX_ANSWER_BYTES, "{} bytes", response.encoded_len());
        let (mut with, mut without, mut errors) = (0, 0, Vec::new());
        for result in response.results {
            match result.result.expect("a result") {
                ItemResult::Response(response) => {
                    let told = response.refused.iter().filter(|refused| !refused.message.is_empty()).count();
                    assert!(told == 0 || told == response.refused.len(), "all or none");
                    if told > 0 { with += 1 } else { without += 1 }
                }
                ItemResult::Error(error) => errors.push(error.reason),
            }
        }
        (with, without, errors)
    }

    #[test]
    fn messages_are_there_while_the_answer_is_small() {
        let mut answer = BatchAnswer::default();
        (0..3).for_each(|_| answer.push(Ok(response(255))));
        answer.push(Err(RpcError::NoPolicy));
        assert_eq!(shape(answer), (3, 0, vec!["POLICY_NOT_LOADED".to_owned()]));
    }

    #[test]
    fn messages_are_left_out_of_all_items_once_it_is_too_large() {
        let mut answer = BatchAnswer::default();
        (0..30).for_each(|_| answer.push(Ok(response(255))));
        assert_eq!(shape(answer), (0, 30, Vec::new()));
    }

    #[test]
    fn item_that_does_not_fit_is_an_error_and_smaller_ones_follow() {
        let mut answer = BatchAnswer::default();
        (0..32).for_each(|_| answer.push(Ok(response(255))));
        answer.push(Ok(response(3)));
        (0..66).for_each(|_| answer.push(Ok(response(255))));
        answer.fail(0, &RpcError::AuditNotDurable);
        let (with, without, errors) = shape(answer);
        // 31 large ones and the small one fit, and the first of them failed.
        assert_eq!((with, without), (0, 31));
        assert_eq!(errors.len(), 68);
        assert_eq!(errors[0], "AUDIT_NOT_DURABLE");
        assert!(errors[1..].iter().all(|reason| reason == "ANSWER_TOO_LARGE"));
    }
}
