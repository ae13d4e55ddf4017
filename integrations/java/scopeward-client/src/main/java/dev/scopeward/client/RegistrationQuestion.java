package dev.scopeward.client;

import java.util.List;
import java.util.Objects;

/**
 * A client registers (RFC 7591), or updates its registration (RFC 7592): which scopes does it hold?
 *
 * @param scope as received; null if the client sent none
 * @param client the metadata that is about to be stored; null if it is not known
 * @param audiences none, if one policy serves all: RFC 7591 knows no {@code resource}
 * @param previousScope at an update the scopes stored so far; null at a new registration
 * @param correlationId the server's own id of this registration, for the audit: at most 128 bytes of printable ASCII; null counts as
 *     empty
 */
public record RegistrationQuestion(
        String scope, OAuthClient client, List<String> audiences, String previousScope, String correlationId) {
    /**
     * Replaces null by empty where the two mean the same, and copies the list.
     *
     * @param scope {@link #scope}
     * @param client {@link #client}
     * @param audiences {@link #audiences}
     * @param previousScope {@link #previousScope}
     * @param correlationId {@link #correlationId}
     */
    public RegistrationQuestion {
        audiences = audiences == null ? List.of() : List.copyOf(audiences);
        correlationId = Objects.requireNonNullElse(correlationId, "");
    }

    /**
     * Starts a question in which nothing is set.
     *
     * @return a builder
     */
    public static Builder builder() {
        return new Builder();
    }

    /** Sets the members of a question by name. */
    public static final class Builder {
        private String scope;
        private OAuthClient client;
        private List<String> audiences;
        private String previousScope;
        private String correlationId;

        private Builder() {}

        /**
         * Sets the scope.
         *
         * @param scope as received; null if the client sent none
         * @return this
         */
        public Builder scope(String scope) {
            this.scope = scope;
            return this;
        }

        /**
         * Sets the client.
         *
         * @param client the metadata that is about to be stored
         * @return this
         */
        public Builder client(OAuthClient client) {
            this.client = client;
            return this;
        }

        /**
         * Sets the audiences.
         *
         * @param audiences the resources that the client may use
         * @return this
         */
        public Builder audiences(List<String> audiences) {
            this.audiences = audiences;
            return this;
        }

        /**
         * Makes it the question of an update.
         *
         * @param previousScope the scopes stored so far
         * @return this
         */
        public Builder previousScope(String previousScope) {
            this.previousScope = previousScope;
            return this;
        }

        /**
         * Sets the id of this registration.
         *
         * @param correlationId at most 128 bytes of printable ASCII
         * @return this
         */
        public Builder correlationId(String correlationId) {
            this.correlationId = correlationId;
            return this;
        }

        /**
         * Makes the question.
         *
         * @return the question
         */
        public RegistrationQuestion build() {
            return new RegistrationQuestion(scope, client, audiences, previousScope, correlationId);
        }
    }
}
