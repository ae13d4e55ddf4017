//! The messages of the API as questions of the core: the one place where a message becomes a question, and a question that
//! owns its text, which is what a test case asks and what an audit record says was asked.

use crate::decision::{
    Answer, Client, QuestionError, RequestKind, TokenGrant, authorize, check_limits, registration, token,
};
use crate::policy::{ClientSource, PolicySet};
use crate::proto::borrowed::{CheckRequestRef, ClientRef, ExpandRequestRef, TokenRequestRef};
use crate::proto::v1;
use crate::short_list::TextsRef;

/// One question, as on the wire.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Call {
    /// Which question.
    pub kind: RequestKind,
    /// The audiences as named; may be empty.
    pub audiences: Vec<String>,
    /// `scope` as received; `None` if it was not sent.
    pub scope: Option<String>,
    /// `registered_scope` as stored; `None` means unknown. At registration, `previous_scope`; `None` means a new one.
    pub registered_scope: Option<String>,
    /// For a token, what the client presents; `None` if it is not said.
    pub grant: Option<TokenGrant>,
    /// For a token, `granted_scope` as known; `None` if there is none.
    pub granted_scope: Option<String>,
    /// The client; one with no field set says nothing.
    pub client: v1::Client,
}

impl Call {
    /// Decides it.
    #[must_use]
    pub fn answer<'a>(&'a self, policy: &'a PolicySet) -> Answer<'a> {
        match self.kind {
            RequestKind::Registration => registration::expand(policy, &self.registration()),
            RequestKind::Authorize => authorize::check(policy, &self.authorize()),
            RequestKind::Token => token::check(policy, &self.token()),
        }
    }

    /// Decides it, with the trail.
    #[must_use]
    pub fn explain<'a>(&'a self, policy: &'a PolicySet) -> Answer<'a> {
        match self.kind {
            RequestKind::Registration => registration::explain(policy, &self.registration()),
            RequestKind::Authorize => authorize::explain(policy, &self.authorize()),
            RequestKind::Token => token::explain(policy, &self.token()),
        }
    }

    fn registration(&self) -> registration::RegistrationQuestion<'_> {
        let Self { kind: _, audiences, scope, registered_scope, grant: _, granted_scope: _, client: _ } =
            self;
        registration::RegistrationQuestion {
            audiences: audiences.into(),
            scope: scope.as_deref(),
            previous_scope: registered_scope.as_deref(),
            client: self.client(),
        }
    }

    fn authorize(&self) -> authorize::AuthorizeQuestion<'_> {
        let Self { kind: _, audiences, scope, registered_scope, grant: _, granted_scope: _, client: _ } =
            self;
        authorize::AuthorizeQuestion {
            audiences: audiences.into(),
            scope: scope.as_deref(),
            registered_scope: registered_scope.as_deref(),
            client: self.client(),
        }
    }

    fn token(&self) -> token::TokenQuestion<'_> {
        let Self { kind: _, audiences, scope, registered_scope, grant: _, granted_scope, client: _ } = self;
        token::TokenQuestion {
            audiences: audiences.into(),
            scope: scope.as_deref(),
            granted_scope: granted_scope.as_deref(),
            registered_scope: registered_scope.as_deref(),
            client: self.client(),
        }
    }

    fn client(&self) -> Client<'_> {
        let v1::Client {
            client_id,
            source: _,
            client_name,
            software_id,
            software_version,
            redirect_uris,
            grant_types,
            application_type,
        } = &self.client;
        Client {
            client_id,
            source: source(self.client.source()),
            client_name,
            software_id,
            software_version,
            redirect_uris: redirect_uris.into(),
            grant_types: grant_types.into(),
            application_type,
        }
    }

    /// Checks what a server checks before it decides: it would not answer a question beyond a limit, or without what the answer
    /// depends on.
    ///
    /// # Errors
    /// The first that is wrong with it.
    pub fn check(&self) -> Result<(), QuestionError> {
        check_limits((&self.audiences).into(), "")?;
        match self.kind {
            RequestKind::Token => token::check_grant(self.grant, self.granted_scope.as_deref()),
            RequestKind::Registration | RequestKind::Authorize => Ok(()),
        }
    }
}

/// A registration as asked over the API. What is for the record alone is not in it.
#[must_use]
pub fn registration<'a>(request: &'a ExpandRequestRef<'_>) -> registration::RegistrationQuestion<'a> {
    // Taken apart in full, so that a new field is not forgotten.
    let ExpandRequestRef { audiences, scope, client, previous_scope, correlation_id: _ } = request;
    registration::RegistrationQuestion {
        audiences: TextsRef::Borrowed(audiences),
        scope: *scope,
        previous_scope: *previous_scope,
        client: client.as_ref().map(facts).unwrap_or_default(),
    }
}

