/**
 * A client policy executor of Keycloak that asks Scopeward which scopes a client holds and what an authorize request gets.
 *
 * <p>The guide is {@code docs/guides/keycloak.md}; what happens at each event is in {@link dev.scopeward.keycloak.ScopewardExecutor}.
 */
package dev.scopeward.keycloak;
