package dev.scopeward.client;

import java.util.List;
import java.util.Objects;

/**
 * A client asks at the token endpoint: what does the token get? Not for authorization codes, of which the scopes were decided before.
 *
 * @param grant what the client presents; null is an error of the caller, which the service names
 * @param scope the parameter as received; null if there was none
 * @param grantedScope what the grant stands for: the scopes of the refreshed grant, of the subject token, or of the assertion. Needed for
 *     {@link TokenGrant#REFRESH} and {@link TokenGrant#TOKEN_EXCHANGE}. Null means that the grant says nothing of scopes, {@code ""} that
 *     it has none, of which nothing can be had. Where it is set, {@code registeredScope} does not count
 * @param registeredScope what was stored at registration; null means that the server does not know, {@code ""} that there was none
 * @param audiences each {@code resource} parameter (RFC 8707), or {@code audience} parameter (RFC 8693 section 2.1), in order
 * @param client the client as stored; null if it is not known
 * @param correlationId the id of the login that the grant is from, for the audit: at most 128 bytes of printable ASCII; null counts as
 *     empty
 */
public record TokenQuestion(
        TokenGrant grant,
        String scope,
        String grantedScope,
        String registeredScope,
        List<String> audiences,
        OAuthClient client,
        String correlationId) {
    /**
     * Replaces null by empty where the two mean the same, and copies the list.
     *
     * @param grant {@link #grant}
     * @param scope {@link #scope}
     * @param grantedScope {@link #grantedScope}
     * @param registeredScope {@link #registeredScope}
     * @param audiences {@link #audiences}
     * @param client {@link #client}
     * @param correlationId {@link #correlationId}
     */
    public TokenQuestion {
        audiences = audiences == null ? List.of() : List.copyOf(audiences);
        correlationId = Objects.requireNonNullElse(correlationId, "");
    }

    /**
     * Starts a question in which nothing else is set.
     *
     * @param grant what the client presents
     * @return a builder
     */
    public static Builder builder(TokenGrant grant) {
        return new Builder(grant);
    }

    /** Sets the members of a question by name. */
    public static final class Builder {
        private final TokenGrant grant;
        private String scope;
        private String grantedScope;
        private String registeredScope;
        private List<String> audiences;
        private OAuthClient client;
        private String correlationId;

        private Builder(TokenGrant grant) {
            this.grant = grant;
        }

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
         * Sets the scopes that the grant stands for.
         *
         * @param grantedScope those of the refreshed grant, of the subject token, or of the assertion; null if the grant says nothing of
         *     scopes
         * @return this
         */
        public Builder grantedScope(String grantedScope) {
            this.grantedScope = grantedScope;
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
         * @param audiences each {@code resource} or {@code audience} parameter, in order
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
         * Sets the id of the login that the grant is from.
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
        public TokenQuestion build() {
            return new TokenQuestion(grant, scope, grantedScope, registeredScope, audiences, client, correlationId);
        }
    }
}
