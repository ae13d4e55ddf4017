//! The answer of a batch, kept within what clients take by default (4 MiB).
//!
//! Texts for people go first: once the answer grows too large, the messages of refused scopes are left out of all items. An item that
//! does not fit even so is an error of its own, so that its caller can ask it alone.

use std::marker::PhantomData;

use bytes::Bytes;
use prost::Message;

use crate::rpc::codec::{PREFIX_BYTES, frame, frame_with_capacity, malformed};
use crate::rpc::encode::{EncodedAnswer, EncodedItem, WireMessage as _};
use crate::rpc::error::RpcError;
use crate::rpc::limits::{MAX_ANSWER_BYTES, MAX_BATCH_ITEMS};
use crate::rpc::v1;

/// The message that answers a batch: a list of results, each of which is an answer or an error.
pub(super) trait BatchResponse: Message + Default {
    /// The answer to one check.
    type Answer;
    /// One result.
    type Item: Message + Default;

    /// The results, in the order asked.
    fn into_results(self) -> Vec<Self::Item>;

    /// An answer as a result.
    fn of_answer(answer: Self::Answer) -> Self::Item;

    /// An error as a result.
    fn of_error(error: v1::CheckError) -> Self::Item;

    /// Takes the texts for people in `refused` out of a result.
    fn leave_out_messages(item: &mut Self::Item);
}

macro_rules! batch_response {
    ($response:ident, $answer:ident, $item:ident, $result:ident) => {
        impl BatchResponse for v1::$response {
            type Answer = v1::$answer;
            type Item = v1::$item;

            fn into_results(self) -> Vec<v1::$item> {
                self.results
            }

            fn of_answer(answer: v1::$answer) -> v1::$item {
                v1::$item { result: Some(v1::$result::Result::Response(answer)) }
            }

            fn of_error(error: v1::CheckError) -> v1::$item {
                v1::$item { result: Some(v1::$result::Result::Error(error)) }
            }

            fn leave_out_messages(item: &mut v1::$item) {
                if let Some(v1::$result::Result::Response(response)) = &mut item.result {
                    response.refused.iter_mut().for_each(|refused| refused.message = String::new());
                }
            }
        }
    };
}

batch_response!(
    BatchCheckAuthorizeScopesResponse,
    CheckAuthorizeScopesResponse,
    BatchCheckResult,
    batch_check_result
);
batch_response!(
    BatchCheckTokenScopesResponse,
    CheckTokenScopesResponse,
    BatchCheckTokenResult,
    batch_check_token_result
);

/// The results so far, in the order asked, as the bytes of `R`.
#[derive(Debug)]
pub(super) struct BatchAnswer<R> {
    /// Room for a prefix, and the results.
    bytes: Vec<u8>,
    /// Whether messages of refused scopes are left out.
    without_messages: bool,
    response: PhantomData<R>,
}

impl<R: BatchResponse> BatchAnswer<R> {
    /// Nothing yet, with room for answers to so many checks that have so many bytes.
    pub(super) fn of(checks: usize, bytes: usize) -> Self {
        let capacity = MAX_RESULT_BYTES.min(checks * ANSWER_BYTES + bytes);
        Self { bytes: frame_with_capacity(capacity), without_messages: false, response: PhantomData }
    }

    /// Adds the answer to the next check.
    pub(super) fn push<A: EncodedAnswer>(&mut self, item: EncodedItem<A>) {
        if !self.without_messages {
            if self.append_if_room(item) {
                return;
            }
            self.leave_out_messages();
        }
        if !self.append_if_room(item.without_messages()) {
            self.push_error(&RpcError::AnswerTooLarge { limit: MAX_ANSWER_BYTES });
        }
    }

    /// Returns `false`, and adds nothing, if there is no room for it.
    fn append_if_room<A: EncodedAnswer>(&mut self, item: EncodedItem<A>) -> bool {
        let end = self.bytes.len();
        item.encode(&mut self.bytes);
        let has_room = self.bytes.len() - PREFIX_BYTES <= MAX_RESULT_BYTES;
        if !has_room {
            self.bytes.truncate(end);
        }
        has_room
    }

    /// Adds the answer to the next check, which was made as a message.
    pub(super) fn push_response(&mut self, response: R::Answer) {
        let mut item = R::of_answer(response);
        if !self.without_messages && !self.has_room(item.encoded_len()) {
            self.leave_out_messages();
        }
        if self.without_messages {
            R::leave_out_messages(&mut item);
        }
        match self.has_room(item.encoded_len()) {
            true => self.append_message(&item),
            false => self.push_error(&RpcError::AnswerTooLarge { limit: MAX_ANSWER_BYTES }),
        }
    }

