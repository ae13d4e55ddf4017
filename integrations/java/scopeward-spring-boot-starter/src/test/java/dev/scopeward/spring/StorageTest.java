package dev.scopeward.spring;

import static org.junit.jupiter.api.Assertions.assertEquals;

import dev.scopeward.testing.Service;
import dev.scopeward.testing.Tool;
import dev.scopeward.testing.UserAgent;
import dev.scopeward.testing.UserAgent.Answer;
import java.nio.file.Path;
import java.util.Map;
import java.util.Set;
import javax.sql.DataSource;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.springframework.boot.autoconfigure.EnableAutoConfiguration;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.context.annotation.Primary;
import org.springframework.core.io.ClassPathResource;
import org.springframework.jdbc.core.JdbcOperations;
import org.springframework.jdbc.core.JdbcTemplate;
import org.springframework.jdbc.datasource.DriverManagerDataSource;
import org.springframework.jdbc.datasource.init.ResourceDatabasePopulator;
import org.springframework.security.config.Customizer;
import org.springframework.security.config.annotation.web.builders.HttpSecurity;
import org.springframework.security.oauth2.server.authorization.JdbcOAuth2AuthorizationConsentService;
import org.springframework.security.oauth2.server.authorization.JdbcOAuth2AuthorizationService;
import org.springframework.security.oauth2.server.authorization.OAuth2AuthorizationConsentService;
import org.springframework.security.oauth2.server.authorization.OAuth2AuthorizationService;
import org.springframework.security.oauth2.server.authorization.client.InMemoryRegisteredClientRepository;
import org.springframework.security.oauth2.server.authorization.client.JdbcRegisteredClientRepository;
import org.springframework.security.oauth2.server.authorization.client.RegisteredClient;
import org.springframework.security.oauth2.server.authorization.client.RegisteredClientRepository;
import org.springframework.security.oauth2.server.authorization.context.AuthorizationServerContextHolder;
import org.springframework.security.web.SecurityFilterChain;

/** Clients and authorizations in a database, and several issuers in one server. */
class StorageTest {
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

    @Test
    void clients_and_authorizations_are_in_a_database() {
        Answer registered;
        Answer tokens;
        try (Apps.Running app = Apps.start(Database.class, "scopeward.target=" + service.target())) {
            UserAgent browser = app.browser();
            registered = Tool.register(browser, "openid");
            Assert.granted("openid offline_access", registered);
            Tool tool = Tool.of(browser, registered);
            Assert.granted("openid mcp:write", tool.login("openid mcp:write"));
            Answer pushed = tool.post("/oauth2/par", tool.request("openid mcp:write"));
            Assert.granted("openid mcp:write", tool.exchange(browser.authorize("/oauth2/authorize", UserAgent.parameters(
                    "client_id", tool.clientId(), "request_uri", pushed.json().get("request_uri").getAsString()))));
            Assert.denied("invalid_scope", "scope not registered for this client: profile", tool.authorize("openid profile"));
            // One that is in the database from before, without the baseline.
            tokens = app.tool("old").login("openid offline_access");
            Assert.granted("openid offline_access", tokens);
            JdbcOperations database = app.context().getBean(JdbcOperations.class);
            assertEquals(Set.of("openid", "offline_access"), Set.of(database.queryForObject(
                    "SELECT scopes FROM oauth2_registered_client WHERE client_id = ?", String.class, tool.clientId()).split(",")));
            assertEquals("openid", database.queryForObject(
                    "SELECT scopes FROM oauth2_registered_client WHERE client_id = 'old'", String.class));
        }
        // Another process reads what the first one stored.
        try (Apps.Running app = Apps.start(Database.class, "scopeward.target=" + service.target())) {
            Assert.granted("openid offline_access", app.tool("old").refresh(tokens));
            Tool again = Tool.of(app.browser(), registered);
            Assert.granted("openid mcp:write", again.login("openid mcp:write"));
            Assert.denied("invalid_scope", "scope forbidden: root", again.authorize("root"));
        }
    }

    /** As the reference of Spring Authorization Server has it. */
    @Configuration(proxyBeanMethods = false)
    static class Database extends Apps.OwnChain {
        @Bean
        DataSource dataSource() {
            return new DriverManagerDataSource("jdbc:h2:mem:" + folder.getFileName() + ";DB_CLOSE_DELAY=-1");
        }

