//! The questions as messages, for those who want to know why the answer is what it is: the command line and the console.
//!
//! Decides as the service does, and neither records nor counts anything.

use prost::{Message, Name};
use uuid::Uuid;

use crate::call;
use crate::decision::{Answer, Client, authorize, check_limits, registration, token, work};
use crate::explanation::places::Places;
use crate::explanation::words::{AnswerText, grpcurl};
use crate::explanation::{Asked, Explanation};
use crate::policy::PolicySet;
use crate::proto::borrowed::{CheckRequestRef, ExpandRequestRef, TokenRequestRef};
use crate::proto::json::{self, JsonError};
use crate::rpc::convert;
use crate::rpc::error::RpcError;
use crate::rpc::limits::MAX_MESSAGE_BYTES;
use crate::rpc::v1;
use crate::store::Active;

/// A question of the API that is explained.
pub trait ExplainedRequest: Message + Name + Default {
    /// What the API answers.
    type Response: Message + Name;

    /// The name of the RPC.
    const METHOD: &'static str;

    /// The audiences as named.
    fn audiences(&self) -> &[String];

    /// `correlation_id`.
    fn correlation_id(&self) -> &str;

    /// What matters of it to the explanation.
    fn asked(&self) -> Asked;

    /// How many look-ups deciding takes at most; closer to what it takes where that is more than `enough`.
    fn work(&self, policy: &PolicySet, enough: usize) -> usize;

    /// Calls `then` with the answer and its trail, and with what the client says of itself.
    fn with_answer<T>(&self, policy: &PolicySet, then: impl FnOnce(Answer<'_>, Client<'_>) -> T) -> T;

    /// Checks what this kind of request has to say.
    ///
    /// # Errors
    /// [`RpcError`] for the first field that is missing.
    fn check(&self) -> Result<(), RpcError> {
        Ok(())
    }

    /// The answer as a message, without a decision id: nothing came of it.
    fn response(answer: Answer<'_>, policy: &Active) -> Self::Response;

    /// Refuses in the same words what a server would not answer.
    ///
    /// # Errors
    /// [`RpcError`] for the first limit that is exceeded, or field that is missing.
    fn check_question(&self) -> Result<(), RpcError> {
        let actual = self.encoded_len();
        if actual > MAX_MESSAGE_BYTES {
            let (message, limit) = (Self::NAME.to_owned(), MAX_MESSAGE_BYTES);
            return Err(RpcError::MessageTooLarge { message, limit, actual });
        }
        check_limits(self.audiences().into(), self.correlation_id())
            .map_err(|error| convert::question_error(&error, ""))?;
        self.check()
    }

    /// The command that asks a running server the same.
    ///
    /// # Errors
    /// If the request has no JSON form.
    fn command(&self) -> Result<String, JsonError> {
        Ok(grpcurl(Self::METHOD, &json::to_string_of_set(self)?))
    }

    /// Answers and explains. `is_near_wanted` says whether an unknown audience is compared with all that there are.
    fn explain(&self, policy: &Active, places: &Places, is_near_wanted: bool) -> Explained<Self::Response> {
        self.with_answer(&policy.set, |answer, client| {
            let explanation = Explanation::new(places, &answer, &client, self.asked());
            let explanation = if is_near_wanted {
                explanation.with_near_audiences(&policy.set, places, self.audiences())
            } else {
                explanation
            };
            let text = explanation.text(&answer, self.asked());
            let is_allowed = answer.is_allowed();
            Explained { is_allowed, explanation, text, response: Self::response(answer, policy) }
        })
    }
}

/// An answer and why it is what it is.
#[derive(Debug)]
pub struct Explained<R> {
    /// Whether the request is allowed.
    pub is_allowed: bool,
    /// The grounds as data.
    pub explanation: Explanation,
    /// The same in words.
    pub text: AnswerText,
    /// What the API answers.
    pub response: R,
}

impl ExplainedRequest for v1::ExpandRegistrationScopesRequest {
    type Response = v1::ExpandRegistrationScopesResponse;

