//! The requests that decide, as a handler needs them: what differs between a registration, an authorize request and a request for
//! a token is here.

use std::sync::Arc;

use crate::audit::Appending;
use crate::call;
use crate::decision::authorize::AuthorizeQuestion;
use crate::decision::registration::RegistrationQuestion;
use crate::decision::token::TokenQuestion;
use crate::decision::{Answer, authorize, registration, token, work};
use crate::policy::{AudiencePolicy, PolicySet};
use crate::proto::borrowed::{CheckRequestRef, ClientRef, ExpandRequestRef, TokenRequestRef};
use crate::rpc::answering::Answered;
use crate::rpc::batch::{BatchAnswer, BatchResponse};
use crate::rpc::convert;
use crate::rpc::count::DecidingMethod;
use crate::rpc::encode::{EncodedAnswer as _, EncodedCheck, EncodedToken};
use crate::rpc::error::RpcError;
use crate::rpc::limits::MAX_LOOKUPS;
use crate::rpc::received::Readable;
use crate::rpc::scope_policy::{BatchItem, ScopePolicy};
use crate::rpc::shadow::ShadowRequest;
use crate::rpc::v1;
use crate::rpc::wire_id::WireId;
use crate::short_list::TextsRef;
use crate::store::Active;

/// A request that decides, as it was read.
pub(super) trait DecidingRequest {
    /// The question that it is.
    type Question<'q>: DecidingQuestion<'q>
    where
        Self: 'q;

    /// Its message.
    type Message;

    /// As the core asks it.
    fn question(&self) -> Self::Question<'_>;

    /// As many bytes as its message has, or a few more.
    fn bytes(&self) -> usize {
        let AskedTexts { audiences, client, scope, registered_scope, grant, correlation_id } = self.asked();
        let texts =
            [scope, registered_scope, grant.and_then(|grant| grant.granted_scope), Some(correlation_id)];
        let client = client.map_or(0, |client| {
            let entries = client.redirect_uris.len() + client.grant_types.len();
            call::facts(client).bytes() + (CLIENT_FIELDS + entries) * FIELD_BYTES
        });
        let all = texts.into_iter().flatten().chain(audiences.iter());
        all.map(|text| text.len() + FIELD_BYTES).sum::<usize>() + client + 2 * FIELD_BYTES
    }

    /// What records tell of it.
    fn asked(&self) -> AskedTexts<'_>;

    /// Checks what this kind of request has to say. `path` leads to it inside of the message, for errors.
    ///
    /// # Errors
    ///
    /// [`RpcError`] for the first field that is missing, or has a value that is not known.
    fn check(&self, _path: impl Fn() -> String) -> Result<(), RpcError> {
        Ok(())
    }

    /// The message itself.
    fn to_message(&self) -> Self::Message;

    /// A copy, to be decided again.
    fn to_shadow(&self) -> ShadowRequest;
}

/// A question of the core.
pub(super) trait DecidingQuestion<'q> {
    /// How many look-ups deciding it takes; an estimate that is exact enough to tell whether it is more than [`MAX_LOOKUPS`].
    fn lookups(&self, policy: &PolicySet) -> usize;

    /// Decides it. `near`: an audience of the policy that it may well name.
    fn answer(&self, policy: &'q PolicySet, near: Option<&'q AudiencePolicy>) -> Answer<'q>;
}

impl<'q> DecidingQuestion<'q> for RegistrationQuestion<'q> {
    fn lookups(&self, policy: &PolicySet) -> usize {
        work::of_registration(policy, self, MAX_LOOKUPS)
    }

    fn answer(&self, policy: &'q PolicySet, _: Option<&'q AudiencePolicy>) -> Answer<'q> {
        registration::expand(policy, self)
    }
}

impl<'q> DecidingQuestion<'q> for AuthorizeQuestion<'q> {
    fn lookups(&self, policy: &PolicySet) -> usize {
        work::of_authorize(policy, self, MAX_LOOKUPS)
    }

    fn answer(&self, policy: &'q PolicySet, near: Option<&'q AudiencePolicy>) -> Answer<'q> {
        authorize::check_near(policy, self, near)
    }
}

impl<'q> DecidingQuestion<'q> for TokenQuestion<'q> {
    fn lookups(&self, policy: &PolicySet) -> usize {
        work::of_token(policy, self, MAX_LOOKUPS)
    }

    fn answer(&self, policy: &'q PolicySet, near: Option<&'q AudiencePolicy>) -> Answer<'q> {
        token::check_near(policy, self, near)
    }
}

/// What a request for a token says of its grant, as it was received.
#[derive(Clone, Copy, Debug)]
pub struct AskedGrant<'q> {
    /// What the client presented.
    pub grant: v1::TokenGrant,
    /// What that stands for; `None` if it was not said.
    pub granted_scope: Option<&'q str>,
}

/// What a request says, as it was received.
#[derive(Clone, Copy, Debug)]
pub(super) struct AskedTexts<'q> {
    pub(super) audiences: TextsRef<'q>,
    pub(super) client: Option<&'q ClientRef<'q>>,
    pub(super) scope: Option<&'q str>,
    /// At registration, the previous scope.
    pub(super) registered_scope: Option<&'q str>,
    /// For a token.
    pub(super) grant: Option<AskedGrant<'q>>,
    pub(super) correlation_id: &'q str,
}