        @Bean
        JdbcOperations jdbcOperations(DataSource source) {
            JdbcTemplate template = new JdbcTemplate(source);
            if (template.queryForList("SELECT 1 FROM information_schema.tables WHERE table_name = 'OAUTH2_AUTHORIZATION'").isEmpty()) {
                String schemas = "org/springframework/security/oauth2/server/authorization/";
                new ResourceDatabasePopulator(
                        new ClassPathResource(schemas + "client/oauth2-registered-client-schema.sql"),
                        new ClassPathResource(schemas + "oauth2-authorization-schema.sql"),
                        new ClassPathResource(schemas + "oauth2-authorization-consent-schema.sql")).execute(source);
            }
            return template;
        }

        @Bean
        @Primary
        RegisteredClientRepository clients(JdbcOperations database) {
            JdbcRegisteredClientRepository clients = new JdbcRegisteredClientRepository(database);
            clients.save(Apps.client("old", "openid"));
            return clients;
        }

        @Bean
        OAuth2AuthorizationService authorizations(JdbcOperations database, RegisteredClientRepository clients) {
            return new JdbcOAuth2AuthorizationService(database, clients);
        }

        @Bean
        OAuth2AuthorizationConsentService consents(JdbcOperations database, RegisteredClientRepository clients) {
            return new JdbcOAuth2AuthorizationConsentService(database, clients);
        }
    }

    @Test
    void several_issuers_each_with_its_own_clients() {
        try (Apps.Running app = Apps.start(Issuers.class, "scopeward.target=" + service.target(),
                "spring.security.oauth2.authorizationserver.multiple-issuers-allowed=true")) {
            Map<String, String> answers = Map.of("one", "scope not registered for this client: mcp:read", "two", "");
            answers.forEach((issuer, refusal) -> {
                UserAgent browser = new UserAgent(app.base() + "/" + issuer, Apps.CREDENTIALS);
                Answer registered = Tool.register(browser, "openid");
                Assert.granted("openid offline_access", registered);
                Assert.granted("openid mcp:write", Tool.of(browser, registered).login("openid mcp:write"));
                Assert.refused(400, "invalid_client_metadata", "scope forbidden: root", Tool.register(browser, "root"));
                // The same id with other scopes.
                Tool old = new Tool(browser, "old", "secret of old");
                Answer asked = old.authorize("openid mcp:read");
                if (refusal.isEmpty()) {
                    Assert.granted("openid mcp:read", old.exchange(asked));
                } else {
                    Assert.denied("invalid_scope", refusal, asked);
                }
                Answer metadata = new UserAgent(app.base(), Map.of()).get("/.well-known/oauth-authorization-server/" + issuer);
                assertEquals(app.base() + "/" + issuer, metadata.json().get("issuer").getAsString());
            });
        }
    }

    @Configuration(proxyBeanMethods = false)
    @EnableAutoConfiguration
    static class Issuers {
        @Bean
        SecurityFilterChain chain(HttpSecurity http) {
            return http.oauth2AuthorizationServer(server -> server.oidc(Customizer.withDefaults())
                            .clientRegistrationEndpoint(endpoint -> endpoint.openRegistrationAllowed(true)))
                    .authorizeHttpRequests(requests -> requests.requestMatchers("/*/oauth2/register", "/error").permitAll()
                            .anyRequest().authenticated())
                    .formLogin(Customizer.withDefaults())
                    .build();
        }

        @Bean
        @Primary
        RegisteredClientRepository clients() {
            Map<String, RegisteredClientRepository> clients = Map.of(
                    "one", new InMemoryRegisteredClientRepository(Apps.client("old", "openid")),
                    "two", new InMemoryRegisteredClientRepository(Apps.client("old", "openid", "mcp:read")));
            return new RegisteredClientRepository() {
                private RegisteredClientRepository here() {
                    String issuer = AuthorizationServerContextHolder.getContext().getIssuer();
                    return clients.get(issuer.substring(issuer.lastIndexOf('/') + 1));
                }

                @Override
                public void save(RegisteredClient client) {
                    here().save(client);
                }

                @Override
                public RegisteredClient findById(String id) {
                    return here().findById(id);
                }

                @Override
                public RegisteredClient findByClientId(String clientId) {
                    return here().findByClientId(clientId);
                }
            };
        }
    }
}
