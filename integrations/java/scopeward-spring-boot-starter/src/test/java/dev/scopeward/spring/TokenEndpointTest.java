package dev.scopeward.spring;

import static org.junit.jupiter.api.Assertions.assertEquals;

import dev.scopeward.client.ScopewardClient;
import dev.scopeward.testing.Service;
import dev.scopeward.testing.Tool;
import dev.scopeward.testing.UserAgent;
import dev.scopeward.testing.UserAgent.Answer;
import java.nio.file.Path;
import java.util.concurrent.CancellationException;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.springframework.security.oauth2.core.AuthorizationGrantType;
import org.springframework.security.oauth2.server.authorization.client.RegisteredClient;
import org.springframework.security.oauth2.server.authorization.client.RegisteredClientRepository;

/** What a client gets at the token endpoint, over real HTTP. */
class TokenEndpointTest {
    private static final String WITHOUT_READ = Service.POLICY
            .replace("offline_access, \"mcp:read\", \"mcp:write\"", "offline_access, \"mcp:write\"").replace("[openid, \"mcp:read\"]", "[openid]");

    @TempDir
    static Path folder;

    private static Service service;
    private static Apps.Running app;
    private boolean isChanged;

    @BeforeAll
    static void start() {
        service = Service.started(folder);
        app = Apps.start(Apps.OwnChain.class, "scopeward.target=" + service.target());
    }

    @AfterAll
    static void stop() {
        app.close();
        service.close();
    }

    @AfterEach
    void putThePolicyBack() {
        if (isChanged) {
            serve(Service.POLICY);
            isChanged = false;
        }
    }

    private void serve(String policy) {
        isChanged = !policy.equals(Service.POLICY);
        try (ScopewardClient client = ScopewardClient.create(service.target())) {
            long before = client.policyStatus().active().generation();
            service.writePolicy(policy);
            client.watchPolicyStatus(status -> {
                if (status.active().generation() > before) {
                    throw new CancellationException("it serves");
                }
            });
        } catch (CancellationException serves) {
            return;
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
        }
        throw new AssertionError("the policy is not served");
    }

    /** A client of the operator, for the grants that a registered one has not. */
    private static Tool stored(String id, String... scopes) {
        RegisteredClient client = RegisteredClient.from(Apps.client(id, scopes))
                .authorizationGrantType(AuthorizationGrantType.TOKEN_EXCHANGE).build();
        app.context().getBean(RegisteredClientRepository.class).save(client);
        return app.tool(id);
    }

    private static Answer refresh(Tool tool, Answer tokens, String scope) {
        return tool.post("/oauth2/token", UserAgent.parameters("grant_type", "refresh_token", "refresh_token",
                tokens.json().get("refresh_token").getAsString(), "scope", scope));
    }

    private static void assertError(String error, Answer answer) {
        assertEquals(400, answer.status(), answer.body());
        assertEquals(error, answer.json().get("error").getAsString(), answer.body());
    }

    @Test
    void a_refresh_loses_what_the_policy_took_away_and_gains_nothing() {
        Tool tool = app.tool("device");
        Answer tokens = tool.login("openid mcp:read");
        Assert.granted("mcp:read", refresh(tool, tokens, "mcp:read"));
        for (String wider : new String[] {"openid mcp:read offline_access", "root", "admin"}) {
            assertError("invalid_scope", refresh(tool, tokens, wider));
        }
        serve(WITHOUT_READ);
        Answer fewer = tool.refresh(tokens);
        Assert.granted("openid", fewer);
        serve(Service.POLICY);
        Assert.granted("openid mcp:read", tool.refresh(fewer));
    }

    @Test
    void client_credentials_get_what_the_client_holds_and_no_step_up() {
        Tool tool = stored("service", "mcp:read", "root");
        Answer answer = tool.post("/oauth2/token", UserAgent.parameters("grant_type", "client_credentials", "scope", "mcp:read root"));
        Assert.granted("mcp:read", answer);
        Assert.granted("mcp:read offline_access", tool.post("/oauth2/token", UserAgent.parameters("grant_type", "client_credentials")));
        for (String scope : new String[] {"mcp:write", "profile", "root"}) {
            assertError("invalid_scope",
                    tool.post("/oauth2/token", UserAgent.parameters("grant_type", "client_credentials", "scope", scope)));
        }
        assertError("invalid_target", tool.post("/oauth2/token", UserAgent.parameters(
                "grant_type", "client_credentials", "scope", "mcp:read", "resource", "https://other.example.com")));
    }

    @Test
    void a_token_exchange_gets_what_the_subject_token_has() {
        Tool tool = stored("exchange", "mcp:read", "profile");
        Answer subject = tool.login("mcp:read");
        for (String scope : new String[] {"mcp:read", null}) {
            Assert.granted("mcp:read", exchange(tool, subject, scope));
        }
        // The client holds it.
        assertError("invalid_scope", exchange(tool, subject, "mcp:read profile"));
        serve(WITHOUT_READ);
        assertError("invalid_scope", exchange(tool, subject, null));
    }

    private static Answer exchange(Tool tool, Answer subject, String scope) {
        return tool.post("/oauth2/token", UserAgent.parameters("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange",
                "subject_token", subject.json().get("access_token").getAsString(),
                "subject_token_type", "urn:ietf:params:oauth:token-type:access_token", "scope", scope));
    }
}