impl DecidingRequest for ExpandRequestRef<'_> {
    type Question<'q>
        = RegistrationQuestion<'q>
    where
        Self: 'q;
    type Message = v1::ExpandRegistrationScopesRequest;

    fn question(&self) -> Self::Question<'_> {
        call::registration(self)
    }

    fn asked(&self) -> AskedTexts<'_> {
        let Self { audiences, scope, client, previous_scope, correlation_id } = self;
        AskedTexts {
            audiences: TextsRef::Borrowed(audiences),
            client: client.as_ref(),
            scope: *scope,
            registered_scope: *previous_scope,
            grant: None,
            correlation_id,
        }
    }

    fn to_message(&self) -> Self::Message {
        self.to_message()
    }

    fn to_shadow(&self) -> ShadowRequest {
        ShadowRequest::Expand(self.to_message())
    }
}

impl DecidingRequest for CheckRequestRef<'_> {
    type Question<'q>
        = AuthorizeQuestion<'q>
    where
        Self: 'q;
    type Message = v1::CheckAuthorizeScopesRequest;

    fn question(&self) -> Self::Question<'_> {
        call::authorize(self)
    }

    fn asked(&self) -> AskedTexts<'_> {
        let Self { audiences, scope, registered_scope, client, correlation_id } = self;
        AskedTexts {
            audiences: TextsRef::Borrowed(audiences),
            client: client.as_ref(),
            scope: *scope,
            registered_scope: *registered_scope,
            grant: None,
            correlation_id,
        }
    }

    fn to_message(&self) -> Self::Message {
        self.to_message()
    }

    fn to_shadow(&self) -> ShadowRequest {
        ShadowRequest::Check(self.to_message())
    }
}

impl DecidingRequest for TokenRequestRef<'_> {
    type Question<'q>
        = TokenQuestion<'q>
    where
        Self: 'q;
    type Message = v1::CheckTokenScopesRequest;

    fn question(&self) -> Self::Question<'_> {
        call::token(self)
    }

    fn asked(&self) -> AskedTexts<'_> {
        let Self { audiences, scope, granted_scope, registered_scope, client, grant, correlation_id } = self;
        AskedTexts {
            audiences: TextsRef::Borrowed(audiences),
            client: client.as_ref(),
            scope: *scope,
            registered_scope: *registered_scope,
            grant: Some(AskedGrant {
                grant: v1::TokenGrant::try_from(*grant).unwrap_or_default(),
                granted_scope: *granted_scope,
            }),
            correlation_id,
        }
    }

    fn check(&self, path: impl Fn() -> String) -> Result<(), RpcError> {
        convert::check_grant(self.grant, self.granted_scope, path)
    }

    fn to_message(&self) -> Self::Message {
        self.to_message()
    }

    fn to_shadow(&self) -> ShadowRequest {
        ShadowRequest::Token(self.to_message())
    }
}

/// The most bytes that a field has before its text: a key and a length.
const FIELD_BYTES: usize = 6;
/// The fields of a client that are no lists.
const CLIENT_FIELDS: usize = 6;

/// A check that may be asked in a batch.
pub(super) trait BatchedCheck: Readable + Send + 'static {
    /// What answers the batch.
    type Response: BatchResponse<Answer: Send> + Send;
    /// The RPC of the batch.
    const METHOD: DecidingMethod;

    /// Adds an answer to those of the batch.
    fn push(
        batch: &mut BatchAnswer<Self::Response>,
        answer: &Answer<'_>,
        policy: &Active,
        decision_id: &WireId,
    );

    /// Decides it away from the batch, and makes a message of the answer.
    ///
    /// # Errors
    ///
    /// As for any check of a batch.
    fn decide(
        &self,
        service: &ScopePolicy,
        item: BatchItem<'_>,
        policy: &Arc<Active>,
    ) -> Result<Answered<<Self::Response as BatchResponse>::Answer, Appending>, RpcError>;
}

macro_rules! batched_check {
    ($check:ident, $response:ident, $method:ident, $encoded:ident, $convert:ident) => {
        impl BatchedCheck for v1::$check {
            type Response = v1::$response;

            const METHOD: DecidingMethod = DecidingMethod::$method;

            fn push(
                batch: &mut BatchAnswer<Self::Response>,
                answer: &Answer<'_>,
                policy: &Active,
                decision_id: &WireId,
            ) {
                batch.push($encoded::new(answer, policy, decision_id).into_item());
            }

            fn decide(
                &self,
                service: &ScopePolicy,
                item: BatchItem<'_>,
                policy: &Arc<Active>,
            ) -> Result<Answered<<Self::Response as BatchResponse>::Answer, Appending>, RpcError> {
                let check = self.borrow();
                service.decide_item(item, (&check, &check.question()), (policy, None), convert::$convert)
            }
        }
    };
}

batched_check!(
    CheckAuthorizeScopesRequest,
    BatchCheckAuthorizeScopesResponse,
    BatchCheck,
    EncodedCheck,
    check_response
);
batched_check!(
    CheckTokenScopesRequest,
    BatchCheckTokenScopesResponse,
    BatchToken,
    EncodedToken,
    token_response
);
