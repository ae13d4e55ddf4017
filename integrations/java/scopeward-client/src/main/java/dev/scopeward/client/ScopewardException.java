package dev.scopeward.client;

/**
 * What a question can come to other than a grant. Both kinds end the login, with the OAuth error that is ready to be sent.
 *
 * <p>{@link #getMessage()} is for the server's own log; {@link #oauthError()} is for the client.
 *
 * @serial exclude
 */
public abstract sealed class ScopewardException extends RuntimeException permits DeniedException, UnavailableException {
    private static final long serialVersionUID = 1L;

    private final OAuthError oauthError;

    ScopewardException(String message, OAuthError oauthError, Throwable cause) {
        super(message, cause);
        this.oauthError = oauthError;
    }

    /**
     * Returns what to tell the client.
     *
     * @return the members of an OAuth error response (RFC 6749 section 5.2) or redirect (section 4.1.2.1)
     */
    public OAuthError oauthError() {
        return oauthError;
    }

    /**
     * Returns the status of an answer that is not a redirect.
     *
     * @return 400 for a denial, 503 for what passes by itself, 500 for the rest
     */
    public abstract int httpStatus();
}
