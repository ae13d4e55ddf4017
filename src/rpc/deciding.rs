//! The requests that decide, as a handler needs them: what differs between a registration and an authorize request is here.

use crate::call;
use crate::decision::authorize::AuthorizeQuestion;
use crate::decision::registration::RegistrationQuestion;
use crate::decision::{Answer, authorize, registration, work};
use crate::policy::{AudiencePolicy, PolicySet};
use crate::proto::borrowed::{CheckRequestRef, ClientRef, ExpandRequestRef};
use crate::rpc::limits::MAX_LOOKUPS;
use crate::rpc::shadow::ShadowRequest;
use crate::short_list::TextsRef;

/// A request that decides, as it was read.
pub(super) trait DecidingRequest {
    /// The question that it is.
    type Question<'q>: DecidingQuestion<'q>
    where
        Self: 'q;

    /// As the core asks it.
    fn question(&self) -> Self::Question<'_>;

    /// What records tell of it.
    fn asked(&self) -> AskedTexts<'_>;

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

/// What a request says, as it was received.
#[derive(Clone, Copy, Debug)]
pub(super) struct AskedTexts<'q> {
    pub(super) audiences: TextsRef<'q>,
    pub(super) client: Option<&'q ClientRef<'q>>,
    pub(super) scope: Option<&'q str>,
    /// At registration, the previous scope.
    pub(super) registered_scope: Option<&'q str>,
    pub(super) correlation_id: &'q str,
}

impl DecidingRequest for ExpandRequestRef<'_> {
    type Question<'q>
        = RegistrationQuestion<'q>
    where
        Self: 'q;

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
            correlation_id,
        }
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
            correlation_id,
        }
    }

    fn to_shadow(&self) -> ShadowRequest {
        ShadowRequest::Check(self.to_message())
    }
}
