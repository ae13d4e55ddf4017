package dev.scopeward.client;

import java.time.Duration;
import java.util.Map;
import java.util.OptionalLong;
import java.util.Set;

/**
 * There is no answer: the service is down, slow, not allowed to this caller, or not understood.
 *
 * <p>Deny the login, and never with {@code invalid_scope}: the client asked nothing wrong. Never fall back to the registered scopes, to
 * an earlier answer, or to a grant.
 *
 * @serial exclude
 */
public final class UnavailableException extends ScopewardException {
    private static final long serialVersionUID = 1L;

    // What passes by itself. All other codes want a person.
    private static final Set<String> TRANSIENT =
            Set.of("UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "ABORTED", "CANCELLED");
    private static final String DESCRIPTION = "the scope policy could not be asked; try again later";

    private final String code;
    private final String reason;
    private final transient Map<String, String> metadata;
    private final boolean isTransient;
    private final Duration retryDelay;

    UnavailableException(QuestionKind kind, String code, String message, ErrorDetails details, Throwable cause) {
        super(code + ": " + message, oauthError(kind, isTransient(code, details)), cause);
        this.code = code;
        this.reason = details.reason();
        this.metadata = details.metadata();
        this.isTransient = isTransient(code, details);
        this.retryDelay = details.retryDelay();
    }

    private static boolean isTransient(String code, ErrorDetails details) {
        return TRANSIENT.contains(code) && !details.reason().equals("ANSWER_TOO_LARGE");
    }

    private static OAuthError oauthError(QuestionKind kind, boolean isTransient) {
        // RFC 7591 has no code of its own for this; temporarily_unavailable is one of the authorize endpoint, which the
        // token endpoint answers as well (its own codes, RFC 6749 section 5.2, are all about the client).
        boolean isTemporary = isTransient && kind != QuestionKind.REGISTRATION;
        return new OAuthError(isTemporary ? "temporarily_unavailable" : "server_error", DESCRIPTION);
    }

    @Override
    public int httpStatus() {
        return isTransient ? 503 : 500;
    }

    /**
     * Returns the gRPC code.
     *
     * @return such as {@code DEADLINE_EXCEEDED}; {@code UNKNOWN} for an answer that is not understood
     */
    public String code() {
        return code;
    }

    /**
     * Returns the stable reason of the service.
     *
     * @return such as {@code POLICY_NOT_LOADED}; empty if the service did not say
     */
    public String reason() {
        return reason;
    }

    /**
     * Returns what belongs to the reason.
     *
     * @return such as {@code field} or {@code oldest_sequence}; may be empty
     */
    public Map<String, String> metadata() {
        return metadata == null ? Map.of() : metadata;
    }

    /**
     * Returns the seconds for the {@code Retry-After} header.
     *
     * @return with status 503 what the service said, rounded up, else 1; empty with status 500
     */
    public OptionalLong retryAfterSeconds() {
        if (!isTransient) {
            return OptionalLong.empty();
        }
        long seconds = retryDelay == null ? 1 : retryDelay.plusNanos(999_999_999).toSeconds();
        return OptionalLong.of(Math.max(1, seconds));
    }
}
