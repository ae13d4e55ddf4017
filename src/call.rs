//! A question that owns its text: what a test case asks, and what an audit record says was asked.
//!
//! The decision core borrows its questions from the wire; tools that keep many of them keep these.

use crate::decision::{Answer, Client, LimitError, authorize, check_limits, registration};
use crate::policy::{ClientSource, PolicySet};

/// Which of the two questions is asked.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Moment {
    /// `ExpandRegistrationScopes`.
    Register,
    /// `CheckAuthorizeScopes`.
    Authorize,
}

impl Moment {
    /// `register` or `authorize`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Authorize => "authorize",
        }
    }
}

/// One question, as on the wire.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Call {
    /// Which question.
    pub moment: Moment,
    /// The audiences as named; may be empty.
    pub audiences: Vec<String>,
    /// `scope` as received; `None` if it was not sent.
    pub scope: Option<String>,
    /// At authorize, `registered_scope` as stored; `None` means unknown.
    pub registered_scope: Option<String>,
    /// The client.
    pub client: OwnedClient,
}

/// What a client says of itself. Empty text and empty lists mean that nothing was said.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct OwnedClient {
    /// `client_id`.
    pub client_id: String,
    /// Where the authorization server knows the client from.
    pub source: Option<ClientSource>,
    /// `client_name`.
    pub client_name: String,
    /// `software_id`.
    pub software_id: String,
    /// `software_version`; no rule looks at it.
    pub software_version: String,
    /// `redirect_uris`.
    pub redirect_uris: Vec<String>,
    /// `grant_types`.
    pub grant_types: Vec<String>,
    /// `application_type`.
    pub application_type: String,
}

impl Call {
    /// Decides it.
    #[must_use]
    pub fn answer<'a>(&'a self, policy: &'a PolicySet) -> Answer<'a> {
        let Self { moment, audiences, scope, registered_scope, client } = self;
        let scope = scope.as_deref();
        let client = client.as_client();
        match moment {
            Moment::Register => {
                registration::expand(policy, &registration::Question { audiences, scope, client })
            }
            Moment::Authorize => {
                let registered_scope = registered_scope.as_deref();
                authorize::check(policy, &authorize::Question { audiences, scope, registered_scope, client })
            }
        }
    }

    /// Checks the parts that have a limit: a server would not answer a question beyond one.
    ///
    /// # Errors
    /// The first limit that is exceeded.
    pub fn check_limits(&self) -> Result<(), LimitError> {
        check_limits(&self.audiences, self.scope.as_deref(), self.registered_scope.as_deref())
    }
}

impl OwnedClient {
    /// The same, borrowed.
    #[must_use]
    pub fn as_client(&self) -> Client<'_> {
        let Self {
            client_id,
            source,
            client_name,
            software_id,
            software_version: _,
            redirect_uris,
            grant_types,
            application_type,
        } = self;
        Client {
            client_id,
            source: *source,
            client_name,
            software_id,
            redirect_uris,
            grant_types,
            application_type,
        }
    }
}
