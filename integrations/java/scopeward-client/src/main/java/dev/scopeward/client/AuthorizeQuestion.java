package dev.scopeward.client;

import java.util.List;
import java.util.Objects;

/**
 * A client asks at the authorize endpoint: what does it get? Not for the token endpoint.
 *
 * @param scope the parameter as received; null if there was none
 * @param registeredScope what was stored at registration; null means that the server does not know, {@code ""} that there was none
 * @param audiences each {@code resource} parameter (RFC 8707), in order
 * @param client the client as stored; null if it is not known
 * @param correlationId one id for all calls of this login, for the audit: at most 128 bytes of printable ASCII; null counts as empty
 */
public record AuthorizeQuestion(
        String scope, String registeredScope, List<String> audiences, OAuthClient client, String correlationId) {
    /**
     * Replaces null by empty where the two mean the same, and copies the list.
     *
     * @param scope {@link #scope}
     * @param registeredScope {@link #registeredScope}
     * @param audiences {@link #audiences}
     * @param client {@link #client}
     * @param correlationId {@link #correlationId}
     */
    public AuthorizeQuestion {
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
        private String registeredScope;
        private List<String> audiences;
        private OAuthClient client;
        private String correlationId;

        private Builder() {}

        /**
         * Sets the scope.
         *
         * @param scope the parameter as received; null if there was none
         * @return this
         */
        public Builder scope(String scope) {
            this.scope = scope;
            return this;
        }

        /**
         * Sets what the client registered.
         *
         * @param registeredScope as stored; null means that the server does not know
         * @return this
         */
        public Builder registeredScope(String registeredScope) {
            this.registeredScope = registeredScope;
            return this;
        }

        /**
         * Sets the audiences.
         *
         * @param audiences each {@code resource} parameter, in order
         * @return this
         */
        public Builder audiences(List<String> audiences) {
            this.audiences = audiences;
            return this;
        }

        /**
         * Sets the client.
         *
         * @param client as stored
         * @return this
         */
        public Builder client(OAuthClient client) {
            this.client = client;
            return this;
        }

        /**
         * Sets the id of this login.
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
        public AuthorizeQuestion build() {
            return new AuthorizeQuestion(scope, registeredScope, audiences, client, correlationId);
        }
    }
}
