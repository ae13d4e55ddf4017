// Package scopeward asks Scopeward, the policy decision service for OAuth scopes.
//
// An authorization server asks three questions: [Client.ExpandRegistrationScopes] when a client registers (RFC 7591),
// [Client.CheckAuthorizeScopes] at the authorize endpoint (RFC 6749 section 3.3) and [Client.CheckTokenScopes] at the token endpoint,
// where nothing is added: for a refresh (RFC 6749 section 6), client credentials (section 4.4), a JWT grant (RFC 7523) and a token
// exchange (RFC 8693), but not for an authorization code.
//
// # Three outcomes
//
// A question is answered with a grant, with a denial or not at all, and nothing but a grant lets a login continue:
//
//   - a nil error: the answer is a grant, and its Scope is not empty
//   - [*Denied]: the policy says no. Its OAuth error is ready to be sent
//   - [*Unavailable]: there is no answer. The service is down or slow, refuses this caller, or is not understood
//
// Never continue with the registered scopes or with an earlier answer where there is none. [Failure] is both errors at once.
//
// # Unset is not empty
//
// A nil scope means that the parameter was not there; a nil RegisteredScope that the server does not know what the client
// registered, which is not the same as "", registered with none. The pointer to a scope that was there is new(scope).
package scopeward
