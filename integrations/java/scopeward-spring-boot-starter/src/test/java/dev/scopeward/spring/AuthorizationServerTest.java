package dev.scopeward.spring;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.scopeward.testing.UserAgent;
import dev.scopeward.testing.UserAgent.Answer;
import dev.scopeward.testing.Service;
import dev.scopeward.testing.Tool;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.springframework.security.core.SpringSecurityCoreVersion;
import org.springframework.security.oauth2.server.authorization.client.RegisteredClientRepository;

/** A server with a chain of its own: each moment, over real HTTP. */
class AuthorizationServerTest {
    private static final Pattern CORRELATION_ID = Pattern.compile("\"correlation_?[iI]d\":\\s*\"([0-9a-f]{32})\"");

    @TempDir
    static Path folder;

    private static Service service;
    private static Apps.Running app;
    private final UserAgent browser = app.browser();

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

    private static Set<String> stored(String clientId) {
        return app.context().getBean(RegisteredClientRepository.class).findByClientId(clientId).getScopes();
    }

    private static void assertRegistered(String asked, String scope, UserAgent browser) {
        Answer answer = Tool.register(browser, asked);
        Assert.granted(scope, answer);
        assertEquals(Tool.scopes(scope), stored(answer.json().get("client_id").getAsString()));
    }

    private Tool registered(String scope) {
        return Tool.of(browser, Tool.register(browser, scope));
    }

    @Test
    void a_client_registers_with_what_it_asks_and_the_baseline() {
        assertRegistered("openid", "openid offline_access", browser);
        assertRegistered("openid mcp:read", "openid mcp:read offline_access", browser);
        assertRegistered(" openid ", "openid offline_access", browser);
    }

    @Test
    void a_client_that_asks_for_nothing_registers_with_the_default() {
        assertRegistered(null, "openid mcp:read offline_access", browser);
        if (!SpringSecurityCoreVersion.getVersion().startsWith("7.0.")) {
            // Those refuse it themselves.
            assertRegistered("", "openid mcp:read offline_access", browser);
        }
        assertRegistered("   ", "openid mcp:read offline_access", browser);
    }

    @Test
    void a_registration_outside_of_the_policy_is_refused_and_not_stored() {
        Answer answer = Tool.register(browser, "openid root nothing");
        assertEquals(400, answer.status());
        Assert.refused(400, "invalid_client_metadata", "scope forbidden: root; scope not supported: nothing", answer);
        assertNull(answer.json().get("client_id"));
    }

    @Test
    void hostile_scopes_are_refused_as_such() {
        for (String scope : List.of("open\tid", "open\"id", "op\\en", "öpen", "a\u0000b", "openid\nadmin", "<script>")) {
            Answer registration = Tool.register(browser, scope);
            assertEquals(400, registration.status(), scope);
            assertEquals("invalid_client_metadata", registration.json().get("error").getAsString(), scope);
            Answer answer = registered("openid").authorize(scope);
            assertEquals("invalid_scope", answer.redirected().get("error"), scope);
        }
    }

    @Test
    void the_registration_of_openid_connect_asks_too() {
        String metadata = "{\"client_name\": \"Tool\", \"redirect_uris\": [\"" + UserAgent.REDIRECT_URI + "\"], \"scope\": \"%s\"}";
        Answer refused = browser.postJson("/connect/register", metadata.formatted("openid root"), initialToken());
        Assert.refused(400, "invalid_client_metadata", "scope forbidden: root", refused);
        Answer registered = browser.postJson("/connect/register", metadata.formatted("openid"), initialToken());
        Assert.granted("openid offline_access", registered);
        assertEquals(Set.of("openid", "offline_access"), stored(registered.json().get("client_id").getAsString()));
        Assert.granted("openid mcp:write", Tool.of(browser, registered).login("openid mcp:write"));
    }

    private static Map<String, String> initialToken() {
        Answer tokens = app.tool("registrar").post(
                "/oauth2/token", UserAgent.parameters("grant_type", "client_credentials", "scope", "client.create"));
        return Map.of("Authorization", "Bearer " + tokens.json().get("access_token").getAsString());
    }

