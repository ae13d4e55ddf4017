package dev.scopeward.spring;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.scopeward.testing.Authority;
import dev.scopeward.testing.UserAgent;
import dev.scopeward.testing.UserAgent.Answer;
import dev.scopeward.testing.Service;
import dev.scopeward.testing.Tool;
import dev.scopeward.v1.CheckAuthorizeScopesResponse;
import dev.scopeward.v1.Decision;
import dev.scopeward.v1.ExpandRegistrationScopesResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.HexFormat;
import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Where there is no answer, or one that is not understood: nothing is granted, and nothing of the cause reaches a client. */
class FailureTest {
    private static final String NO_ANSWER = "the scope policy could not be asked; try again later";

    @TempDir
    Path folder;

    private Service service;
    private Apps.Running app;

    @AfterEach
    void stop() {
        if (app != null) {
            app.close();
        }
        if (service != null) {
            service.close();
        }
    }

    private void start(String target, String... properties) {
        List<String> all = new java.util.ArrayList<>(List.of(properties));
        all.add("scopeward.target=" + target);
        app = Apps.start(Apps.OwnChain.class, all.toArray(String[]::new));
    }

    private void assertNoAnswer(UserAgent browser, Tool tool) {
        Assert.refused(503, "server_error", NO_ANSWER, Tool.register(browser, "openid"));
        Assert.denied("temporarily_unavailable", NO_ANSWER, tool.authorize("openid"));
        Assert.refused(503, "temporarily_unavailable", NO_ANSWER, tool.post("/oauth2/par", tool.request("openid")));
        Assert.refused(503, "temporarily_unavailable", NO_ANSWER,
                app.tool("device").post("/oauth2/device_authorization", UserAgent.parameters("scope", "mcp:read")));
    }

    /** Until the event: the service is asked again. */
    private static void awaitRegistration(UserAgent browser) {
        Answer answer = Tool.register(browser, "openid");
        for (int attempt = 0; attempt < 300 && answer.status() != 201; attempt++) {
            answer = Tool.register(browser, "openid");
        }
        Assert.granted("openid offline_access", answer);
    }

    @Test
    void a_service_that_is_down_grants_nothing_and_is_back_without_a_restart() {
        service = Service.started(folder);
        start(service.target());
        UserAgent browser = app.browser();
        Tool tool = Tool.of(browser, Tool.register(browser, "openid"));
        Answer tokens = tool.login("openid offline_access");
        Answer pushed = tool.post("/oauth2/par", tool.request("openid"));
        List<UserAgent.Parameter> use = UserAgent.parameters(
                "client_id", tool.clientId(), "request_uri", pushed.json().get("request_uri").getAsString());
        service.stop();
        assertNoAnswer(browser, tool);
        Assert.refused(503, "temporarily_unavailable", NO_ANSWER, tool.refresh(tokens));
        assertEquals("temporarily_unavailable", browser.authorize("/oauth2/authorize", use).redirected().get("error"));
        service.start();
        awaitRegistration(browser);
        Assert.granted("openid offline_access", tool.refresh(tokens));
        Assert.granted("openid mcp:write", tool.login("openid mcp:write"));
        Assert.granted("openid", tool.exchange(browser.authorize("/oauth2/authorize", use)));
    }

    @Test
    void an_application_starts_before_the_service() {
        service = Service.started(folder);
        service.stop();
        start(service.target());
        UserAgent browser = app.browser();
        Assert.refused(503, "server_error", NO_ANSWER, Tool.register(browser, "openid"));
        service.start();
        awaitRegistration(browser);
    }

    @Test
    void a_service_that_hangs_grants_nothing_within_the_deadline() {
        service = Service.started(folder);
        start(service.target(), "scopeward.deadline=200ms");
        UserAgent browser = app.browser();
        awaitRegistration(browser);
        service.pause();
        assertNoAnswer(browser, app.tool("old"));
        service.resume();
        awaitRegistration(browser);
    }

    @Test
    void a_policy_that_drops_narrows_what_is_stored_and_granted() {
        service = new Service(folder, "127.0.0.1:0");
        service.writePolicy(Service.POLICY.replace("authorization:", "registration: {unsupportedScopes: drop}\n    authorization:\n"
                + "      unsupportedScopes: drop\n      unregisteredScopes: drop"));
        start(service.start().target());
        UserAgent browser = app.browser();
        Answer registered = Tool.register(browser, "openid root nothing");
        Assert.granted("openid offline_access", registered);
        Tool tool = Tool.of(browser, registered);
        Assert.granted("openid mcp:write", tool.login("openid root nothing profile mcp:write"));
        Assert.denied("invalid_scope", "scope not registered for this client: profile", tool.authorize("profile"));
    }

