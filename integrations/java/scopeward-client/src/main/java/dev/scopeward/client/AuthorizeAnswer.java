package dev.scopeward.client;

import java.util.List;

/**
 * What an authorize request gets.
 *
 * @param scope for the consent page and the code, not for the stored client; single spaces, never empty
 * @param added the granted scopes that were not asked for or not held, in the order of {@code scope}
 * @param refused what was asked for and dropped, in request order; empty unless the policy drops
 * @param audienceGrants which audience grants which scopes, in the order named
 * @param effectiveRegisteredScope for a check of the server's own within this request. <strong>Never store it</strong>: a step-up would
 *     become a registration
 * @param policy the policy that decided
 * @param decisionId names this answer in the audit log
 */
public record AuthorizeAnswer(
        String scope,
        List<AddedScope> added,
        List<RefusedScope> refused,
        List<AudienceGrant> audienceGrants,
        String effectiveRegisteredScope,
        PolicyVersion policy,
        String decisionId) {}
