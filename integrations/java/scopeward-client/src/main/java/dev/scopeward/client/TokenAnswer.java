package dev.scopeward.client;

import java.util.List;

/**
 * What a token gets. Never more than was asked for, or than what the grant stands for.
 *
 * @param scope for the token and its answer (RFC 6749 section 5.1); single spaces, in request order, never empty. A new refresh token
 *     keeps the scopes of the old one (section 6)
 * @param refused what was asked for and dropped, in request order
 * @param audienceGrants which audience grants which scopes, in the order named
 * @param policy the policy that decided
 * @param decisionId names this answer in the audit log
 */
public record TokenAnswer(
        String scope, List<RefusedScope> refused, List<AudienceGrant> audienceGrants, PolicyVersion policy, String decisionId) {}
