package dev.scopeward.spring;

import java.util.Set;
import java.util.function.Consumer;
import java.util.function.Supplier;
import org.springframework.security.core.Authentication;
import org.springframework.security.oauth2.core.AuthorizationGrantType;
import org.springframework.security.oauth2.core.endpoint.OAuth2ParameterNames;
import org.springframework.security.oauth2.core.oidc.OidcScopes;
import org.springframework.security.oauth2.server.authorization.authentication.OAuth2AuthorizationCodeRequestAuthenticationContext;
import org.springframework.security.oauth2.server.authorization.authentication.OAuth2AuthorizationCodeRequestAuthenticationToken;
import org.springframework.security.oauth2.server.authorization.authentication.OAuth2AuthorizationConsentAuthenticationToken;
import org.springframework.security.oauth2.server.authorization.authentication.OAuth2ClientAuthenticationToken;
import org.springframework.security.oauth2.server.authorization.authentication.OAuth2DeviceAuthorizationRequestAuthenticationToken;
import org.springframework.security.oauth2.server.authorization.authentication.OAuth2PushedAuthorizationRequestAuthenticationToken;
import org.springframework.security.oauth2.server.authorization.client.RegisteredClient;
import org.springframework.security.oauth2.server.authorization.client.RegisteredClientRepository;
import org.springframework.security.web.authentication.AuthenticationConverter;
import org.springframework.util.StringUtils;

/**
 * The converters of three endpoints, which make an immutable token of a request: that of before, and then a token with the scopes of the
 * answer.
 */
final class AskingConverters {
    private final Asker asker;
    private final Supplier<RegisteredClientRepository> clients;

    AskingConverters(Asker asker, Supplier<RegisteredClientRepository> clients) {
        this.asker = asker;
        this.clients = clients;
    }

    /** For the authorization endpoint. What is wrong with the request itself is left to the server. */
    AuthenticationConverter authorization(
            AuthenticationConverter previous, Consumer<OAuth2AuthorizationCodeRequestAuthenticationContext> validator) {
        return http -> {
            Authentication found = previous.convert(http);
            if (found == null || found instanceof OAuth2AuthorizationConsentAuthenticationToken) {
                return found;
            }
            if (!(found instanceof OAuth2AuthorizationCodeRequestAuthenticationToken request)) {
                throw unknown(found);
            }
            boolean isPushed = request.getAdditionalParameters().get(OAuth2ParameterNames.REQUEST_URI) instanceof String uri
                    && StringUtils.hasText(uri);
            RegisteredClient client = isPushed ? null : clients.get().findByClientId(request.getClientId());
            if (client == null) {
                // A pushed request is asked for by the validator. A client that nobody knows is refused.
                return found;
            }
            AskingValidator.validateBeforeAsking(validator, request, client);
            String scope = Scopes.received(http.getParameter(OAuth2ParameterNames.SCOPE), request.getScopes());
            String loginId =
                    LoginId.of(client.getClientId(), request.getRedirectUri(), request.getState(), request.getAdditionalParameters());
            try {
                return DecidedRequest.granted(request, asker.authorize(scope, client, request.getAdditionalParameters(), loginId));
            } catch (PolicyFailureException failure) {
                return DecidedRequest.refused(request, failure);
            }
        };
    }

    /** For pushed authorization requests. */
    AuthenticationConverter pushed(
            AuthenticationConverter previous, Consumer<OAuth2AuthorizationCodeRequestAuthenticationContext> validator) {
        return http -> {
            Authentication found = previous.convert(http);
            if (found == null) {
                return null;
            }
            if (!(found instanceof OAuth2PushedAuthorizationRequestAuthenticationToken request)) {
                throw unknown(found);
            }
            if (!(request.getPrincipal() instanceof OAuth2ClientAuthenticationToken principal) || !isKnown(principal)) {
                return found;
            }
            RegisteredClient client = principal.getRegisteredClient();
            AskingValidator.validateBeforeAsking(validator, unpushed(request), client);
            String scope = Scopes.received(http.getParameter(OAuth2ParameterNames.SCOPE), request.getScopes());
            String loginId =
                    LoginId.of(client.getClientId(), request.getRedirectUri(), request.getState(), request.getAdditionalParameters());
            Set<String> granted = asker.authorize(scope, client, request.getAdditionalParameters(), loginId);
            return new OAuth2PushedAuthorizationRequestAuthenticationToken(request.getAuthorizationUri(), request.getClientId(),
                    holding(principal, granted), request.getRedirectUri(), request.getState(), granted, request.getAdditionalParameters());
        };
    }

    /** For device authorization requests, which the server refuses where they have {@code openid}. */
    AuthenticationConverter device(AuthenticationConverter previous) {
        return http -> {
            Authentication found = previous.convert(http);
            if (found == null) {
                return null;
            }
            if (!(found instanceof OAuth2DeviceAuthorizationRequestAuthenticationToken request)) {
                throw unknown(found);
            }
            if (!(request.getPrincipal() instanceof OAuth2ClientAuthenticationToken principal) || !isKnown(principal)
                    || !principal.getRegisteredClient().getAuthorizationGrantTypes().contains(AuthorizationGrantType.DEVICE_CODE)) {
                return found;
            }
            String scope = Scopes.received(http.getParameter(OAuth2ParameterNames.SCOPE), request.getScopes());
            Set<String> granted = asker.authorize(scope, principal.getRegisteredClient(), request.getAdditionalParameters(), "");
            if (request.getScopes().isEmpty() && granted.size() > 1) {
                // Nobody asked for it.
                granted.remove(OidcScopes.OPENID);
            }
            return new OAuth2DeviceAuthorizationRequestAuthenticationToken(
                    holding(principal, granted), request.getAuthorizationUri(), granted, request.getAdditionalParameters());
        };
    }

    static boolean isKnown(OAuth2ClientAuthenticationToken principal) {
        return principal.isAuthenticated() && principal.getRegisteredClient() != null;
    }

    static OAuth2ClientAuthenticationToken holding(OAuth2ClientAuthenticationToken principal, Set<String> scopes) {
        OAuth2ClientAuthenticationToken copy = new OAuth2ClientAuthenticationToken(
                Scopes.holding(principal.getRegisteredClient(), scopes), principal.getClientAuthenticationMethod(),
                principal.getCredentials());
        copy.setDetails(principal.getDetails());
        return copy;
    }

    private static OAuth2AuthorizationCodeRequestAuthenticationToken unpushed(
            OAuth2PushedAuthorizationRequestAuthenticationToken request) {
        return new OAuth2AuthorizationCodeRequestAuthenticationToken(request.getAuthorizationUri(), request.getClientId(),
                (Authentication) request.getPrincipal(), request.getRedirectUri(), request.getState(), request.getScopes(),
                request.getAdditionalParameters());
    }

    /** A converter of the application made something that cannot be asked for. */
    private static PolicyFailureException unknown(Authentication found) {
        return PolicyFailureException.serverError(
                "the request could not be read", new IllegalStateException("cannot ask for a " + found.getClass().getName()));
    }
}
