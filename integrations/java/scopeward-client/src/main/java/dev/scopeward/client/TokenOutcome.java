package dev.scopeward.client;

/**
 * What one token check of a batch came to: exactly one of the two is set.
 *
 * @param answer the grant, or null
 * @param failure a denial, or that there is no answer, or null
 */
public record TokenOutcome(TokenAnswer answer, ScopewardException failure) {
    /**
     * Returns the grant.
     *
     * @return never null
     * @throws DeniedException if the policy says no
     * @throws UnavailableException if there is no answer
     */
    public TokenAnswer orElseThrow() {
        if (failure != null) {
            throw failure;
        }
        return answer;
    }
}