    @Test
    void a_registration_that_the_server_refuses_is_not_asked_for() {
        Answer answer = browser.postJson("/oauth2/register",
                "{\"client_name\": \"Never asked for\", \"redirect_uris\": [\"javascript:alert(1)\"], \"scope\": \"openid\"}", Map.of());
        assertEquals("invalid_redirect_uri", answer.json().get("error").getAsString());
        assertEquals(List.of(), eventsWith("Never asked for"));
    }

    @Test
    void a_client_gets_what_it_registered_with_and_the_baseline() {
        Tool tool = registered("openid");
        Assert.granted("openid offline_access", tool.login("openid offline_access"));
        Assert.granted("openid", tool.login("openid"));
    }

    @Test
    void a_client_that_asks_for_nothing_gets_what_it_holds() {
        Assert.granted("openid mcp:read offline_access", registered("openid mcp:read").login(null));
        Assert.granted("openid mcp:read offline_access", registered("openid mcp:read").login(""));
    }

    @Test
    void what_is_outside_of_the_policy_or_of_the_registration_is_denied_with_state() {
        Tool tool = registered("openid");
        Assert.denied("invalid_scope", "scope forbidden: root", tool.authorize("openid root"));
        Assert.denied("invalid_scope", "scope not supported: nothing", tool.authorize("openid nothing"));
        Assert.denied("invalid_scope", "scope not registered for this client: profile", tool.authorize("openid profile"));
        Assert.denied("invalid_target", "audience unknown: https://other.example.com",
                tool.authorize("openid", "resource", "https://other.example.com"));
    }

    @Test
    void a_forbidden_scope_that_is_stored_is_denied() {
        // Before and without this package the server would grant it.
        app.context().getBean(RegisteredClientRepository.class).save(Apps.client("root-holder", "openid", "root"));
        Assert.denied("invalid_scope", "scope registered but not granted now: root", app.tool("root-holder").authorize("openid root"));
    }

    @Test
    void a_step_up_is_granted_and_stored_nowhere() {
        Tool tool = registered("openid");
        Answer tokens = tool.login("openid mcp:write", "resource", Service.AUDIENCE);
        Assert.granted("openid mcp:write", tokens);
        Assert.granted("openid mcp:write", tool.refresh(tokens));
        assertEquals(Tool.scopes("openid offline_access"), stored(tool.clientId()));
    }

    @Test
    void a_client_from_before_the_baseline_logs_in_and_refreshes() {
        Tool tool = app.tool("old");
        Answer tokens = tool.login("openid offline_access");
        Assert.granted("openid offline_access", tokens);
        Assert.granted("openid offline_access", tool.refresh(tokens));
        assertEquals(Set.of("openid"), stored("old"));
    }

    @Test
    void a_client_without_scopes_gets_what_the_policy_says() {
        Assert.granted("openid mcp:read offline_access", app.tool("bare").login(null));
    }

    @Test
    void a_client_that_nobody_knows_and_a_foreign_redirect_uri_are_refused_without_a_redirect() {
        Answer unknown = app.tool("nobody").authorize("mcp:write");
        assertEquals(400, unknown.status(), unknown.toString());
        assertNull(unknown.location());
        Tool tool = registered("openid");
        Answer foreign = browser.authorize("/oauth2/authorize", tool.request("mcp:write").stream()
                .map(parameter -> parameter.name().equals("redirect_uri")
                        ? new UserAgent.Parameter("redirect_uri", "https://evil.example.com/")
                        : parameter)
                .toList());
        assertEquals(400, foreign.status(), foreign.toString());
        assertNull(foreign.location());
        assertEquals(List.of(), eventsWith("nobody"));
        assertEquals(List.of(), eventsWith(tool.clientId()));
    }

    /** What was recorded with this text. An expansion is recorded before its answer; a denial may be a little later. */
    private static List<String> eventsWith(String text) {
        return service.audit().stream().filter(event -> event.contains(text)).toList();
    }

    @Test
    void a_denial_comes_before_the_login() {
        Answer answer = app.browser().get("/oauth2/authorize?response_type=code&client_id=old&scope=root&state=st-1&redirect_uri="
                + UserAgent.REDIRECT_URI);
        Assert.denied("invalid_scope", "scope forbidden: root", answer);
    }

