package dev.scopeward.spring;

import dev.scopeward.client.TokenGrant;
import jakarta.servlet.http.HttpServletRequest;
import java.util.List;
import java.util.Set;
import java.util.function.Supplier;
import java.util.stream.Stream;
import org.springframework.security.core.Authentication;
import org.springframework.security.oauth2.core.endpoint.OAuth2AuthorizationRequest;
import org.springframework.security.oauth2.core.endpoint.OAuth2ParameterNames;
import org.springframework.security.oauth2.server.authorization.OAuth2Authorization;
import org.springframework.security.oauth2.server.authorization.OAuth2AuthorizationService;
import org.springframework.security.oauth2.server.authorization.OAuth2TokenType;
import org.springframework.security.oauth2.server.authorization.authentication.OAuth2ClientAuthenticationToken;
import org.springframework.security.oauth2.server.authorization.authentication.OAuth2ClientCredentialsAuthenticationToken;
import org.springframework.security.oauth2.server.authorization.authentication.OAuth2RefreshTokenAuthenticationToken;
import org.springframework.security.oauth2.server.authorization.authentication.OAuth2TokenExchangeAuthenticationToken;
import org.springframework.security.oauth2.server.authorization.client.RegisteredClient;
import org.springframework.security.web.authentication.AuthenticationConverter;

/**
 * The converter of the token endpoint: that of before, and then a token with the scopes of the answer. Asked are a refresh (RFC 6749
 * section 6), client credentials (section 4.4) and a token exchange (RFC 8693). The scopes of a code and of a device code were decided
 * before.
 *
 * <p>What is wrong with the request itself is left to the server.
 */
final class AskingTokenConverter implements AuthenticationConverter {
    /** What the server itself gives out for its registration endpoint (OpenID Connect), and no policy knows. */
    private static final Set<String> SERVERS_OWN = Set.of("client.create", "client.read");

    private final AuthenticationConverter previous;
    private final Asker asker;
    private final Supplier<OAuth2AuthorizationService> authorizations;

    AskingTokenConverter(AuthenticationConverter previous, Asker asker, Supplier<OAuth2AuthorizationService> authorizations) {
        this.previous = previous;
        this.asker = asker;
        this.authorizations = authorizations;
    }

    @Override
    public Authentication convert(HttpServletRequest http) {
        Authentication found = previous.convert(http);
        String scope = http.getParameter(OAuth2ParameterNames.SCOPE);
        if (found == null || !(found.getPrincipal() instanceof OAuth2ClientAuthenticationToken principal)
                || !AskingConverters.isKnown(principal)) {
            return found;
        }
        if (found instanceof OAuth2RefreshTokenAuthenticationToken refresh) {
            return refresh(refresh, principal, scope);
        } else if (found instanceof OAuth2ClientCredentialsAuthenticationToken credentials) {
            return clientCredentials(credentials, principal, scope);
        } else if (found instanceof OAuth2TokenExchangeAuthenticationToken exchange) {
            return exchange(exchange, principal, scope);
        }
        return found;
    }

    private Authentication refresh(
            OAuth2RefreshTokenAuthenticationToken request, OAuth2ClientAuthenticationToken principal, String scope) {
        OAuth2Authorization authorization = authorizations.get().findByToken(request.getRefreshToken(), OAuth2TokenType.REFRESH_TOKEN);
        RegisteredClient client = principal.getRegisteredClient();
        if (authorization == null || !authorization.getRegisteredClientId().equals(client.getId())
                || authorization.getAuthorizedScopes().isEmpty()) {
            // It is refused, or stands for no scopes.
            return request;
        }
        OAuth2AuthorizationRequest login = authorization.getAttribute(OAuth2AuthorizationRequest.class.getName());
        Object resources = request.getAdditionalParameters().getOrDefault("resource",
                login == null ? null : login.getAdditionalParameters().get("resource"));
        Set<String> granted = asker.token(TokenGrant.REFRESH, Scopes.received(scope, request.getScopes()),
                Scopes.joined(authorization.getAuthorizedScopes()), client, Asker.texts(resources));
        return new OAuth2RefreshTokenAuthenticationToken(
                request.getRefreshToken(), principal, granted, request.getAdditionalParameters());
    }

    private Authentication clientCredentials(
            OAuth2ClientCredentialsAuthenticationToken request, OAuth2ClientAuthenticationToken principal, String scope) {
        if (!request.getScopes().isEmpty() && SERVERS_OWN.containsAll(request.getScopes())) {
            return request;
        }
        RegisteredClient client = principal.getRegisteredClient();
        Set<String> granted = asker.token(TokenGrant.CLIENT_CREDENTIALS, Scopes.received(scope, request.getScopes()), null, client,
                Asker.texts(request.getAdditionalParameters().get("resource")));
        return new OAuth2ClientCredentialsAuthenticationToken(
                AskingConverters.holding(principal, granted), granted, request.getAdditionalParameters());
    }

    private Authentication exchange(
            OAuth2TokenExchangeAuthenticationToken request, OAuth2ClientAuthenticationToken principal, String scope) {
        OAuth2Authorization subject = authorizations.get().findByToken(request.getSubjectToken(), OAuth2TokenType.ACCESS_TOKEN);
        if (subject == null || request.getScopes().isEmpty() && subject.getAuthorizedScopes().isEmpty()) {
            return request;
        }
        List<String> audiences = Stream.concat(request.getResources().stream(), request.getAudiences().stream()).sorted().toList();
        Set<String> granted = asker.token(TokenGrant.TOKEN_EXCHANGE, Scopes.received(scope, request.getScopes()),
                Scopes.joined(subject.getAuthorizedScopes()), principal.getRegisteredClient(), audiences);
        return new OAuth2TokenExchangeAuthenticationToken(request.getRequestedTokenType(), request.getSubjectToken(),
                request.getSubjectTokenType(), AskingConverters.holding(principal, granted), request.getActorToken(),
                request.getActorTokenType(), request.getResources(), request.getAudiences(), granted, request.getAdditionalParameters());
    }
}
