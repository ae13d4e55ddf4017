package dev.scopeward.client;

/**
 * What one audience grants. It must not be used at another audience.
 *
 * @param audience spelled as in the policy
 * @param scope its part of the granted scopes, separated by single spaces; not empty
 */
public record AudienceGrant(String audience, String scope) {}
