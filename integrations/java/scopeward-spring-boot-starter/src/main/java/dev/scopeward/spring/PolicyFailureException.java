package dev.scopeward.spring;

import dev.scopeward.client.OAuthError;
import dev.scopeward.client.ScopewardException;
import dev.scopeward.client.UnavailableException;
import java.util.OptionalLong;
import org.springframework.security.oauth2.core.OAuth2AuthenticationException;
import org.springframework.security.oauth2.core.OAuth2Error;

/**
 * The policy says no, or there is no answer. The cause is for the log: {@link dev.scopeward.client.DeniedException},
 * {@link dev.scopeward.client.UnavailableException}, or what went wrong before anything was asked.
 *
 * <p>At the authorization endpoint it is itself the cause of an {@code OAuth2AuthorizationCodeRequestAuthenticationException}.
 */
public final class PolicyFailureException extends OAuth2AuthenticationException {
    private static final long serialVersionUID = 1L;

    /** Of HTTP. */
    private final int httpStatus;

    /** 0 without the header. */
    private final long retryAfterSeconds;

    PolicyFailureException(ScopewardException cause) {
        this(errorOf(cause.oauthError()), cause, cause.httpStatus(),
                cause instanceof UnavailableException down ? down.retryAfterSeconds() : OptionalLong.empty());
    }

    private PolicyFailureException(OAuth2Error error, Throwable cause, int httpStatus, OptionalLong retryAfterSeconds) {
        // The message of the cause has details that are not for the client, and this one is shown by some handlers.
        super(error, error.toString(), cause);
        this.httpStatus = httpStatus;
        this.retryAfterSeconds = retryAfterSeconds.orElse(0);
    }

    /** What nobody foresaw: no answer either. */
    static PolicyFailureException serverError(String description, Throwable cause) {
        return new PolicyFailureException(new OAuth2Error("server_error", description, null), cause, 500, OptionalLong.empty());
    }

    /** A pushed request has scopes that the policy of now does not grant. */
    static PolicyFailureException invalidScope(String description) {
        return new PolicyFailureException(new OAuth2Error("invalid_scope", description, null), null, 400, OptionalLong.empty());
    }

    private static OAuth2Error errorOf(OAuthError error) {
        return new OAuth2Error(error.error(), error.errorDescription(), null);
    }

    /**
     * Returns the status where the answer is no redirect.
     *
     * @return 400 for a denial, 503 for what passes by itself, 500 for anything else
     */
    public int httpStatus() {
        return httpStatus;
    }

    /**
     * Returns the seconds for the {@code Retry-After} header.
     *
     * @return empty unless the status is 503
     */
    public OptionalLong retryAfterSeconds() {
        return retryAfterSeconds > 0 ? OptionalLong.of(retryAfterSeconds) : OptionalLong.empty();
    }
}
