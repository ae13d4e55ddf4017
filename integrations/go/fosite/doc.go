// Package scopewardfosite makes an authorization server of github.com/ory/fosite ask Scopeward.
//
// [Asker.Compose] stands in the place of compose.Compose: its provider asks at the authorize endpoint, for pushed
// authorization requests and at the token endpoint, and leaves everything else to fosite. [Asker.ExpandRegistration] and [Asker.ExpandUpdate] are for a
// registration endpoint, which fosite does not have.
//
// # What is asked, and what is not
//
//   - NewAuthorizeRequest asks after fosite has checked the client and the redirect URI, so that a denial reaches the client's
//     callback with its state (RFC 6749 section 4.1.2.1). The requested scopes are then the answer: put them on the consent page.
//   - NewPushedAuthorizeRequest asks too (RFC 9126). The authorize request that uses the pushed one asks again, for the scopes
//     and resources that were pushed.
//   - NewAccessRequest asks for a refresh: a scope that the policy no longer supports, or forbids, is not in the new tokens, and
//     nothing is added (RFC 6749 section 6). It asks for client credentials, whose requested scopes are then the answer (section 4.4),
//     and for the scopes that a JWT grant asks for (RFC 7523). It does not ask for a code, which was decided at authorize, for a
//     password, and for grants of your own: ask [scopeward.Client.CheckTokenScopes] in their handlers.
//
// The scopes of a stored client never change by an authorize request: a step-up is no registration.
//
// Where there is no answer nothing is granted: the error is temporarily_unavailable or server_error.
package scopewardfosite
