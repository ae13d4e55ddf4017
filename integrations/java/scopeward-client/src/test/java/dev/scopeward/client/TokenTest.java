package dev.scopeward.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.scopeward.testing.Service;
import dev.scopeward.v1.BatchCheckTokenScopesResponse;
import dev.scopeward.v1.CheckTokenScopesResponse;
import dev.scopeward.v1.Decision;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletionException;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** The question of the token endpoint, against the real service. */
class TokenTest {
    private static Service service;
    private static ScopewardClient client;

    @TempDir
    Path folder;

    @BeforeAll
    static void start(@TempDir Path folder) {
        service = Service.started(folder);
        client = ScopewardClient.builder(service.target()).deadline(Duration.ofSeconds(60)).build();
    }

    @AfterAll
    static void stop() {
        client.close();
        service.close();
    }

    private static TokenQuestion refresh(String scope, String granted) {
        return TokenQuestion.builder(TokenGrant.REFRESH).scope(scope).grantedScope(granted).build();
    }

    private static DeniedException denied(TokenQuestion question) {
        return assertThrows(DeniedException.class, () -> client.checkTokenScopes(question));
    }

    @Test
    void a_refresh_gets_its_grant_or_a_part_of_it() {
        for (String omitted : new String[] {null, "", "  "}) {
            assertEquals("openid mcp:read", client.checkTokenScopes(refresh(omitted, "openid mcp:read")).scope());
        }
        TokenAnswer answer = client.checkTokenScopes(refresh(" mcp:read  openid", "openid mcp:read"));
        assertEquals("mcp:read openid", answer.scope());
        assertEquals(List.of(new AudienceGrant(Service.AUDIENCE, "mcp:read openid")), answer.audienceGrants());
        assertEquals(List.of(), answer.refused());
        assertEquals(1, answer.policy().generation());
    }

    /** RFC 6749 section 6. */
    @Test
    void a_refresh_gains_nothing_and_loses_what_the_policy_took_away() {
        DeniedException denied = denied(refresh("openid mcp:read", "openid"));
        assertEquals("invalid_scope EXCEEDS_GRANT 400", denied.oauthError().error() + " " + denied.reason() + " " + denied.httpStatus());
        TokenAnswer answer = client.checkTokenScopes(refresh("openid root withdrawn mcp:write", "openid root withdrawn mcp:write"));
        assertEquals("openid mcp:write", answer.scope());
        assertEquals(List.of("root FORBIDDEN", "withdrawn UNSUPPORTED"),
                answer.refused().stream().map(item -> item.scope() + " " + item.reason()).toList());
        denied(refresh(null, ""));
        denied(refresh(null, "root"));
    }

    @Test
    void grants_without_a_scope_of_their_own_get_what_the_client_holds_and_no_step_up() {
        for (TokenGrant grant : List.of(TokenGrant.CLIENT_CREDENTIALS, TokenGrant.JWT_BEARER)) {
            TokenQuestion.Builder question = TokenQuestion.builder(grant)
                    .registeredScope("openid mcp:read").audiences(List.of(Service.AUDIENCE)).correlationId("login-1");
            assertEquals("openid mcp:read offline_access", client.checkTokenScopes(question.build()).scope());
            assertEquals("mcp:read", client.checkTokenScopes(question.scope("mcp:read").build()).scope());
            denied(question.scope("mcp:write").build());
        }
        TokenQuestion other = TokenQuestion.builder(TokenGrant.JWT_BEARER).audiences(List.of("https://other.example.com")).build();
        assertEquals("invalid_target", denied(other).oauthError().error());
    }

    @Test
    void a_question_that_lacks_something_is_no_denial() {
        for (TokenQuestion question : List.of(TokenQuestion.builder(null).grantedScope("openid").build(),
                TokenQuestion.builder(TokenGrant.TOKEN_EXCHANGE).registeredScope("openid").build(),
                TokenQuestion.builder(TokenGrant.REFRESH).scope("openid").registeredScope("openid").build())) {
            UnavailableException error = assertThrows(UnavailableException.class, () -> client.checkTokenScopes(question));
            assertEquals("INVALID_ARGUMENT server_error 500", error.code() + " " + error.oauthError().error() + " " + error.httpStatus());
            assertEquals(question.grant() == null ? "grant" : "granted_scope", error.metadata().get("field"));
        }
    }

