package dev.scopeward.spring;

import static org.springaicommunity.mcp.security.authorizationserver.config.McpAuthorizationServerConfigurer.mcpAuthorizationServer;

import dev.scopeward.testing.UserAgent;
import dev.scopeward.testing.Tool;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.EnableAutoConfiguration;
import org.springframework.context.ConfigurableApplicationContext;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.core.annotation.Order;
import org.springframework.http.MediaType;
import org.springframework.security.config.Customizer;
import org.springframework.security.config.annotation.web.builders.HttpSecurity;
import org.springframework.security.config.annotation.web.configurers.ExceptionHandlingConfigurer;
import org.springframework.security.crypto.password.PasswordEncoder;
import org.springframework.security.oauth2.core.AuthorizationGrantType;
import org.springframework.security.oauth2.core.ClientAuthenticationMethod;
import org.springframework.security.oauth2.server.authorization.client.InMemoryRegisteredClientRepository;
import org.springframework.security.oauth2.server.authorization.client.RegisteredClient;
import org.springframework.security.oauth2.server.authorization.client.RegisteredClientRepository;
import org.springframework.security.web.SecurityFilterChain;
import org.springframework.security.web.authentication.LoginUrlAuthenticationEntryPoint;
import org.springframework.security.web.util.matcher.MediaTypeRequestMatcher;

/** The authorization servers of the tests, as an application would write them. */
final class Apps {
    static final Map<String, String> CREDENTIALS = Map.of("username", "user", "password", "password");

    private Apps() {}

    /** An application that runs. */
    record Running(ConfigurableApplicationContext context) implements AutoCloseable {
        String base() {
            return "http://127.0.0.1:" + context.getEnvironment().getProperty("local.server.port");
        }

        UserAgent browser() {
            return new UserAgent(base(), CREDENTIALS);
        }

        /** A client of the operator with a user of its own. */
        Tool tool(String id) {
            return new Tool(browser(), id, "secret of " + id);
        }

        @Override
        public void close() {
            context.close();
        }
    }

    static Running start(Class<?> application, String... properties) {
        SpringApplication spring = new SpringApplication(application, Clients.class);
        List<String> arguments = new ArrayList<>(List.of("--server.port=0", "--server.address=127.0.0.1", "--spring.main.banner-mode=off",
                "--spring.security.user.name=user", "--spring.security.user.password=password", "--logging.level.root=off"));
        for (String property : properties) {
            arguments.add("--" + property);
        }
        return new Running(spring.run(arguments.toArray(String[]::new)));
    }

    /** A client of the operator, or one that was stored before the policy had a baseline. */
    static RegisteredClient client(String id, String... scopes) {
        return RegisteredClient.withId("stored-" + id)
                .clientId(id)
                .clientSecret("secret of " + id)
                .clientAuthenticationMethod(ClientAuthenticationMethod.CLIENT_SECRET_BASIC)
                .authorizationGrantType(AuthorizationGrantType.AUTHORIZATION_CODE)
                .authorizationGrantType(AuthorizationGrantType.REFRESH_TOKEN)
                .authorizationGrantType(AuthorizationGrantType.CLIENT_CREDENTIALS)
                .authorizationGrantType(AuthorizationGrantType.DEVICE_CODE)
                .redirectUri(UserAgent.REDIRECT_URI)
                .scopes(stored -> stored.addAll(List.of(scopes)))
                .build();
    }

    @Configuration(proxyBeanMethods = false)
    static class Clients {
        /** Slow hashes are not what these tests are about. */
        @Bean
        PasswordEncoder passwordEncoder() {
            return new PasswordEncoder() {
                @Override
                public String encode(CharSequence password) {
                    return password.toString();
                }

                @Override
                public boolean matches(CharSequence password, String stored) {
                    return stored.contentEquals(password);
                }
            };
        }

        @Bean
        RegisteredClientRepository registeredClientRepository() {
            return new InMemoryRegisteredClientRepository(
                    client("old", "openid"), client("bare"), client("device", "openid", "mcp:read"), client("registrar", "client.create"));
        }
    }

    /** With a chain of its own and every endpoint that asks. */
    @Configuration(proxyBeanMethods = false)
    @EnableAutoConfiguration
    static class OwnChain {
        @Bean
        @Order(1)
        SecurityFilterChain authorizationServer(HttpSecurity http) {
            return http.oauth2AuthorizationServer(server -> {
                        http.securityMatcher(server.getEndpointsMatcher());
                        server.oidc(oidc -> oidc.clientRegistrationEndpoint(Customizer.withDefaults()))
                                .clientRegistrationEndpoint(registration -> registration.openRegistrationAllowed(true))
                                .pushedAuthorizationRequestEndpoint(Customizer.withDefaults())
                                .deviceAuthorizationEndpoint(Customizer.withDefaults());
                    })
                    .authorizeHttpRequests(requests -> requests.requestMatchers("/oauth2/register").permitAll().anyRequest().authenticated())
                    .exceptionHandling(Apps::signIn)
                    .build();
        }

        @Bean
        @Order(2)
        SecurityFilterChain everythingElse(HttpSecurity http) {
            return http.authorizeHttpRequests(requests -> requests.requestMatchers("/error").permitAll().anyRequest().authenticated())
                    .formLogin(Customizer.withDefaults())
                    .build();
        }
    }

    /** With the chain that Spring Boot makes. */
    @Configuration(proxyBeanMethods = false)
    @EnableAutoConfiguration
    static class BootChain {}

    /** With mcp-authorization-server of the Spring AI community. */
    @Configuration(proxyBeanMethods = false)
    @EnableAutoConfiguration
    static class McpChain {
        @Bean
        SecurityFilterChain chain(HttpSecurity http) {
            return http.authorizeHttpRequests(requests -> requests.requestMatchers("/error").permitAll().anyRequest().authenticated())
                    .with(mcpAuthorizationServer(), mcp -> mcp.authorizationServer(server -> server.oidc(Customizer.withDefaults())))
                    .formLogin(Customizer.withDefaults())
                    .build();
        }
    }

    private static void signIn(ExceptionHandlingConfigurer<HttpSecurity> exceptions) {
        exceptions.defaultAuthenticationEntryPointFor(
                new LoginUrlAuthenticationEntryPoint("/login"), new MediaTypeRequestMatcher(MediaType.TEXT_HTML));
    }
}