/// An authorize request as asked over the API.
#[must_use]
pub fn authorize<'a>(request: &'a CheckRequestRef<'_>) -> authorize::AuthorizeQuestion<'a> {
    let CheckRequestRef { audiences, scope, registered_scope, client, correlation_id: _ } = request;
    authorize::AuthorizeQuestion {
        audiences: TextsRef::Borrowed(audiences),
        scope: *scope,
        registered_scope: *registered_scope,
        client: client.as_ref().map(facts).unwrap_or_default(),
    }
}

/// A request for a token as asked over the API. What the client presents is checked apart.
#[must_use]
pub fn token<'a>(request: &'a TokenRequestRef<'_>) -> token::TokenQuestion<'a> {
    let TokenRequestRef {
        audiences,
        scope,
        granted_scope,
        registered_scope,
        client,
        grant: _,
        correlation_id: _,
    } = request;
    token::TokenQuestion {
        audiences: TextsRef::Borrowed(audiences),
        scope: *scope,
        granted_scope: *granted_scope,
        registered_scope: *registered_scope,
        client: client.as_ref().map(facts).unwrap_or_default(),
    }
}

/// What a client presents for a token. `None` if it is not said, or something that a newer caller knows and we do not.
#[must_use]
pub const fn grant(grant: v1::TokenGrant) -> Option<TokenGrant> {
    match grant {
        v1::TokenGrant::Unspecified => None,
        v1::TokenGrant::Refresh => Some(TokenGrant::Refresh),
        v1::TokenGrant::ClientCredentials => Some(TokenGrant::ClientCredentials),
        v1::TokenGrant::JwtBearer => Some(TokenGrant::JwtBearer),
        v1::TokenGrant::TokenExchange => Some(TokenGrant::TokenExchange),
    }
}

/// The same as the API has it.
#[must_use]
pub const fn wire_grant(grant: TokenGrant) -> v1::TokenGrant {
    match grant {
        TokenGrant::Refresh => v1::TokenGrant::Refresh,
        TokenGrant::ClientCredentials => v1::TokenGrant::ClientCredentials,
        TokenGrant::JwtBearer => v1::TokenGrant::JwtBearer,
        TokenGrant::TokenExchange => v1::TokenGrant::TokenExchange,
    }
}

/// What a client says of itself.
#[must_use]
pub fn facts<'a>(client: &'a ClientRef<'_>) -> Client<'a> {
    let ClientRef {
        client_id,
        source: number,
        client_name,
        software_id,
        software_version,
        redirect_uris,
        grant_types,
        application_type,
    } = client;
    Client {
        client_id,
        source: source(v1::ClientSource::try_from(*number).unwrap_or_default()),
        client_name,
        software_id,
        software_version,
        redirect_uris: TextsRef::Borrowed(redirect_uris),
        grant_types: TextsRef::Borrowed(grant_types),
        application_type,
    }
}

/// `None` for one that is not said, or that a newer caller knows and we do not: it holds no rule.
const fn source(source: v1::ClientSource) -> Option<ClientSource> {
    match source {
        v1::ClientSource::Unspecified => None,
        v1::ClientSource::Dcr => Some(ClientSource::Dcr),
        v1::ClientSource::Cimd => Some(ClientSource::Cimd),
        v1::ClientSource::Static => Some(ClientSource::Static),
    }
}

/// The source as the API has it.
#[must_use]
pub const fn wire_source(source: ClientSource) -> v1::ClientSource {
    match source {
        ClientSource::Dcr => v1::ClientSource::Dcr,
        ClientSource::Cimd => v1::ClientSource::Cimd,
        ClientSource::Static => v1::ClientSource::Static,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_we_do_not_know_is_not_said() {
        assert_eq!(facts(&ClientRef { source: 99, ..ClientRef::default() }).source, None);
        for core in [ClientSource::Dcr, ClientSource::Cimd, ClientSource::Static] {
            let wire = ClientRef { source: wire_source(core).into(), ..ClientRef::default() };
            assert_eq!(facts(&wire).source, Some(core));
            let name = format!("CLIENT_SOURCE_{}", core.as_str().to_ascii_uppercase());
            assert_eq!(wire_source(core).as_str_name(), name);
        }
    }

    #[test]
    fn grants_have_equal_names_on_both_sides() {
        for core in TokenGrant::ALL {
            assert_eq!(wire_grant(core).as_str_name(), format!("TOKEN_GRANT_{}", core.as_str()));
            assert_eq!(grant(wire_grant(core)), Some(core));
        }
        assert_eq!(grant(v1::TokenGrant::Unspecified), None);
    }
}
