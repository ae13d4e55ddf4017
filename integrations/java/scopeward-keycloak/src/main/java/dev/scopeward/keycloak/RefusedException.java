package dev.scopeward.keycloak;

import dev.scopeward.client.DeniedException;
import dev.scopeward.client.UnavailableException;
import java.util.OptionalLong;

/** A question that was not answered with a grant, as a client is to be told. Has nothing of the cause. */
final class RefusedException extends Exception {
    private static final long serialVersionUID = 1L;

    private static final String UNANSWERED = "the scope policy could not be asked; try again later";

    private final String error;
    private final String description;
    private final int status;
    private final long retryAfterSeconds;
    private final boolean isAsked;

    private RefusedException(
            String error, String description, int status, long retryAfterSeconds, boolean isAsked, Throwable cause) {
        // Nobody reads where it was made, and with a service that hangs there are many.
        super(error + ": " + description, cause, false, false);
        this.error = error;
        this.description = description;
        this.status = status;
        this.retryAfterSeconds = retryAfterSeconds;
        this.isAsked = isAsked;
    }

    static RefusedException of(DeniedException denied) {
        return new RefusedException(
                denied.oauthError().error(), denied.oauthError().errorDescription(), denied.httpStatus(), 0, true, denied);
    }

    static RefusedException of(UnavailableException unavailable) {
        return new RefusedException(unavailable.oauthError().error(), unavailable.oauthError().errorDescription(),
                unavailable.httpStatus(), unavailable.retryAfterSeconds().orElse(0), true, unavailable);
    }

    /** The service is not asked at the moment. Registration knows no code for that (RFC 7591 section 3.2.2). */
    static RefusedException notAsked(boolean isRegistration) {
        return new RefusedException(isRegistration ? "server_error" : "temporarily_unavailable", UNANSWERED, 503, 1, false, null);
    }

    /** Something is set wrongly or broken here, and a person has to look. */
    static RefusedException broken(Throwable cause) {
        return new RefusedException("server_error", UNANSWERED, 500, 0, true, cause);
    }

    /** The policy grants less than was asked for, where the request cannot be changed. */
    static RefusedException narrower() {
        return new RefusedException(
                "invalid_scope", "not all of the requested scopes are granted, and this request cannot be granted in part", 400, 0, true, null);
    }

    /** A token is exchanged that another server issued, or that is not an access token: nobody knows its scopes. */
    static RefusedException unknownSubject() {
        return new RefusedException("invalid_request", "the scopes of the subject token are not known", 400, 0, true, null);
    }

    String error() {
        return error;
    }

    String description() {
        return description;
    }

    int status() {
        return status;
    }

    /** Returns {@code false} for one of many requests that are refused at once because nobody waits for the service. */
    boolean isAsked() {
        return isAsked;
    }

    OptionalLong retryAfterSeconds() {
        return retryAfterSeconds == 0 ? OptionalLong.empty() : OptionalLong.of(retryAfterSeconds);
    }
}
