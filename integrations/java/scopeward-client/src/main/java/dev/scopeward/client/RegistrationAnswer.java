package dev.scopeward.client;

import java.util.List;

/**
 * What a client holds from now on.
 *
 * @param scope store it with the client and return it to the client (RFC 7591 section 3.2.1); single spaces, never empty
 * @param added the scopes that the client got without asking, in the order of {@code scope}
 * @param refused what was asked for and dropped, in request order; empty unless the policy drops
 * @param policy the policy that decided
 * @param decisionId names this answer in the audit log
 */
public record RegistrationAnswer(
        String scope, List<AddedScope> added, List<RefusedScope> refused, PolicyVersion policy, String decisionId) {}