    @Test
    void a_scope_that_the_policy_withdraws_after_it_was_pushed_is_denied() {
        service = Service.started(folder);
        start(service.target());
        UserAgent browser = app.browser();
        Tool tool = Tool.of(browser, Tool.register(browser, "openid"));
        Answer pushed = tool.post("/oauth2/par", tool.request("openid mcp:write"));
        String drops = Service.POLICY.replace("stepUpScopes: [\"mcp:write\"]", "unregisteredScopes: drop");
        service.stop();
        service.writePolicy(drops);
        service.start();
        awaitRegistration(browser);
        Assert.denied("invalid_scope", "scope not granted any more: mcp:write", browser.authorize("/oauth2/authorize",
                UserAgent.parameters("client_id", tool.clientId(), "request_uri", pushed.json().get("request_uri").getAsString())));
    }

    @Test
    void as_many_refused_scopes_as_a_request_can_have_are_denied() {
        service = Service.started(folder);
        start(service.target());
        UserAgent browser = app.browser();
        Tool tool = Tool.of(browser, Tool.register(browser, "openid"));
        for (int count : new int[] {256, 257}) {
            String scopes = IntStream.range(0, count).mapToObj(i -> "no" + i).collect(Collectors.joining(" "));
            Answer registration = Tool.register(browser, scopes);
            assertEquals(400, registration.status());
            assertEquals("invalid_client_metadata", registration.json().get("error").getAsString());
            var redirected = tool.authorize(scopes).redirected();
            assertEquals("invalid_scope", redirected.get("error"));
            assertTrue(redirected.get("error_description").length() <= 512, redirected.toString());
            assertTrue(redirected.containsKey("state"));
        }
    }

    @Test
    void a_certificate_of_somebody_else_grants_nothing() throws Exception {
        Authority authority = new Authority(folder, "authority");
        Authority other = new Authority(folder, "other");
        List<Path> pair = authority.issue("localhost", "localhost", "127.0.0.1");
        String token = "a token of thirty-two characters";
        String sum = HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(token.getBytes()));
        Path access = Files.writeString(folder.resolve("access.yaml"),
                "callers:\n  - name: spring\n    match: [{tokenSha256: " + sum + "}]\n    may: [decide]\n");
        service = new Service(folder, "127.0.0.1:0", "--tls-cert-file", pair.get(0).toString(), "--tls-private-key-file",
                pair.get(1).toString(), "--access-file", access.toString()).start();
        String target = "https://" + service.target();
        Path file = Files.writeString(folder.resolve("token"), token + "\n");
        start(target, "scopeward.tls.ca-file=" + other.file(), "scopeward.token-file=" + file);
        Answer answer = Tool.register(app.browser(), "openid");
        Assert.refused(503, "server_error", NO_ANSWER, answer);
        Assert.denied("temporarily_unavailable", NO_ANSWER, app.tool("old").authorize("openid"));
        app.close();
        start(target, "scopeward.tls.ca-file=" + authority.file(), "scopeward.token=not the token");
        Assert.refused(500, "server_error", NO_ANSWER, Tool.register(app.browser(), "openid"));
        Assert.denied("server_error", NO_ANSWER, app.tool("old").authorize("openid"));
        app.close();
        start(target, "scopeward.tls.ca-file=" + authority.file(), "scopeward.token-file=" + file);
        awaitRegistration(app.browser());
    }

    @Test
    void an_answer_of_another_version_grants_nothing() throws Exception {
        try (SickServer sick = new SickServer()) {
            start(sick.target());
            for (Decision decision : new Decision[] {null, Decision.DECISION_UNSPECIFIED, Decision.DECISION_DENY, Decision.DECISION_ALLOW}) {
                sick.registration = decision == null ? null : ExpandRegistrationScopesResponse.newBuilder().setDecision(decision).build();
                sick.authorize = decision == null ? null : CheckAuthorizeScopesResponse.newBuilder().setDecision(decision).build();
                Answer registration = Tool.register(app.browser(), "openid");
                Assert.refused(500, "server_error", NO_ANSWER, registration);
                assertFalse(registration.body().contains("secret"));
                Answer authorization = app.tool("old").authorize("openid");
                Assert.denied("server_error", NO_ANSWER, authorization);
                assertFalse(authorization.location().contains("secret"));
            }
            // The one member that matters.
            sick.authorize = CheckAuthorizeScopesResponse.newBuilder().setDecision(Decision.DECISION_ALLOW).setScope("openid").build();
            Assert.granted("openid", app.tool("old").login("openid profile"));
        }
    }
}
