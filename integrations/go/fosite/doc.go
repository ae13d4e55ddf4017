// Package scopewardfosite makes an authorization server of github.com/ory/fosite ask Scopeward.
//
// [Asker.Compose] stands in the place of compose.Compose: its provider asks at the authorize endpoint and for pushed
// authorization requests, and leaves everything else to fosite. [Asker.ExpandRegistration] and [Asker.ExpandUpdate] are for a
// registration endpoint, which fosite does not have.
//
// # What is asked, and what is not
//
//   - NewAuthorizeRequest asks after fosite has checked the client and the redirect URI, so that a denial reaches the client's
//     callback with its state (RFC 6749 section 4.1.2.1). The requested scopes are then the answer: put them on the consent page.
//   - NewPushedAuthorizeRequest asks too (RFC 9126). The authorize request that uses the pushed one asks again, for the scopes
//     and resources that were pushed.
//   - The token endpoint does not ask. A refresh keeps the scopes of its grant (RFC 6749 section 6), of a client from before the
//     policy too; client_credentials and other grants are compared with the stored scopes, by fosite.
//
// The scopes of a stored client never change by an authorize request: a step-up is no registration.
//
// Where there is no answer nothing is granted: the error is temporarily_unavailable or server_error.
package scopewardfosite
