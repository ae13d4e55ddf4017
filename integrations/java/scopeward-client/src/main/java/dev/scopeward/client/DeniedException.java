package dev.scopeward.client;

import java.util.List;

/**
 * The policy says no.
 *
 * <p>At registration and at the token endpoint answer HTTP 400 with {@link #oauthError()}; at authorize redirect with it, after the redirect
 * URI was validated.
 *
 * @serial exclude
 */
public final class DeniedException extends ScopewardException {
    private static final long serialVersionUID = 1L;

    private final String reason;
    private final transient List<RefusedScope> refused;
    private final PolicyVersion policy;
    private final String decisionId;

    DeniedException(OAuthError error, String reason, List<RefusedScope> refused, PolicyVersion policy, String decisionId) {
        super(error.error() + ": " + error.errorDescription(), error, null);
        this.reason = reason;
        this.refused = refused;
        this.policy = policy;
        this.decisionId = decisionId;
    }

    @Override
    public int httpStatus() {
        return 400;
    }

    /**
     * Returns why the whole was denied.
     *
     * @return such as {@code UNSUPPORTED}; newer servers may have more
     */
    public String reason() {
        return reason;
    }

    /**
     * Returns every scope that was refused, in request order.
     *
     * @return may be more than {@code errorDescription} names; empty if an audience or an omitted scope was refused
     */
    public List<RefusedScope> refused() {
        return refused == null ? List.of() : refused;
    }

    /**
     * Returns the policy that decided.
     *
     * @return its generation and digest
     */
    public PolicyVersion policy() {
        return policy;
    }

    /**
     * Returns the name of this answer in the audit log.
     *
     * @return a UUIDv7
     */
    public String decisionId() {
        return decisionId;
    }
}
