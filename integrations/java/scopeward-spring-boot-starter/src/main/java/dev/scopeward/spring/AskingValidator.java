package dev.scopeward.spring;

import java.util.Set;
import java.util.TreeSet;
import java.util.function.Consumer;
import org.springframework.security.core.Authentication;
import org.springframework.security.oauth2.core.OAuth2AuthenticationException;
import org.springframework.security.oauth2.core.OAuth2ErrorCodes;
import org.springframework.security.oauth2.server.authorization.authentication.OAuth2AuthorizationCodeRequestAuthenticationContext;
import org.springframework.security.oauth2.server.authorization.authentication.OAuth2AuthorizationCodeRequestAuthenticationException;
import org.springframework.security.oauth2.server.authorization.authentication.OAuth2AuthorizationCodeRequestAuthenticationToken;
import org.springframework.security.oauth2.server.authorization.client.RegisteredClient;
import org.springframework.util.StringUtils;

/**
 * The validator of authorization requests: that of before, for a client that holds the scopes of the answer, and then the answer.
 *
 * <p>A request that nobody has asked for yet, such as one that was pushed, is asked for here. Its scopes cannot be changed any more, so
 * they have to be granted as they are.
 */
final class AskingValidator implements Consumer<OAuth2AuthorizationCodeRequestAuthenticationContext> {
    private final Consumer<OAuth2AuthorizationCodeRequestAuthenticationContext> previous;
    private final Asker asker;

    AskingValidator(Consumer<OAuth2AuthorizationCodeRequestAuthenticationContext> previous, Asker asker) {
        this.previous = previous;
        this.asker = asker;
    }

    @Override
    public void accept(OAuth2AuthorizationCodeRequestAuthenticationContext context) {
        OAuth2AuthorizationCodeRequestAuthenticationToken request = context.getAuthentication();
        RegisteredClient client = context.getRegisteredClient();
        validate(previous, request, client);
        try {
            if (!(request instanceof DecidedRequest decided)) {
                check(request, client);
            } else if (decided.failure() != null) {
                throw decided.failure();
            }
        } catch (PolicyFailureException failure) {
            throw redirected(failure, request, client);
        }
    }

    /** Runs the validator of before, to which the client holds whatever is asked for. */
    static void validate(
            Consumer<OAuth2AuthorizationCodeRequestAuthenticationContext> validator,
            OAuth2AuthorizationCodeRequestAuthenticationToken request,
            RegisteredClient client) {
        validator.accept(OAuth2AuthorizationCodeRequestAuthenticationContext.with(request)
                .registeredClient(Scopes.holding(client, request.getScopes()))
                .build());
    }

    /** Refuses what is wrong with a request whatever its scopes are, such as a foreign redirect URI, before anything is asked. */
    static void validateBeforeAsking(
            Consumer<OAuth2AuthorizationCodeRequestAuthenticationContext> validator,
            OAuth2AuthorizationCodeRequestAuthenticationToken request,
            RegisteredClient client) {
        try {
            validate(validator, request, client);
        } catch (OAuth2AuthenticationException failure) {
            if (!failure.getError().getErrorCode().equals(OAuth2ErrorCodes.INVALID_SCOPE)) {
                throw failure;
            }
        }
    }

    private void check(OAuth2AuthorizationCodeRequestAuthenticationToken request, RegisteredClient client) {
        Set<String> scopes = request.getScopes();
        String loginId = LoginId.of(client.getClientId(), request.getRedirectUri(), request.getState(), request.getAdditionalParameters());
        String scope = scopes.isEmpty() ? null : Scopes.joined(scopes);
        Set<String> granted = asker.authorize(scope, client, request.getAdditionalParameters(), loginId);
        Set<String> excess = new TreeSet<>(scopes);
        excess.removeAll(granted);
        if (scopes.isEmpty()) {
            throw PolicyFailureException.serverError("the request was not asked for before", null);
        }
        if (!excess.isEmpty()) {
            throw PolicyFailureException.invalidScope("scope not granted any more: " + String.join(" ", excess));
        }
    }

    private static OAuth2AuthorizationCodeRequestAuthenticationException redirected(
            PolicyFailureException failure, OAuth2AuthorizationCodeRequestAuthenticationToken request, RegisteredClient client) {
        String redirectUri = StringUtils.hasText(request.getRedirectUri())
                ? request.getRedirectUri()
                : client.getRedirectUris().iterator().next();
        OAuth2AuthorizationCodeRequestAuthenticationToken answered = new OAuth2AuthorizationCodeRequestAuthenticationToken(
                request.getAuthorizationUri(), request.getClientId(), (Authentication) request.getPrincipal(), redirectUri,
                request.getState(), request.getScopes(), request.getAdditionalParameters());
        return new OAuth2AuthorizationCodeRequestAuthenticationException(failure.getError(), failure, answered);
    }
}
