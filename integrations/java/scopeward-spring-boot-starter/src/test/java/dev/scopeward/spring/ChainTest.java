package dev.scopeward.spring;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.scopeward.client.ClientSource;
import dev.scopeward.client.OAuthClient;
import dev.scopeward.testing.UserAgent;
import dev.scopeward.testing.UserAgent.Answer;
import dev.scopeward.testing.Service;
import dev.scopeward.testing.Tool;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Instant;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentSkipListSet;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.Supplier;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.springframework.boot.autoconfigure.EnableAutoConfiguration;
import org.springframework.boot.diagnostics.FailureAnalysis;
import org.springframework.boot.diagnostics.FailureAnalyzer;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.core.io.support.SpringFactoriesLoader;
import org.springframework.security.authentication.AuthenticationProvider;
import org.springframework.security.config.Customizer;
import org.springframework.security.config.annotation.web.builders.HttpSecurity;
import org.springframework.security.config.annotation.web.configurers.AbstractHttpConfigurer;
import org.springframework.security.core.Authentication;
import org.springframework.security.oauth2.core.OAuth2AuthenticationException;
import org.springframework.security.oauth2.core.OAuth2Error;
import org.springframework.security.oauth2.server.authorization.authentication.OAuth2AuthorizationCodeRequestAuthenticationException;
import org.springframework.security.oauth2.server.authorization.authentication.OAuth2AuthorizationCodeRequestAuthenticationProvider;
import org.springframework.security.oauth2.server.authorization.authentication.OAuth2AuthorizationCodeRequestAuthenticationToken;
import org.springframework.security.oauth2.server.authorization.authentication.OAuth2AuthorizationCodeRequestAuthenticationValidator;
import org.springframework.security.oauth2.server.authorization.authentication.OAuth2ClientRegistrationAuthenticationProvider;
import org.springframework.security.oauth2.server.authorization.authentication.OAuth2ClientRegistrationAuthenticationToken;
import org.springframework.security.oauth2.server.authorization.client.RegisteredClient;
import org.springframework.security.oauth2.server.authorization.client.RegisteredClientRepository;
import org.springframework.security.web.SecurityFilterChain;

/** Whoever makes the filter chain: it asks, or the application does not start. */
class ChainTest {
    @TempDir
    static Path folder;

    private static Service service;

    @BeforeAll
    static void start() {
        service = Service.started(folder);
    }

    @AfterAll
    static void stop() {
        service.close();
    }

    private static Apps.Running start(Class<?> application, String... properties) {
        return Apps.start(application, Stream.concat(Stream.of("scopeward.target=" + service.target()), Stream.of(properties))
                .toArray(String[]::new));
    }

    @Test
    void the_chain_of_spring_boot_asks() {
        try (Apps.Running app = start(Apps.BootChain.class)) {
            Answer tokens = app.tool("old").login("openid offline_access mcp:write");
            Assert.granted("openid offline_access mcp:write", tokens);
            Assert.denied("invalid_scope", "scope forbidden: root", app.tool("old").authorize("root"));
        }
    }

    @Test
    void a_lazy_application_asks() {
        try (Apps.Running app = start(Apps.BootChain.class, "spring.main.lazy-initialization=true")) {
            Assert.granted("openid offline_access", app.tool("old").login("openid offline_access"));
            Assert.denied("invalid_scope", "scope forbidden: root", app.tool("old").authorize("root"));
        }
    }

    @Test
    void the_chain_of_mcp_authorization_server_asks() {
        try (Apps.Running app = start(Apps.McpChain.class)) {
            UserAgent browser = app.browser();
            Answer registered = Tool.register(browser, "openid");
            Assert.granted("openid offline_access", registered);
            Tool tool = Tool.of(browser, registered);
            Assert.granted("openid mcp:write", tool.login("openid mcp:write", "resource", Service.AUDIENCE));
            Assert.denied("invalid_scope", "scope not registered for this client: profile", tool.authorize("openid profile"));
            Assert.refused(400, "invalid_client_metadata", "scope forbidden: root", Tool.register(browser, "root"));
        }
    }

    @Test
    void openid_is_refused_by_a_server_without_openid_connect() {
        try (Apps.Running app = start(NoOidc.class)) {
            assertEquals("invalid_scope", app.tool("old").authorize("openid").redirected().get("error"));
            Assert.granted("offline_access mcp:write", app.tool("old").login("offline_access mcp:write"));
        }
    }

    @Configuration(proxyBeanMethods = false)
    @EnableAutoConfiguration
    static class NoOidc {
        @Bean
        SecurityFilterChain chain(HttpSecurity http) {
            return http.oauth2AuthorizationServer(Customizer.withDefaults())
                    .authorizeHttpRequests(requests -> requests.anyRequest().authenticated())
                    .formLogin(Customizer.withDefaults())
                    .build();
        }
    }

