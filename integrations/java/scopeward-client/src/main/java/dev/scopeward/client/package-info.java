/**
 * Asks Scopeward, the policy decision service for OAuth scopes.
 *
 * <p>Three questions: {@link dev.scopeward.client.ScopewardClient#expandRegistrationScopes expandRegistrationScopes} when a client
 * registers (RFC 7591), {@link dev.scopeward.client.ScopewardClient#checkAuthorizeScopes checkAuthorizeScopes} at the authorize
 * endpoint (RFC 6749 section 3.3), {@link dev.scopeward.client.ScopewardClient#checkTokenScopes checkTokenScopes} at the token endpoint
 * (sections 4.4 and 6, RFC 7523, RFC 8693). A denial is thrown as {@link dev.scopeward.client.DeniedException}, with the OAuth error to send;
 * that there is no answer as {@link dev.scopeward.client.UnavailableException}, which fails the login too.
 *
 * <p>In all types {@code null} means unset and {@code ""} means empty, and for scopes the two get different answers. Lists are never
 * {@code null} and cannot be modified.
 */
package dev.scopeward.client;