    @Test
    void the_questions_of_a_login_have_one_correlation_id() {
        UserAgent fresh = app.browser();
        Tool tool = Tool.of(fresh, Tool.register(fresh, "openid"));
        tool.login("openid mcp:write");
        List<String> events = eventsWith(tool.clientId());
        assertEquals(2, events.size(), events.toString());
        assertEquals(1, events.stream().map(AuthorizationServerTest::correlationId).distinct().count(), events.toString());
    }

    @Test
    void a_pushed_request_is_asked_for_when_it_is_pushed_and_when_it_is_used() {
        Tool tool = registered("openid");
        Answer pushed = tool.post("/oauth2/par", tool.request("openid mcp:write", "resource", Service.AUDIENCE));
        assertEquals(201, pushed.status(), pushed.body());
        Answer redirect = browser.authorize("/oauth2/authorize", UserAgent.parameters(
                "client_id", tool.clientId(), "request_uri", pushed.json().get("request_uri").getAsString()));
        Assert.granted("openid mcp:write", tool.exchange(redirect));
        List<String> events = eventsWith(tool.clientId());
        assertTrue(events.size() >= 2, events.toString());
        assertEquals(1, events.stream().map(AuthorizationServerTest::correlationId).distinct().count(), events.toString());
    }

    @Test
    void a_pushed_request_without_scope_gets_what_the_client_holds() {
        Tool tool = registered("openid");
        Answer pushed = tool.post("/oauth2/par", tool.request(null));
        Answer redirect = browser.authorize("/oauth2/authorize", UserAgent.parameters(
                "client_id", tool.clientId(), "request_uri", pushed.json().get("request_uri").getAsString(), "scope", "openid root"));
        Assert.granted("openid offline_access", tool.exchange(redirect));
    }

    @Test
    void a_pushed_request_outside_of_the_policy_is_refused_when_it_is_pushed() {
        Tool tool = registered("openid");
        Answer pushed = tool.post("/oauth2/par", tool.request("openid root"));
        assertEquals(400, pushed.status());
        Assert.refused(400, "invalid_scope", "scope forbidden: root", pushed);
        Answer target = tool.post("/oauth2/par", tool.request("openid", "resource", "https://other.example.com"));
        Assert.refused(400, "invalid_target", "audience unknown: https://other.example.com", target);
    }

    @Test
    void a_device_gets_the_baseline_and_a_step_up_and_nothing_else() {
        Tool tool = app.tool("device");
        Answer answer = tool.post("/oauth2/device_authorization", UserAgent.parameters("scope", "mcp:read mcp:write offline_access"));
        assertEquals(200, answer.status(), answer.body());
        Assert.granted("mcp:read mcp:write offline_access", approve(tool, answer));
        Assert.refused(400, "invalid_scope", "scope forbidden: root",
                tool.post("/oauth2/device_authorization", UserAgent.parameters("scope", "root")));
        Assert.refused(400, "invalid_scope", "scope not registered for this client: profile",
                tool.post("/oauth2/device_authorization", UserAgent.parameters("scope", "profile")));
    }

    @Test
    void a_device_that_asks_for_nothing_gets_what_it_holds_but_openid() {
        Tool tool = app.tool("device");
        Answer answer = tool.post("/oauth2/device_authorization", List.of());
        Assert.granted("mcp:read offline_access", approve(tool, answer));
        // That is the rule of the server.
        assertEquals("invalid_scope", tool.post("/oauth2/device_authorization", UserAgent.parameters("scope", "openid"))
                .json().get("error").getAsString());
    }

    private Answer approve(Tool tool, Answer device) {
        UserAgent user = app.browser();
        user.open("/oauth2/device_verification?user_code=" + device.json().get("user_code").getAsString());
        return tool.post("/oauth2/token", UserAgent.parameters("grant_type", "urn:ietf:params:oauth:grant-type:device_code",
                "device_code", device.json().get("device_code").getAsString()));
    }

    private static String correlationId(String event) {
        Matcher matcher = CORRELATION_ID.matcher(event);
        assertTrue(matcher.find(), event);
        return matcher.group(1);
    }
}