    @Test
    void validators_and_converters_of_the_application_stay() {
        Customized.seen.clear();
        try (Apps.Running app = start(Customized.class, "scopeward.audiences=" + Service.AUDIENCE)) {
            UserAgent browser = app.browser();
            assertEquals("invalid_request", browser.postJson("/oauth2/register", "{\"client_name\": \"Evil\", \"redirect_uris\": [\""
                    + UserAgent.REDIRECT_URI + "\"]}", Map.of()).json().get("error").getAsString());
            Answer registered = Tool.register(browser, "openid");
            Assert.granted("openid offline_access", registered);
            Tool tool = Tool.of(browser, registered);
            assertEquals(Set.of("openid", "offline_access"), app.context().getBean(RegisteredClientRepository.class)
                    .findByClientId(tool.clientId()).getScopes());
            Assert.granted("openid offline_access", tool.login("openid offline_access"));
            assertTrue(Customized.seen.contains("offline_access openid"), Customized.seen.toString());
            assertEquals("access_denied", tool.authorize("openid", "maintenance", "yes").redirected().get("error"));
            // As ClientDescriber says: a rule of the policy may know more than the server stores.
            tool.authorize("mcp:write");
            assertTrue(service.audit().stream().anyMatch(event -> event.contains("software-7")), "described");
        }
    }

    @Configuration(proxyBeanMethods = false)
    @EnableAutoConfiguration
    static class Customized {
        static final Set<String> seen = new ConcurrentSkipListSet<>();

        @Bean
        ClientDescriber describer() {
            return client -> {
                OAuthClient known = ClientDescriber.describe(client, ClientSource.DCR);
                return new OAuthClient(known.clientId(), known.source(), known.clientName(), "software-7", "", known.redirectUris(),
                        known.grantTypes(), "native");
            };
        }

        @Bean
        SecurityFilterChain chain(HttpSecurity http) {
            return http.oauth2AuthorizationServer(server -> server.oidc(Customizer.withDefaults())
                            .authorizationEndpoint(endpoint -> endpoint.authenticationProviders(Customized::addValidator))
                            .clientRegistrationEndpoint(endpoint -> endpoint.openRegistrationAllowed(true)
                                    .authenticationProviders(Customized::addConverter)))
                    .authorizeHttpRequests(requests -> requests.requestMatchers("/oauth2/register", "/error").permitAll()
                            .anyRequest().authenticated())
                    .formLogin(Customizer.withDefaults())
                    .build();
        }

        private static void addValidator(List<AuthenticationProvider> providers) {
            for (AuthenticationProvider provider : providers) {
                if (provider instanceof OAuth2AuthorizationCodeRequestAuthenticationProvider authorization) {
                    authorization.setAuthenticationValidator(
                            new OAuth2AuthorizationCodeRequestAuthenticationValidator().andThen(context -> {
                                OAuth2AuthorizationCodeRequestAuthenticationToken request = context.getAuthentication();
                                seen.add(String.join(" ", new TreeSet<>(request.getScopes())));
                                if (request.getAdditionalParameters().containsKey("maintenance")) {
                                    throw new OAuth2AuthorizationCodeRequestAuthenticationException(
                                            new OAuth2Error("access_denied"), request);
                                }
                            }));
                }
            }
        }

        private static void addConverter(List<AuthenticationProvider> providers) {
            for (AuthenticationProvider provider : providers) {
                if (provider instanceof OAuth2ClientRegistrationAuthenticationProvider registration) {
                    registration.setAuthenticationValidator(context -> {
                        OAuth2ClientRegistrationAuthenticationToken asked = context.getAuthentication();
                        if ("Evil".equals(asked.getClientRegistration().getClientName())) {
                            throw new OAuth2AuthenticationException("invalid_request");
                        }
                    });
                    // Knows nothing of scopes.
                    registration.setRegisteredClientConverter(asked -> RegisteredClient.from(Apps.client("c-" + asked.getClientName(), "root"))
                            .clientIdIssuedAt(Instant.now())
                            .build());
                }
            }
        }
    }

    @Test
    void an_application_without_an_authorization_server_does_not_start() {
        assertNotStarted("Scopeward is not attached to an authorization server: none of the 1 security filter chains has an"
                + " OAuth2AuthorizationServerConfigurer that it was told of", NoServer.class);
        assertNotStarted("Scopeward is not attached to an authorization server: none of the 1 security filter chains has an"
                + " OAuth2AuthorizationServerConfigurer that it was told of", NoServer.class, "spring.main.lazy-initialization=true");
    }

    @Configuration(proxyBeanMethods = false)
    @EnableAutoConfiguration
    static class NoServer {
        @Bean
        SecurityFilterChain chain(HttpSecurity http) {
            return http.authorizeHttpRequests(requests -> requests.anyRequest().authenticated()).build();
        }
    }

    @Test
    void a_server_that_is_added_too_late_does_not_start() {
        assertNotStarted("Scopeward could not attach to an authorization server that was added too late", TooLate.class);
    }

