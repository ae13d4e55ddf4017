package dev.scopeward.spring;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.Consumer;
import java.util.function.Supplier;
import org.springframework.core.Ordered;
import org.springframework.core.convert.converter.Converter;
import org.springframework.security.config.ObjectPostProcessor;
import org.springframework.security.config.annotation.web.builders.HttpSecurity;
import org.springframework.security.oauth2.core.endpoint.OAuth2ParameterNames;
import org.springframework.security.oauth2.server.authorization.OAuth2AuthorizationService;
import org.springframework.security.oauth2.server.authorization.OAuth2ClientRegistration;
import org.springframework.security.oauth2.server.authorization.authentication.OAuth2AuthorizationCodeRequestAuthenticationContext;
import org.springframework.security.oauth2.server.authorization.authentication.OAuth2AuthorizationCodeRequestAuthenticationProvider;
import org.springframework.security.oauth2.server.authorization.authentication.OAuth2ClientRegistrationAuthenticationContext;
import org.springframework.security.oauth2.server.authorization.authentication.OAuth2ClientRegistrationAuthenticationProvider;
import org.springframework.security.oauth2.server.authorization.authentication.OAuth2ClientRegistrationAuthenticationValidator;
import org.springframework.security.oauth2.server.authorization.authentication.OAuth2PushedAuthorizationRequestAuthenticationProvider;
import org.springframework.security.oauth2.server.authorization.client.RegisteredClient;
import org.springframework.security.oauth2.server.authorization.client.RegisteredClientRepository;
import org.springframework.security.oauth2.server.authorization.oidc.OidcClientRegistration;
import org.springframework.security.oauth2.server.authorization.oidc.authentication.OidcClientRegistrationAuthenticationContext;
import org.springframework.security.oauth2.server.authorization.oidc.authentication.OidcClientRegistrationAuthenticationProvider;
import org.springframework.security.oauth2.server.authorization.oidc.authentication.OidcClientRegistrationAuthenticationValidator;
import org.springframework.security.oauth2.server.authorization.oidc.web.OidcClientRegistrationEndpointFilter;
import org.springframework.security.oauth2.server.authorization.web.OAuth2AuthorizationEndpointFilter;
import org.springframework.security.oauth2.server.authorization.web.OAuth2ClientRegistrationEndpointFilter;
import org.springframework.security.oauth2.server.authorization.web.OAuth2DeviceAuthorizationEndpointFilter;
import org.springframework.security.oauth2.server.authorization.web.OAuth2PushedAuthorizationRequestEndpointFilter;
import org.springframework.security.oauth2.server.authorization.web.OAuth2TokenEndpointFilter;
import org.springframework.security.web.authentication.AuthenticationConverter;

/**
 * Makes one authorization server ask: hands its providers and filters, which it shows before it uses them, the converters and validators
 * that ask, around those that they have.
 *
 * <p>Providers are shown before filters. A filter whose provider was not seen fails the start: the endpoint would not ask.
 */
final class Attachment implements ObjectPostProcessor<Object>, Ordered {
    private final Asker asker;
    private final AskingConverters converters;
    private final Supplier<OAuth2AuthorizationService> authorizations;
    private Consumer<OAuth2AuthorizationCodeRequestAuthenticationContext> authorizationValidator;
    private Consumer<OAuth2AuthorizationCodeRequestAuthenticationContext> pushedValidator;
    private boolean hasRegistration;
    private boolean hasOidcRegistration;
    private boolean isComplete;

    Attachment(Asker asker, HttpSecurity http) {
        this.asker = asker;
        this.converters = new AskingConverters(asker, () -> http.getSharedObject(RegisteredClientRepository.class));
        this.authorizations = () -> http.getSharedObject(OAuth2AuthorizationService.class);
    }

    /** Returns true once the authorization endpoint asks. */
    boolean isComplete() {
        return isComplete;
    }

    /** After what the application does to the same objects. */
    @Override
    public int getOrder() {
        return LOWEST_PRECEDENCE;
    }