    const METHOD: &'static str = "ExpandRegistrationScopes";

    fn audiences(&self) -> &[String] {
        &self.audiences
    }

    fn correlation_id(&self) -> &str {
        &self.correlation_id
    }

    fn asked(&self) -> Asked {
        Asked::Registration
    }

    fn work(&self, policy: &PolicySet, enough: usize) -> usize {
        work::of_registration(policy, &call::registration(&ExpandRequestRef::of(self)), enough)
    }

    fn with_answer<T>(&self, policy: &PolicySet, then: impl FnOnce(Answer<'_>, Client<'_>) -> T) -> T {
        let request = ExpandRequestRef::of(self);
        let question = call::registration(&request);
        then(registration::explain(policy, &question), question.client)
    }

    fn response(answer: Answer<'_>, policy: &Active) -> Self::Response {
        let response = convert::expand_response(&answer, policy, &Uuid::nil().into());
        Self::Response { decision_id: String::new(), ..response }
    }
}

impl ExplainedRequest for v1::CheckAuthorizeScopesRequest {
    type Response = v1::CheckAuthorizeScopesResponse;

    const METHOD: &'static str = "CheckAuthorizeScopes";

    fn audiences(&self) -> &[String] {
        &self.audiences
    }

    fn correlation_id(&self) -> &str {
        &self.correlation_id
    }

    fn asked(&self) -> Asked {
        Asked::Authorize {
            scope_omitted: self.scope.as_ref().is_none_or(|scope| scope.trim_matches(' ').is_empty()),
            registration_known: self.registered_scope.is_some(),
        }
    }

    fn work(&self, policy: &PolicySet, enough: usize) -> usize {
        work::of_authorize(policy, &call::authorize(&CheckRequestRef::of(self)), enough)
    }

    fn with_answer<T>(&self, policy: &PolicySet, then: impl FnOnce(Answer<'_>, Client<'_>) -> T) -> T {
        let request = CheckRequestRef::of(self);
        let question = call::authorize(&request);
        then(authorize::explain(policy, &question), question.client)
    }

    fn response(answer: Answer<'_>, policy: &Active) -> Self::Response {
        let response = convert::check_response(&answer, policy, &Uuid::nil().into());
        Self::Response { decision_id: String::new(), ..response }
    }
}

impl ExplainedRequest for v1::CheckTokenScopesRequest {
    type Response = v1::CheckTokenScopesResponse;

    const METHOD: &'static str = "CheckTokenScopes";

    fn audiences(&self) -> &[String] {
        &self.audiences
    }

    fn correlation_id(&self) -> &str {
        &self.correlation_id
    }

    fn asked(&self) -> Asked {
        Asked::Token {
            scope_omitted: self.scope.as_ref().is_none_or(|scope| scope.trim_matches(' ').is_empty()),
            registration_known: self.registered_scope.is_some(),
            has_grant: self.granted_scope.is_some(),
        }
    }

    fn work(&self, policy: &PolicySet, enough: usize) -> usize {
        work::of_token(policy, &call::token(&TokenRequestRef::of(self)), enough)
    }

    fn with_answer<T>(&self, policy: &PolicySet, then: impl FnOnce(Answer<'_>, Client<'_>) -> T) -> T {
        let request = TokenRequestRef::of(self);
        let question = call::token(&request);
        then(token::explain(policy, &question), question.client)
    }

    fn check(&self) -> Result<(), RpcError> {
        convert::check_grant(self.grant, self.granted_scope.as_deref(), String::new)
    }

    fn response(answer: Answer<'_>, policy: &Active) -> Self::Response {
        let response = convert::token_response(&answer, policy, &Uuid::nil().into());
        Self::Response { decision_id: String::new(), ..response }
    }
}