    @Configuration(proxyBeanMethods = false)
    @EnableAutoConfiguration
    static class TooLate {
        @Bean
        SecurityFilterChain chain(HttpSecurity http) {
            return http.with(new Outer()).authorizeHttpRequests(requests -> requests.anyRequest().authenticated()).build();
        }

        static final class Outer extends AbstractHttpConfigurer<Outer, HttpSecurity> {
            @Override
            public void init(HttpSecurity http) {
                http.with(new Inner());
            }
        }

        static final class Inner extends AbstractHttpConfigurer<Inner, HttpSecurity> {
            @Override
            public void init(HttpSecurity http) {
                http.oauth2AuthorizationServer(Customizer.withDefaults());
            }
        }
    }

    @Test
    void an_endpoint_whose_provider_was_replaced_does_not_start() {
        ReplacedProvider.isRegistration.set(false);
        assertNotStarted("Scopeward is not attached to the authorization endpoint: its provider was replaced", ReplacedProvider.class);
        ReplacedProvider.isRegistration.set(true);
        assertNotStarted("Scopeward is not attached to the client registration endpoint: its provider was replaced", ReplacedProvider.class);
    }

    @Configuration(proxyBeanMethods = false)
    @EnableAutoConfiguration
    static class ReplacedProvider {
        static final AtomicBoolean isRegistration = new AtomicBoolean();

        @Bean
        SecurityFilterChain chain(HttpSecurity http) {
            return http.oauth2AuthorizationServer(server -> {
                        if (isRegistration.get()) {
                            server.clientRegistrationEndpoint(endpoint -> endpoint.authenticationProviders(ReplacedProvider::replace));
                        } else {
                            server.authorizationEndpoint(endpoint -> endpoint.authenticationProviders(ReplacedProvider::replace));
                        }
                    })
                    .authorizeHttpRequests(requests -> requests.anyRequest().authenticated())
                    .build();
        }

        private static void replace(List<AuthenticationProvider> providers) {
            providers.replaceAll(provider -> new AuthenticationProvider() {
                @Override
                public Authentication authenticate(Authentication authentication) {
                    return provider.authenticate(authentication);
                }

                @Override
                public boolean supports(Class<?> authentication) {
                    return provider.supports(authentication);
                }
            });
        }
    }

    @Test
    void wrong_settings_do_not_start() {
        assertEquals("scopeward.target is not set", notStarted(() -> Apps.start(Apps.BootChain.class)).getDescription());
        assertTrue(notStarted(() -> Apps.start(Apps.BootChain.class, "scopeward.target=nowhere")).getDescription()
                .startsWith("the settings scopeward.* are wrong: `nowhere` is not a target"));
        assertNotStarted("the settings scopeward.* are wrong: the deadline PT0S is not positive", Apps.BootChain.class,
                "scopeward.deadline=0s");
        assertNotStarted("the settings scopeward.* are wrong: a certificate and its private key are given together", Apps.BootChain.class,
                "scopeward.tls.cert-file=" + folder.resolve("tls.pem"));
        assertNotStarted("the settings scopeward.* are wrong: a token is given as `token` or as `tokenFile`, not as both",
                Apps.BootChain.class, "scopeward.token=t", "scopeward.token-file=f");
    }

    @Test
    void a_setting_that_is_not_known_does_not_start() {
        Throwable failure = assertThrows(RuntimeException.class, () -> start(Apps.BootChain.class, "scopeward.audience=x").close());
        while (failure.getCause() != null) {
            failure = failure.getCause();
        }
        assertEquals("The elements [scopeward.audience] were left unbound.", failure.getMessage());
    }

    private static void assertNotStarted(String description, Class<?> application, String... properties) {
        assertEquals(description, notStarted(() -> start(application, properties)).getDescription());
    }

    /** What Spring Boot prints of it. */
    private static FailureAnalysis notStarted(Supplier<Apps.Running> starting) {
        Throwable failure = assertThrows(RuntimeException.class, () -> starting.get().close());
        return SpringFactoriesLoader.forDefaultResourceLocation().load(FailureAnalyzer.class,
                        SpringFactoriesLoader.FailureHandler.handleMessage((message, error) -> { }))
                .stream()
                .filter(NotAskingFailureAnalyzer.class::isInstance)
                .map(analyzer -> analyzer.analyze(failure))
                .findFirst().orElseThrow();
    }

    @Test
    void settings_are_described_for_editors() throws Exception {
        try (var metadata = ScopewardProperties.class.getResourceAsStream("/META-INF/spring-configuration-metadata.json")) {
            String text = new String(metadata.readAllBytes(), StandardCharsets.UTF_8);
            for (String name : List.of("target", "token", "token-file", "deadline", "audiences", "tls.ca-file", "tls.cert-file",
                    "tls.private-key-file", "tls.server-name")) {
                assertTrue(text.contains("\"name\": \"scopeward." + name + "\""), name);
            }
            assertEquals(9, text.split("\"description\":", -1).length - 1, "each with a description");
        }
    }
}