    @Test
    void a_batch_has_answers_denials_and_errors_in_order() {
        List<TokenQuestion> checks =
                List.of(refresh(null, "openid"), refresh("mcp:read", "openid"), TokenQuestion.builder(TokenGrant.REFRESH).build());
        for (List<TokenOutcome> outcomes :
                List.of(client.batchCheckTokenScopes(checks), client.batchCheckTokenScopesAsync(checks).join())) {
            assertEquals("openid", outcomes.get(0).orElseThrow().scope());
            assertEquals("EXCEEDS_GRANT", assertInstanceOf(DeniedException.class, outcomes.get(1).failure()).reason());
            assertEquals("INVALID_ARGUMENT", assertThrows(UnavailableException.class, outcomes.get(2)::orElseThrow).code());
        }
        assertEquals(List.of(), client.batchCheckTokenScopes(List.of()));
    }

    @Test
    void a_future_gives_the_same_answer() {
        assertEquals("openid", client.checkTokenScopesAsync(refresh(null, "openid")).join().scope());
        CompletionException error =
                assertThrows(CompletionException.class, () -> client.checkTokenScopesAsync(refresh("root", "openid")).join());
        assertInstanceOf(DeniedException.class, error.getCause());
    }

    @ParameterizedTest(name = "{index}")
    @MethodSource("dev.scopeward.client.ScopewardClientTest#hostileScopes")
    void hostile_scopes_are_denied(String scope) {
        assertEquals("invalid_scope", denied(refresh(scope, "openid")).oauthError().error());
        if (scope.length() < 1000 && !scope.contains("openid ")) {
            denied(refresh(null, scope));
        }
    }

    @Test
    void a_service_from_before_the_question_grants_nothing_and_the_log_says_why() throws Exception {
        try (OldServer old = new OldServer(service.target(), answer -> { }, answer -> { });
                ScopewardClient client = ScopewardClient.builder(old.target()).deadline(Duration.ofSeconds(60)).build()) {
            for (UnavailableException error : List.of(
                    assertThrows(UnavailableException.class, () -> client.checkTokenScopes(refresh(null, "openid"))),
                    assertThrows(UnavailableException.class, () -> client.batchCheckTokenScopes(List.of(refresh(null, "openid")))))) {
                assertEquals("UNIMPLEMENTED server_error 500",
                        error.code() + " " + error.oauthError().error() + " " + error.httpStatus());
                assertTrue(error.getMessage().contains("CheckTokenScopes"), error::getMessage);
                assertTrue(error.getMessage().contains("it is older than this client"), error::getMessage);
            }
        }
    }

    @Test
    void what_is_not_understood_grants_nothing() {
        CheckTokenScopesResponse whole =
                CheckTokenScopesResponse.newBuilder().setDecision(Decision.DECISION_ALLOW).setScope("openid").build();
        assertEquals("openid", Wire.answer(whole).scope());
        for (CheckTokenScopesResponse answer : List.of(whole.toBuilder().clearDecision().build(), whole.toBuilder().clearScope().build(),
                whole.toBuilder().setDecisionValue(9).build(), whole.toBuilder().setDecision(Decision.DECISION_DENY).build())) {
            UnavailableException error = assertThrows(UnavailableException.class, () -> Wire.answer(answer));
            assertEquals("server_error", error.oauthError().error());
        }
        assertThrows(UnavailableException.class, () -> Wire.tokenAnswers(BatchCheckTokenScopesResponse.getDefaultInstance(), 1));
    }

    @Test
    void a_stalled_server_ends_with_the_deadline() {
        try (Service stalled = Service.started(folder);
                ScopewardClient client = ScopewardClient.builder(stalled.target()).deadline(Duration.ofMillis(200)).build()) {
            stalled.pause();
            UnavailableException error =
                    assertThrows(UnavailableException.class, () -> client.checkTokenScopes(refresh(null, "openid")));
            assertEquals("temporarily_unavailable 503", error.oauthError().error() + " " + error.httpStatus());
            stalled.resume();
        }
    }

    @Test
    void a_denial_is_in_the_audit() throws Exception {
        denied(TokenQuestion.builder(TokenGrant.REFRESH).scope("mcp:read").grantedScope("openid").correlationId("login-7").build());
        List<AuditEvent> events = new ArrayList<>();
        for (long end = System.nanoTime() + Duration.ofSeconds(30).toNanos(); events.isEmpty() && System.nanoTime() < end;) {
            client.readAudit(AuditQuestion.builder().kinds(AuditEventKind.DENIAL).untilNewest().build(), record -> {
                if (record instanceof AuditEvent event && event.correlationId().equals("login-7")) {
                    events.add(event);
                }
            });
        }
        AuditEvent event = events.get(0);
        assertEquals("REFRESH openid EXCEEDS_GRANT", event.grant() + " " + event.grantedScope() + " " + event.reason());
        assertTrue(event.method().endsWith("/CheckTokenScopes"), event::method);
    }
}