    /// Adds an error for the next check. There is always room for it.
    pub(super) fn push_error(&mut self, error: &RpcError) {
        let item = R::of_error(error.to_check_error());
        if !self.without_messages && !self.has_room(item.encoded_len()) {
            self.leave_out_messages();
        }
        self.append_message(&item);
    }

    /// Puts an error in the places of results that were added before, all in one go: each time costs as much as the whole answer.
    pub(super) fn fail(&mut self, places: &[usize], error: &RpcError) {
        if places.is_empty() {
            return;
        }
        self.rewrite(|index, item| {
            if places.contains(&index) {
                *item = R::of_error(error.to_check_error());
            }
        });
    }

    /// With the prefix of a message.
    pub(super) fn into_framed(self) -> Bytes {
        frame(self.bytes)
    }

    /// As a message.
    ///
    /// # Errors
    ///
    /// Never: the bytes are those of such a message.
    pub(super) fn into_response(self) -> Result<R, RpcError> {
        Message::decode(self.bytes.get(PREFIX_BYTES..).unwrap_or_default()).map_err(malformed)
    }

    /// Returns `true` if a result of so many bytes leaves room for an error in the place of each.
    fn has_room(&self, length: usize) -> bool {
        self.bytes.len() - PREFIX_BYTES + 1 + prost::length_delimiter_len(length) + length <= MAX_RESULT_BYTES
    }

    fn append_message(&mut self, item: &R::Item) {
        prost::encoding::message::encode(1, item, &mut self.bytes);
    }

    fn leave_out_messages(&mut self) {
        self.without_messages = true;
        self.rewrite(|_, item| R::leave_out_messages(item));
    }

    /// Reads each result, changes it, and writes it again: rare, and no copy of them has to be kept.
    fn rewrite(&mut self, mut change: impl FnMut(usize, &mut R::Item)) {
        let before = Self { bytes: std::mem::take(&mut self.bytes), ..*self };
        self.bytes = frame_with_capacity(before.bytes.len());
        // They are what was written here.
        for (index, mut item) in
            before.into_response().unwrap_or_default().into_results().into_iter().enumerate()
        {
            change(index, &mut item);
            self.append_message(&item);
        }
    }
}

/// What results may have together, so that there is room for an error in the place of each.
const MAX_RESULT_BYTES: usize = MAX_ANSWER_BYTES - MAX_BATCH_ITEMS * MAX_ERROR_BYTES;
/// More than an error of an item has.
const MAX_ERROR_BYTES: usize = 1024;
/// About what an answer has more than its check.
const ANSWER_BYTES: usize = 160;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::v1::batch_check_result::Result as ItemResult;

    type Checks = BatchAnswer<v1::BatchCheckAuthorizeScopesResponse>;

    /// An answer with `count` refused scopes of 500 bytes, and messages as long.
    fn response(count: usize) -> v1::CheckAuthorizeScopesResponse {
        let refused = v1::RefusedScope { scope: "s".repeat(500), message: "m".repeat(500), reason: 3 };
        v1::CheckAuthorizeScopesResponse { refused: vec![refused; count], ..Default::default() }
    }

    /// How many results have messages, have none, and are errors of which reason.
    fn shape(answer: Checks) -> (usize, usize, Vec<String>) {
        let response = answer.into_response().expect("a message");
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
        let mut answer = Checks::of(0, 0);
        (0..3).for_each(|_| answer.push_response(response(255)));
        answer.push_error(&RpcError::NoPolicy);
        assert_eq!(shape(answer), (3, 0, vec!["POLICY_NOT_LOADED".to_owned()]));
    }

    #[test]
    fn messages_are_left_out_of_all_items_once_it_is_too_large() {
        let mut answer = Checks::of(0, 0);
        (0..30).for_each(|_| answer.push_response(response(255)));
        assert_eq!(shape(answer), (0, 30, Vec::new()));
    }

    #[test]
    fn item_that_does_not_fit_is_an_error_and_smaller_ones_follow() {
        let mut answer = Checks::of(0, 0);
        (0..32).for_each(|_| answer.push_response(response(255)));
        answer.push_response(response(3));
        (0..66).for_each(|_| answer.push_response(response(255)));
        answer.fail(&[0], &RpcError::AuditNotDurable);
        let (with, without, errors) = shape(answer);
        // 31 large ones and the small one fit, and the first of them failed.
        assert_eq!((with, without), (0, 31));
        assert_eq!(errors.len(), 68);
        assert_eq!(errors[0], "AUDIT_NOT_DURABLE");
        assert!(errors[1..].iter().all(|reason| reason == "ANSWER_TOO_LARGE"));
    }
}