    @Override
    public <O extends Object> O postProcess(O object) {
        if (object instanceof OAuth2AuthorizationCodeRequestAuthenticationProvider provider) {
            authorizationValidator = PrivateField.read(provider, "authenticationValidator");
            provider.setAuthenticationValidator(new AskingValidator(authorizationValidator, asker));
        } else if (object instanceof OAuth2PushedAuthorizationRequestAuthenticationProvider provider) {
            pushedValidator = PrivateField.read(provider, "authenticationValidator");
        } else if (object instanceof OAuth2ClientRegistrationAuthenticationProvider provider) {
            attach(provider);
        } else if (object instanceof OidcClientRegistrationAuthenticationProvider provider) {
            attach(provider);
        } else if (object instanceof OAuth2AuthorizationEndpointFilter filter) {
            require(authorizationValidator != null, "authorization", "OAuth2AuthorizationCodeRequestAuthenticationProvider");
            filter.setAuthenticationConverter(converters.authorization(converterOf(filter), authorizationValidator));
            isComplete = true;
        } else if (object instanceof OAuth2PushedAuthorizationRequestEndpointFilter filter) {
            require(pushedValidator != null, "pushed authorization request", "OAuth2PushedAuthorizationRequestAuthenticationProvider");
            filter.setAuthenticationConverter(converters.pushed(converterOf(filter), pushedValidator));
            filter.setAuthenticationFailureHandler(PolicyFailureHandler.around(filter));
        } else if (object instanceof OAuth2DeviceAuthorizationEndpointFilter filter) {
            filter.setAuthenticationConverter(converters.device(converterOf(filter)));
            filter.setAuthenticationFailureHandler(PolicyFailureHandler.around(filter));
        } else if (object instanceof OAuth2TokenEndpointFilter filter) {
            filter.setAuthenticationConverter(new AskingTokenConverter(converterOf(filter), asker, authorizations));
            filter.setAuthenticationFailureHandler(PolicyFailureHandler.around(filter));
        } else if (object instanceof OAuth2ClientRegistrationEndpointFilter filter) {
            require(hasRegistration, "client registration", "OAuth2ClientRegistrationAuthenticationProvider");
            filter.setAuthenticationFailureHandler(PolicyFailureHandler.around(filter));
        } else if (object instanceof OidcClientRegistrationEndpointFilter filter) {
            require(hasOidcRegistration, "OpenID Connect client registration", "OidcClientRegistrationAuthenticationProvider");
            filter.setAuthenticationFailureHandler(PolicyFailureHandler.around(filter));
        }
        return object;
    }

    private static AuthenticationConverter converterOf(Object filter) {
        return PrivateField.read(filter, "authenticationConverter");
    }

    private static void require(boolean isAsking, String endpoint, String provider) {
        if (!isAsking) {
            throw new NotAskingException("Scopeward is not attached to the " + endpoint + " endpoint: its provider was replaced",
                    "Keep the " + provider + " of Spring Security, and give it validators and converters of your own.");
        }
    }

    private void attach(OAuth2ClientRegistrationAuthenticationProvider provider) {
        Consumer<OAuth2ClientRegistrationAuthenticationContext> validator = PrivateField.read(provider, "authenticationValidator");
        if (validator instanceof OAuth2ClientRegistrationAuthenticationValidator) {
            // The default, without its refusal of every scope.
            provider.setAuthenticationValidator(OAuth2ClientRegistrationAuthenticationValidator.DEFAULT_REDIRECT_URI_VALIDATOR
                    .andThen(OAuth2ClientRegistrationAuthenticationValidator.DEFAULT_JWK_SET_URI_VALIDATOR));
        }
        Converter<OAuth2ClientRegistration, RegisteredClient> converter = PrivateField.read(provider, "registeredClientConverter");
        provider.setRegisteredClientConverter(asked -> {
            Map<String, Object> metadata = new LinkedHashMap<>(asked.getClaims());
            Set<String> granted = register(metadata);
            return stored(converter.convert(OAuth2ClientRegistration.withClaims(metadata).build()), granted);
        });
        hasRegistration = true;
    }

    private void attach(OidcClientRegistrationAuthenticationProvider provider) {
        Consumer<OidcClientRegistrationAuthenticationContext> validator = PrivateField.read(provider, "authenticationValidator");
        if (validator instanceof OidcClientRegistrationAuthenticationValidator) {
            provider.setAuthenticationValidator(OidcClientRegistrationAuthenticationValidator.DEFAULT_REDIRECT_URI_VALIDATOR
                    .andThen(OidcClientRegistrationAuthenticationValidator.DEFAULT_POST_LOGOUT_REDIRECT_URI_VALIDATOR)
                    .andThen(OidcClientRegistrationAuthenticationValidator.DEFAULT_JWK_SET_URI_VALIDATOR));
        }
        Converter<OidcClientRegistration, RegisteredClient> converter = PrivateField.read(provider, "registeredClientConverter");
        provider.setRegisteredClientConverter(asked -> {
            Map<String, Object> metadata = new LinkedHashMap<>(asked.getClaims());
            Set<String> granted = register(metadata);
            return stored(converter.convert(OidcClientRegistration.withClaims(metadata).build()), granted);
        });
        hasOidcRegistration = true;
    }

    /** Puts the answer into the metadata, and returns it. */
    private Set<String> register(Map<String, Object> metadata) {
        // The server has split the text at each blank.
        String scope = metadata.get(OAuth2ParameterNames.SCOPE) instanceof List<?> scopes
                ? String.join(" ", scopes.stream().map(String::valueOf).toList())
                : null;
        Set<String> granted = asker.register(scope, metadata);
        metadata.put(OAuth2ParameterNames.SCOPE, List.copyOf(granted));
        return granted;
    }

    /** Whatever a converter of the application does, the stored scopes are those of the answer. */
    private static RegisteredClient stored(RegisteredClient client, Set<String> granted) {
        return client.getScopes().equals(granted) ? client : Scopes.holding(client, granted);
    }
}
