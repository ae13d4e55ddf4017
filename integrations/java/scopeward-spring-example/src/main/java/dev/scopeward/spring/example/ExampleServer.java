package dev.scopeward.spring.example;

import jakarta.servlet.FilterChain;
import jakarta.servlet.ServletException;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.util.Arrays;
import java.util.List;
import java.util.UUID;
import org.springframework.boot.autoconfigure.EnableAutoConfiguration;
import org.springframework.boot.context.properties.bind.DefaultValue;
import org.springframework.boot.context.properties.ConfigurationProperties;
import org.springframework.boot.context.properties.EnableConfigurationProperties;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.core.annotation.Order;
import org.springframework.http.MediaType;
import org.springframework.security.authentication.AuthenticationProvider;
import org.springframework.security.authentication.UsernamePasswordAuthenticationToken;
import org.springframework.security.config.Customizer;
import org.springframework.security.config.annotation.web.builders.HttpSecurity;
import org.springframework.security.core.authority.FactorGrantedAuthority;
import org.springframework.security.core.context.SecurityContextHolder;
import org.springframework.security.oauth2.core.AuthorizationGrantType;
import org.springframework.security.oauth2.core.ClientAuthenticationMethod;
import org.springframework.security.oauth2.core.endpoint.OAuth2AuthorizationRequest;
import org.springframework.security.oauth2.server.authorization.OAuth2Authorization;
import org.springframework.security.oauth2.server.authorization.OAuth2TokenType;
import org.springframework.security.oauth2.server.authorization.authentication.OAuth2AuthorizationCodeRequestAuthenticationProvider;
import org.springframework.security.oauth2.server.authorization.client.InMemoryRegisteredClientRepository;
import org.springframework.security.oauth2.server.authorization.client.RegisteredClient;
import org.springframework.security.oauth2.server.authorization.client.RegisteredClientRepository;
import org.springframework.security.oauth2.server.authorization.settings.AuthorizationServerSettings;
import org.springframework.security.oauth2.server.authorization.token.JwtEncodingContext;
import org.springframework.security.oauth2.server.authorization.token.OAuth2TokenCustomizer;
import org.springframework.security.web.SecurityFilterChain;
import org.springframework.security.web.authentication.LoginUrlAuthenticationEntryPoint;
import org.springframework.security.web.context.SecurityContextHolderFilter;
import org.springframework.security.web.util.matcher.MediaTypeRequestMatcher;
import org.springframework.web.filter.OncePerRequestFilter;

/**
 * An authorization server for MCP clients: registration for everybody, pushed requests, devices, authorization code with PKCE, refresh.
 * It keeps everything in memory. Nothing in it is about Scopeward: the starter is on the class path.
 */
@Configuration(proxyBeanMethods = false)
@EnableAutoConfiguration
@EnableConfigurationProperties(ExampleServer.Settings.class)
class ExampleServer {
    /** The scopes that a device of the operator has. */
    static final List<String> DEVICE_SCOPES = List.of("mcp:read");

    /**
     * What the example can be told.
     *
     * @param issuer where clients reach it; empty where it listens
     * @param approves true signs in a user and agrees to everything, without a page; a real server shows both
     */
    @ConfigurationProperties("example")
    record Settings(@DefaultValue("") String issuer, @DefaultValue("false") boolean approves) {}

    @Bean
    @Order(1)
    SecurityFilterChain authorizationServer(HttpSecurity http, Settings settings) {
        if (settings.approves()) {
            http.addFilterAfter(new SignedIn(), SecurityContextHolderFilter.class);
        }
        return http.oauth2AuthorizationServer(server -> {
                    http.securityMatcher(server.getEndpointsMatcher());
                    server.oidc(Customizer.withDefaults())
                            .clientRegistrationEndpoint(registration -> registration.openRegistrationAllowed(true))
                            .pushedAuthorizationRequestEndpoint(Customizer.withDefaults())
                            .deviceAuthorizationEndpoint(Customizer.withDefaults())
                            .authorizationEndpoint(endpoint -> endpoint.authenticationProviders(providers -> {
                                if (settings.approves()) {
                                    providers.forEach(ExampleServer::agree);
                                }
                            }));
                })
                .authorizeHttpRequests(requests -> requests.requestMatchers("/oauth2/register").permitAll().anyRequest().authenticated())
                .exceptionHandling(exceptions -> exceptions.defaultAuthenticationEntryPointFor(
                        new LoginUrlAuthenticationEntryPoint("/login"), new MediaTypeRequestMatcher(MediaType.TEXT_HTML)))
                .build();
    }

    @Bean
    @Order(2)
    SecurityFilterChain everythingElse(HttpSecurity http) {
        return http.authorizeHttpRequests(requests -> requests.requestMatchers("/error").permitAll().anyRequest().authenticated())
                .formLogin(Customizer.withDefaults())
                .build();
    }

    @Bean
    RegisteredClientRepository registeredClientRepository() {
        return new InMemoryRegisteredClientRepository(RegisteredClient.withId(UUID.randomUUID().toString())
                .clientId("device")
                .clientSecret("{noop}secret of device")
                .clientAuthenticationMethod(ClientAuthenticationMethod.CLIENT_SECRET_BASIC)
                .authorizationGrantType(AuthorizationGrantType.DEVICE_CODE)
                .authorizationGrantType(AuthorizationGrantType.REFRESH_TOKEN)
                .scopes(scopes -> scopes.addAll(DEVICE_SCOPES))
                .build());
    }

    @Bean
    AuthorizationServerSettings authorizationServerSettings(Settings settings) {
        AuthorizationServerSettings.Builder builder = AuthorizationServerSettings.builder();
        return (settings.issuer().isEmpty() ? builder : builder.issuer(settings.issuer())).build();
    }

    /** The audience of an access token is the resource that was asked for (RFC 8707); without this it is the client. */
    @Bean
    OAuth2TokenCustomizer<JwtEncodingContext> audience() {
        return context -> {
            OAuth2Authorization authorization = context.getAuthorization();
            OAuth2AuthorizationRequest request =
                    authorization == null ? null : authorization.getAttribute(OAuth2AuthorizationRequest.class.getName());
            Object resource = request == null ? null : request.getAdditionalParameters().get("resource");
            if (resource != null && OAuth2TokenType.ACCESS_TOKEN.equals(context.getTokenType())) {
                context.getClaims().audience(resource instanceof String[] several ? Arrays.asList(several) : List.of((String) resource));
            }
        };
    }

    private static void agree(AuthenticationProvider provider) {
        if (provider instanceof OAuth2AuthorizationCodeRequestAuthenticationProvider authorization) {
            authorization.setAuthorizationConsentRequired(context -> false);
        }
    }

    /** A user who has signed in. */
    private static final class SignedIn extends OncePerRequestFilter {
        @Override
        protected void doFilterInternal(HttpServletRequest request, HttpServletResponse response, FilterChain chain)
                throws ServletException, IOException {
            if (SecurityContextHolder.getContext().getAuthentication() == null && request.getServletPath().equals("/oauth2/authorize")) {
                // An ID token has the time of the login, which is kept in this authority.
                FactorGrantedAuthority now = FactorGrantedAuthority.fromAuthority(FactorGrantedAuthority.PASSWORD_AUTHORITY);
                SecurityContextHolder.getContext()
                        .setAuthentication(UsernamePasswordAuthenticationToken.authenticated("user", null, List.of(now)));
            }
            chain.doFilter(request, response);
        }
    }
}
