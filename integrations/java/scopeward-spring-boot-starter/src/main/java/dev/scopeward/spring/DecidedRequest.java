package dev.scopeward.spring;

import java.util.Set;
import org.springframework.security.core.Authentication;
import org.springframework.security.oauth2.server.authorization.authentication.OAuth2AuthorizationCodeRequestAuthenticationToken;

/**
 * An authorization request with the scopes of the answer. Where there is no grant it has the requested ones and the failure, to be sent
 * once the redirect URI is known to be the client's.
 */
final class DecidedRequest extends OAuth2AuthorizationCodeRequestAuthenticationToken {
    private static final long serialVersionUID = 1L;

    private final PolicyFailureException failure;

    private DecidedRequest(OAuth2AuthorizationCodeRequestAuthenticationToken asked, Set<String> scopes, PolicyFailureException failure) {
        super(asked.getAuthorizationUri(), asked.getClientId(), (Authentication) asked.getPrincipal(), asked.getRedirectUri(),
                asked.getState(), scopes, asked.getAdditionalParameters());
        this.failure = failure;
    }

    static DecidedRequest granted(OAuth2AuthorizationCodeRequestAuthenticationToken asked, Set<String> scopes) {
        return new DecidedRequest(asked, scopes, null);
    }

    static DecidedRequest refused(OAuth2AuthorizationCodeRequestAuthenticationToken asked, PolicyFailureException failure) {
        return new DecidedRequest(asked, Scopes.wellFormed(asked.getScopes()), failure);
    }

    /** Returns null where the scopes are granted. */
    PolicyFailureException failure() {
        return failure;
    }
}
