//! Logins with Ory Hydra that were decided here and go on: it sends the browser back to the authorization endpoint after the login and
//! after the consent, with the parameters that it got.
//!
//! Such a request is not decided again, nor counted and recorded, if that could give nothing else: the question, the policy and what
//! the client registered are those of the start. Otherwise it is a question like any other.

use sha2::{Digest as _, Sha256};

use super::expiring::ExpiringMap;
use crate::gateway::form::OAuthRequest;
use crate::proto::borrowed::{CheckRequestRef, ClientRef};
use crate::rpc::caller::Caller;
use crate::scope;

/// The logins that were granted, by all that their decisions depend on.
pub(super) type BegunLogins = ExpiringMap<BegunLogin, ()>;

/// A login: the digest of what it asks and was granted.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct BegunLogin([u8; 32]);

impl BegunLogin {
    /// The login at an issuer that begins with `request`, where it asks `question` of the policy of this generation and is granted
    /// `scope`. `caller`: who it is by the access file, which may let it know other audiences later.
    pub(super) fn new(
        (issuer, generation, caller): (usize, u64, Option<&Caller>),
        request: &OAuthRequest<'_>,
        question: &CheckRequestRef<'_>,
        scope: &str,
    ) -> Self {
        let OAuthRequest { redirect_uri, response_type, response_mode, state, .. } = request;
        // What a client says of itself is in the record, and the same as long as that is.
        let CheckRequestRef { audiences, scope: _, registered_scope, client, correlation_id: _ } = question;
        let mut granted = scope::distinct_tokens(scope).to_vec();
        granted.sort_unstable();
        let mut digest = Sha256::new();
        digest.update((issuer as u64).to_le_bytes());
        digest.update(generation.to_le_bytes());
        let mut add = |text: Option<&str>| {
            // With its length before it, no text can look like two.
            digest.update(text.map_or(u64::MAX, |text| text.len() as u64).to_le_bytes());
            digest.update(text.unwrap_or_default());
        };
        for text in [redirect_uri, response_type, response_mode, state] {
            add(text.as_deref());
        }
        add(caller.map(|caller| &*caller.name));
        let known = caller.and_then(|caller| caller.audiences.as_deref());
        add(known.map(|_| ""));
        known.iter().copied().flatten().for_each(|audience| add(Some(&**audience)));
        add(None);
        add(*registered_scope);
        let none = ClientRef::default();
        let ClientRef {
            client_id,
            source,
            client_name,
            software_id,
            software_version,
            redirect_uris,
            grant_types,
            application_type,
        } = client.as_ref().unwrap_or(&none);
        for text in [client_id, client_name, software_id, software_version, application_type] {
            add(Some(text));
        }
        for list in [&**redirect_uris, &**grant_types, &**audiences, &granted] {
            list.iter().for_each(|text| add(Some(text)));
            add(None);
        }
        digest.update(source.to_le_bytes());
        Self(digest.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn caller(audiences: Option<&[&str]>) -> Caller {
        Caller::new("".into(), audiences.map(|audiences| audiences.iter().copied().map(Box::from).collect()))
    }

    #[test]
    fn a_login_is_another_one_wherever_a_decision_could_be() {
        let request = OAuthRequest { state: Some("s".into()), ..OAuthRequest::default() };
        let client = ClientRef { client_id: "c", ..ClientRef::default() };
        let question = CheckRequestRef {
            audiences: ["a"].into_iter().collect(),
            registered_scope: Some("x"),
            client: Some(client.clone()),
            ..CheckRequestRef::default()
        };
        let place = (0, 1, None);
        let begun = BegunLogin::new(place, &request, &question, "x y");
        assert_eq!(begun, BegunLogin::new(place, &request, &question, "y x y"));
        let asked = CheckRequestRef { scope: Some("x"), ..question.clone() };
        assert_eq!(begun, BegunLogin::new(place, &request, &asked, "y x"));
        let of = |question: CheckRequestRef<'_>| BegunLogin::new(place, &request, &question, "x y");
        let of_client = |client| of(CheckRequestRef { client: Some(client), ..question.clone() });
        let others = [
            BegunLogin::new((1, 1, None), &request, &question, "x y"),
            BegunLogin::new((0, 2, None), &request, &question, "x y"),
            BegunLogin::new((0, 1, Some(&caller(None))), &request, &question, "x y"),
            BegunLogin::new((0, 1, Some(&caller(Some(&[])))), &request, &question, "x y"),
            BegunLogin::new((0, 1, Some(&caller(Some(&["a"])))), &request, &question, "x y"),
            BegunLogin::new(place, &OAuthRequest::default(), &question, "x y"),
            BegunLogin::new(place, &request, &question, "x"),
            BegunLogin::new(place, &request, &question, "x y z"),
            of(CheckRequestRef { registered_scope: None, ..question.clone() }),
            of(CheckRequestRef { audiences: ["a", "b"].into_iter().collect(), ..question.clone() }),
            of_client(ClientRef { client_id: "d", ..client.clone() }),
            of_client(ClientRef { source: 1, ..client.clone() }),
            of_client(ClientRef { client_name: "n", ..client.clone() }),
            of_client(ClientRef { software_id: "n", ..client.clone() }),
            of_client(ClientRef { redirect_uris: ["n"].into_iter().collect(), ..client.clone() }),
            of_client(ClientRef { grant_types: ["n"].into_iter().collect(), ..client }),
        ];
        assert!(others.iter().all(|other| *other != begun));
        let different: HashSet<_> = others.iter().collect();
        assert_eq!(different.len(), others.len(), "nor is one of them like another");
    }
}
