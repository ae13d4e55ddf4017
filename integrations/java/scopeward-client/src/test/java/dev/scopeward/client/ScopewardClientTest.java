package dev.scopeward.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.scopeward.testing.Authority;
import dev.scopeward.testing.Service;
import dev.scopeward.v1.Decision;
import io.grpc.health.v1.HealthCheckResponse.ServingStatus;
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.Arrays;
import java.util.Collections;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/** The client against the real service: answers, denials, and what a login gets where there is no answer. */
class ScopewardClientTest {
    private static final String AUDIENCE = Service.AUDIENCE;
    private static final String GRANTED = "openid offline_access";

    private static Service shared;
    private static ScopewardClient client;

    @TempDir
    Path folder;

    @BeforeAll
    static void start(@TempDir Path folder) {
        shared = Service.started(folder);
        client = ScopewardClient.builder(shared.target()).deadline(Duration.ofSeconds(60)).build();
    }

    @AfterAll
    static void stop() {
        client.close();
        shared.close();
    }

    private static RegistrationQuestion registration(String scope) {
        return RegistrationQuestion.builder().scope(scope).build();
    }

    private static AuthorizeQuestion authorize(String scope, String registered) {
        return AuthorizeQuestion.builder().scope(scope).registeredScope(registered).build();
    }

    private static ScopewardClient patient(String... targets) {
        return ScopewardClient.builder(targets).deadline(Duration.ofSeconds(60)).build();
    }

    @Test
    void a_narrow_registration_gets_the_baseline() {
        RegistrationAnswer answer = client.expandRegistrationScopes(registration("openid"));
        assertEquals(GRANTED, answer.scope());
        assertEquals(List.of(new AddedScope("offline_access", "BASELINE", "")), answer.added());
        assertEquals(1, answer.policy().generation());
        assertTrue(answer.policy().digest().startsWith("sha256:"));
    }

    @Test
    void an_omitted_scope_gets_the_defaults() {
        for (String scope : new String[] {null, "", "   "}) {
            assertEquals("openid mcp:read offline_access", client.expandRegistrationScopes(registration(scope)).scope());
        }
    }

    @Test
    void an_update_without_scope_keeps_what_is_held() {
        RegistrationQuestion update = RegistrationQuestion.builder().previousScope("profile offline_access").build();
        assertEquals("profile offline_access", client.expandRegistrationScopes(update).scope());
    }

    @Test
    void a_denial_at_registration_is_ready_to_be_sent() {
        DeniedException denied = assertThrows(
                DeniedException.class, () -> client.expandRegistrationScopes(registration("openid nonsense root")));
        assertEquals("invalid_client_metadata", denied.oauthError().error());
        assertEquals(400, denied.httpStatus());
        assertEquals(List.of("nonsense UNSUPPORTED", "root FORBIDDEN"),
                denied.refused().stream().map(item -> item.scope() + " " + item.reason()).toList());
    }

    @Test
    void authorize_tells_step_up_and_what_is_not_to_be_stored() {
        AuthorizeAnswer answer = client.checkAuthorizeScopes(
                new AuthorizeQuestion(" openid mcp:write", "openid", List.of(AUDIENCE), null, "login-1"));
        assertEquals("openid mcp:write", answer.scope());
        assertEquals(List.of(new AddedScope("mcp:write", "STEP_UP", "")), answer.added());
        assertEquals("openid mcp:write", answer.effectiveRegisteredScope());
        assertEquals(List.of(new AudienceGrant(AUDIENCE, "openid mcp:write")), answer.audienceGrants());
    }

    @Test
    void unset_is_not_empty() {
        assertEquals("mcp:read", client.checkAuthorizeScopes(authorize("mcp:read", null)).scope());
        DeniedException denied =
                assertThrows(DeniedException.class, () -> client.checkAuthorizeScopes(authorize("mcp:read", "")));
        assertEquals("invalid_scope UNREGISTERED", denied.oauthError().error() + " " + denied.reason());
    }

    @Test
    void the_first_calls_of_a_process_find_all_loaded() {
        String loaded = Service.run(Path.of(System.getProperty("java.home"), "bin/java").toString(), "-cp",
                System.getProperty("java.class.path"), FirstCalls.class.getName(), shared.target(), AUDIENCE);
        assertTrue(Integer.parseInt(loaded.strip()) < 150, () -> loaded.strip() + " classes: they take the time of the first login");
    }

    @Test
    void an_unknown_audience_is_an_invalid_target() {
        AuthorizeQuestion question =
                AuthorizeQuestion.builder().scope("openid").audiences(List.of("https://other.example.com")).build();
        DeniedException denied = assertThrows(DeniedException.class, () -> client.checkAuthorizeScopes(question));
        assertEquals("invalid_target AUDIENCE_UNKNOWN", denied.oauthError().error() + " " + denied.reason());
    }

    @Test
    void a_batch_has_answers_denials_and_errors_in_order() {
        List<AuthorizeQuestion> checks = List.of(authorize("openid", "openid"), authorize("root", "root"),
                AuthorizeQuestion.builder().correlationId("x".repeat(129)).build());
        for (List<AuthorizeOutcome> outcomes :
                List.of(client.batchCheckAuthorizeScopes(checks), client.batchCheckAuthorizeScopesAsync(checks).join())) {
            assertEquals("openid", outcomes.get(0).orElseThrow().scope());
            assertEquals("FORBIDDEN", assertInstanceOf(DeniedException.class, outcomes.get(1).failure()).reason());
            UnavailableException failed = assertInstanceOf(UnavailableException.class, outcomes.get(2).failure());
            assertEquals("INVALID_ARGUMENT server_error", failed.code() + " " + failed.oauthError().error());
            assertThrows(UnavailableException.class, outcomes.get(2)::orElseThrow);
        }
    }

    @Test
    void descriptions_and_status() throws Exception {
        assertEquals(List.of(client.describeAudience(AUDIENCE)), client.describeAudiences());
        assertEquals(List.of("openid", "profile", "offline_access", "mcp:read"),
                client.describeAudience(AUDIENCE).advertisedScopes());
        UnavailableException unknown =
                assertThrows(UnavailableException.class, () -> client.describeAudience("https://other.example.com"));
        assertEquals("NOT_FOUND AUDIENCE_NOT_FOUND", unknown.code() + " " + unknown.reason());
        PolicyStatus status = client.policyStatus();
        assertEquals(1, status.audienceCount());
        assertTrue(status.conditions().stream()
                .anyMatch(condition -> condition.type().equals("PolicyAccepted") && condition.status().equals("True")));
        assertThrows(ArithmeticException.class, () -> client.watchPolicyStatus(state -> {
            assertEquals(1, state.audienceCount());
            throw new ArithmeticException("seen enough");
        }));
    }

    @Test
    void futures_give_the_same_answers() {
        List<CompletableFuture<RegistrationAnswer>> futures = Stream.generate(() -> client.expandRegistrationScopesAsync(registration("openid"))).limit(16).toList();
        futures.forEach(future -> assertEquals(GRANTED, future.join().scope()));
        assertEquals("openid", client.checkAuthorizeScopesAsync(authorize("openid", "openid")).join().scope());
        CompletionException error = assertThrows(
                CompletionException.class, () -> client.checkAuthorizeScopesAsync(authorize("root", "openid")).join());
        assertInstanceOf(DeniedException.class, error.getCause());
        error = assertThrows(CompletionException.class, () -> client.checkAuthorizeScopesAsync(
                AuthorizeQuestion.builder().correlationId("x".repeat(129)).build()).join());
        assertEquals("INVALID_ARGUMENT", assertInstanceOf(UnavailableException.class, error.getCause()).code());
    }

    @Test
    void refused_scopes_are_one_denial_however_many() {
        String scope = IntStream.range(0, 256).mapToObj(number -> "scope" + number).collect(Collectors.joining(" "));
        DeniedException denied = assertThrows(DeniedException.class, () -> client.checkAuthorizeScopes(authorize(scope, "openid")));
        assertEquals(256, denied.refused().size());
        assertTrue(denied.oauthError().errorDescription().length() <= 512);
        assertTrue(denied.oauthError().errorDescription().matches("[ -~&&[^\"\\\\]]*"));
    }

    static Stream<String> hostileScopes() {
        return Stream.of("mcp\"read", "openid\troot", "openid\nroot", "openid\0root", "ópenid", "openi\ud800", "\udc00openid", "a".repeat(513),
                "x".repeat(1_000_000), "openid ".repeat(200_000), "🙂".repeat(300_000),
                IntStream.range(0, 60_000).mapToObj(number -> "scope" + number).collect(Collectors.joining(" ")),
                "</script><script>alert(1)</script>");
    }

    @ParameterizedTest(name = "{index}")
    @MethodSource("hostileScopes")
    void hostile_scopes_are_denied_at_both_moments(String scope) {
        DeniedException denied =
                assertThrows(DeniedException.class, () -> client.expandRegistrationScopes(registration(scope)));
        assertEquals("invalid_client_metadata", denied.oauthError().error());
        denied = assertThrows(DeniedException.class, () -> client.checkAuthorizeScopes(authorize(scope, "openid")));
        assertEquals("invalid_scope", denied.oauthError().error());
        assertFalse(denied.refused().stream().anyMatch(item -> item.scope().contains("?")), denied.refused()::toString);
    }

    @Test
    void too_much_metadata_is_denied_and_odd_metadata_left_out() {
        Map<String, Object> odd = Map.of("client_name", 7, "redirect_uris", "https://x", "grant_types", Map.of("a", 1),
                "software_id", List.of("x"), "scope", List.of());
        assertEquals(new OAuthClient(null, ClientSource.DCR, null, null, null, null, null, null),
                OAuthClient.fromMetadata(odd, null, ClientSource.DCR));
        for (Map<String, ?> metadata : List.of(Map.of("client_name", "n".repeat(70_000)),
                Map.of("redirect_uris", Collections.nCopies(9_000, "https://a.example.com/" + "p".repeat(90))))) {
            OAuthClient large = OAuthClient.fromMetadata(metadata, "", ClientSource.DCR);
            DeniedException denied = assertThrows(DeniedException.class,
                    () -> client.expandRegistrationScopes(RegistrationQuestion.builder().client(large).build()));
            assertEquals("CLIENT_TOO_LARGE", denied.reason());
        }
        OAuthClient surrogate = OAuthClient.fromMetadata(Map.of("client_name", "\ud800"), "", ClientSource.DCR);
        assertEquals(GRANTED, client.expandRegistrationScopes(
                RegistrationQuestion.builder().scope("openid").client(surrogate).build()).scope());
    }

    @Test
    void down_and_back_within_a_second_or_so() {
        try (Service service = Service.started(folder); ScopewardClient client = ScopewardClient.create(service.target())) {
            answerOnceBack(client);
            service.stop();
            UnavailableException authorize =
                    assertThrows(UnavailableException.class, () -> client.checkAuthorizeScopes(authorize("openid", "openid")));
            assertEquals("UNAVAILABLE temporarily_unavailable 503",
                    authorize.code() + " " + authorize.oauthError().error() + " " + authorize.httpStatus());
            UnavailableException registration =
                    assertThrows(UnavailableException.class, () -> client.expandRegistrationScopes(registration("openid")));
            assertEquals("server_error 503", registration.oauthError().error() + " " + registration.httpStatus());
            assertEquals(1, registration.retryAfterSeconds().orElseThrow());
            assertFalse(registration.oauthError().errorDescription().contains(service.target()));
            service.start();
            assertEquals("openid", answerOnceBack(client));
        }
    }

    @Test
    void the_wait_between_two_tries_to_connect_does_not_grow() throws IOException {
        try (ServerSocket refusing = new ServerSocket(0, 50, InetAddress.getLoopbackAddress());
                ScopewardClient client = ScopewardClient.create("127.0.0.1:" + refusing.getLocalPort())) {
            assertThrows(UnavailableException.class, () -> client.checkAuthorizeScopes(authorize("openid", "openid")));
            long[] waits = new long[6];
            long last = 0;
            for (int i = 0; i <= waits.length; i++) {
                refusing.accept().close();
                long now = System.nanoTime();
                if (i > 0) {
                    waits[i - 1] = now - last;
                }
                last = now;
            }
            // The library alone waits 1.6 times as long each time.
            assertTrue(Math.min(waits[4], waits[5]) < 2 * Math.max(waits[0], waits[1]), () -> Arrays.toString(waits));
        }
    }

    /** The answer once there is one. */
    private static String answerOnceBack(ScopewardClient client) {
        UnavailableException last = null;
        for (long end = System.nanoTime() + Duration.ofSeconds(30).toNanos(); System.nanoTime() < end;) {
            try {
                return client.checkAuthorizeScopes(authorize("openid", "openid")).scope();
            } catch (UnavailableException error) {
                assertEquals("temporarily_unavailable", error.oauthError().error());
                last = error;
            }
        }
        throw new AssertionError("it did not come back", last);
    }

    @Test
    void a_stalled_server_ends_with_the_deadline() {
        try (Service service = Service.started(folder);
                ScopewardClient client = ScopewardClient.builder(service.target()).deadline(Duration.ofMillis(200)).build()) {
            answerOnceBack(client);
            service.pause();
            UnavailableException error =
                    assertThrows(UnavailableException.class, () -> client.checkAuthorizeScopes(authorize("openid", "openid")));
            assertEquals("DEADLINE_EXCEEDED temporarily_unavailable", error.code() + " " + error.oauthError().error());
            service.resume();
            assertEquals("openid", answerOnceBack(client));
        }
    }

    @Test
    void a_server_that_never_answers_a_connection_ends_with_the_deadline() throws IOException {
        try (ServerSocket silent = new ServerSocket(0, 50, InetAddress.getLoopbackAddress());
                ScopewardClient client = ScopewardClient.builder("127.0.0.1:" + silent.getLocalPort())
                        .deadline(Duration.ofMillis(50)).build()) {
            UnavailableException error =
                    assertThrows(UnavailableException.class, () -> client.expandRegistrationScopes(registration("openid")));
            assertEquals("server_error 503", error.oauthError().error() + " " + error.httpStatus());
        }
    }

    @Test
    void an_answer_from_before_a_field_is_still_one() throws Exception {
        try (OldServer old = new OldServer(shared.target(), answer -> { },
                        answer -> answer.clearEffectiveRegisteredScope().clearAudienceGrants());
                ScopewardClient client = patient(old.target())) {
            AuthorizeAnswer answer = client.checkAuthorizeScopes(authorize("openid mcp:write", "openid"));
            assertEquals("openid mcp:write", answer.scope());
            assertEquals("openid mcp:write", answer.effectiveRegisteredScope());
            assertThrows(DeniedException.class, () -> client.checkAuthorizeScopes(authorize("root", "openid")));
            UnavailableException error = assertThrows(UnavailableException.class, client::policyStatus);
            assertEquals("UNIMPLEMENTED server_error 500",
                    error.code() + " " + error.oauthError().error() + " " + error.httpStatus());
            assertTrue(error.retryAfterSeconds().isEmpty());
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"no decision", "unknown decision", "no scope"})
    void an_allow_that_is_not_understood_grants_nothing(String what) throws Exception {
        try (OldServer old = new OldServer(shared.target(), answer -> {
                    switch (what) {
                        case "no decision" -> answer.clearDecision();
                        case "unknown decision" -> answer.setDecisionValue(9);
                        default -> answer.clearScope();
                    }
                }, answer -> {
                    switch (what) {
                        case "no decision" -> answer.clearDecision();
                        case "unknown decision" -> answer.setDecisionValue(9);
                        default -> answer.clearScope();
                    }
                });
                ScopewardClient client = patient(old.target())) {
            for (UnavailableException error : List.of(
                    assertThrows(UnavailableException.class, () -> client.checkAuthorizeScopes(authorize("openid", "openid"))),
                    assertThrows(UnavailableException.class, () -> client.expandRegistrationScopes(registration("openid"))),
                    assertInstanceOf(UnavailableException.class, assertThrows(CompletionException.class,
                            () -> client.expandRegistrationScopesAsync(registration("openid")).join()).getCause()))) {
                assertEquals("server_error", error.oauthError().error());
            }
        }
    }

    @Test
    void a_denial_without_its_error_grants_nothing() throws Exception {
        try (OldServer old = new OldServer(shared.target(), answer -> { },
                        answer -> answer.setDecision(Decision.DECISION_DENY).clearOauthError());
                ScopewardClient client = patient(old.target())) {
            UnavailableException error =
                    assertThrows(UnavailableException.class, () -> client.checkAuthorizeScopes(authorize("root", "openid")));
            assertEquals("server_error", error.oauthError().error());
        }
    }

    @Test
    void a_server_that_says_it_does_not_serve_is_not_asked() throws Exception {
        try (OldServer old = new OldServer(shared.target(), answer -> { }, answer -> { });
                ScopewardClient client = ScopewardClient.create(old.target())) {
            answerOnceBack(client);
            old.health(ServingStatus.NOT_SERVING);
            UnavailableException error = null;
            int before = 0;
            for (int i = 0; error == null && i < 10_000; i++) {
                before = old.calls.get();
                try {
                    client.checkAuthorizeScopes(authorize("openid", "openid"));
                } catch (UnavailableException refused) {
                    error = refused;
                }
            }
            assertEquals("UNAVAILABLE", error == null ? "" : error.code());
            assertEquals(before, old.calls.get(), "health checking is off: the call was sent");
            old.health(ServingStatus.SERVING);
            assertEquals("openid", answerOnceBack(client));
        }
    }

    @Test
    void a_retry_is_made_for_unavailable_only() throws Exception {
        UnavailableException error = assertThrows(UnavailableException.class,
                () -> client.checkAuthorizeScopes(AuthorizeQuestion.builder().correlationId("x".repeat(129)).build()));
        assertEquals("INVALID_ARGUMENT LIMIT_EXCEEDED", error.code() + " " + error.reason());
        assertEquals("correlation_id", error.metadata().get("field"));
        for (Map.Entry<io.grpc.Status, Integer> expected :
                Map.of(io.grpc.Status.UNAVAILABLE, 3, io.grpc.Status.INTERNAL, 1, io.grpc.Status.RESOURCE_EXHAUSTED, 1).entrySet()) {
            try (OldServer old = new OldServer(shared.target(), answer -> { }, answer -> {
                        throw expected.getKey().asRuntimeException();
                    });
                    ScopewardClient client = patient(old.target())) {
                assertEquals(expected.getKey().getCode().name(), assertThrows(UnavailableException.class,
                        () -> client.checkAuthorizeScopes(authorize("openid", "openid"))).code());
                assertEquals(expected.getValue(), old.calls.get());
            }
        }
    }

    @Test
    void several_addresses_leave_out_one_that_is_down() throws IOException {
        try (Service first = Service.started(Files.createDirectory(folder.resolve("first")));
                Service second = Service.started(Files.createDirectory(folder.resolve("second")));
                ScopewardClient client = patient(first.target(), second.target())) {
            boolean both = false;
            for (int i = 0; !both && i < 1000; i++) {
                client.expandRegistrationScopes(registration("openid"));
                both = i % 10 == 9 && first.audit().size() > 1 && second.audit().size() > 1;
            }
            assertTrue(both, "only one of them was asked");
            first.stop();
            for (int i = 0; i < 10; i++) {
                assertEquals(GRANTED, client.expandRegistrationScopes(registration("openid")).scope());
            }
            assertThrows(IllegalStateException.class, () -> client.readAudit(AuditQuestion.builder().build(), record -> { }));
        }
    }

    @Test
    void unix_socket() {
        String target = "unix:" + folder.resolve("s");
        try (Service service = new Service(folder, target).start(); ScopewardClient client = patient(target)) {
            assertEquals(target, service.target());
            assertEquals(GRANTED, client.expandRegistrationScopes(registration("openid")).scope());
        }
    }

    private Service tls(Authority authority, String... more) {
        List<Path> files = authority.issue("server", "127.0.0.1", "scopeward.internal");
        return Service.started(folder, Stream.concat(
                Stream.of("--tls-cert-file", files.get(0).toString(), "--tls-private-key-file", files.get(1).toString()),
                Stream.of(more)).toArray(String[]::new));
    }

    @Test
    void tls_and_a_wrong_certificate() {
        Authority authority = new Authority(folder, "authority");
        Path other = new Authority(folder, "other").file();
        try (Service service = tls(authority)) {
            String target = "https://" + service.target();
            for (String name : new String[] {null, "scopeward.internal"}) {
                try (ScopewardClient client = ScopewardClient.builder(target).caFile(authority.file()).serverName(name)
                        .deadline(Duration.ofSeconds(60)).build()) {
                    assertEquals(GRANTED, client.expandRegistrationScopes(registration("openid")).scope());
                }
            }
            for (ScopewardClient.Builder builder : List.of(
                    ScopewardClient.builder(target).caFile(other),
                    ScopewardClient.builder(target).caFile(authority.file()).serverName("other.internal"),
                    ScopewardClient.builder(target))) {
                try (ScopewardClient client = builder.deadline(Duration.ofSeconds(60)).build()) {
                    UnavailableException error = assertThrows(
                            UnavailableException.class, () -> client.checkAuthorizeScopes(authorize("openid", "openid")));
                    assertEquals("UNAVAILABLE temporarily_unavailable", error.code() + " " + error.oauthError().error());
                }
            }
            for (Path broken : List.of(folder.resolve("absent.pem"), folder.resolve("log"))) {
                try (ScopewardClient client = ScopewardClient.builder(target).caFile(broken).build()) {
                    UnavailableException error = assertThrows(
                            UnavailableException.class, () -> client.checkAuthorizeScopes(authorize("openid", "openid")));
                    assertEquals("server_error", error.oauthError().error());
                }
            }
        }
    }

    @Test
    void a_client_certificate_that_was_replaced_is_read_again() {
        Authority authority = new Authority(folder, "authority");
        List<Path> files = new Authority(folder, "unknown").issue("caller", "caller");
        try (Service service = tls(authority, "--tls-client-ca-file", authority.file().toString());
                ScopewardClient client = ScopewardClient.builder("https://" + service.target()).caFile(authority.file())
                        .clientCertificate(files.get(0), files.get(1)).deadline(Duration.ofSeconds(60)).build()) {
            assertThrows(UnavailableException.class, () -> client.expandRegistrationScopes(registration("openid")));
            authority.issue("caller", "caller");
            assertEquals(GRANTED, client.expandRegistrationScopes(registration("openid")).scope());
        }
    }

    @Test
    void a_token_from_a_file_counts_at_once() throws Exception {
        byte[] digest = MessageDigest.getInstance("SHA-256").digest("good".getBytes(StandardCharsets.US_ASCII));
        Path access = Files.writeString(folder.resolve("access.yaml"), "callers:\n  - name: tests\n    match: [{tokenSha256: "
                + HexFormat.of().formatHex(digest) + "}]\n    may: [decide]\n");
        Path token = Files.writeString(folder.resolve("token"), "bad\n");
        try (Service service = Service.started(folder, "--access-file", access.toString());
                ScopewardClient client = ScopewardClient.builder(service.target()).tokenFile(token)
                        .deadline(Duration.ofSeconds(60)).build()) {
            UnavailableException error =
                    assertThrows(UnavailableException.class, () -> client.expandRegistrationScopes(registration("openid")));
            assertEquals("UNAUTHENTICATED server_error", error.code() + " " + error.oauthError().error());
            Files.writeString(token, "good\n");
            assertEquals(GRANTED, client.expandRegistrationScopes(registration("openid")).scope());
            assertEquals("PERMISSION_DENIED", assertThrows(UnavailableException.class, client::policyStatus).code());
            Files.delete(token);
            error = assertThrows(UnavailableException.class, () -> client.checkAuthorizeScopes(authorize("openid", "openid")));
            assertEquals("server_error", error.oauthError().error());
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"", "host", "http://host:1/path", "ftp://host:1", "https://u@host:1", "unix:", "a:1,b:2", "host:99999", "host:0", "[::1:1"})
    void what_is_not_a_target_is_refused_at_once(String target) {
        assertThrows(IllegalArgumentException.class, () -> ScopewardClient.create(target));
    }

    @Test
    void targets_are_what_the_command_line_takes() {
        assertEquals(new Endpoint("dns:///127.0.0.1:1", false, true, 1), Endpoint.of(List.of("127.0.0.1:1")));
        assertEquals(new Endpoint("dns:///[::1]:1", false, true, 1), Endpoint.of(List.of("http://[::1]:1")));
        assertEquals(new Endpoint("dns:///my_host:1", true, false, 1), Endpoint.of(List.of("https://my_host:1")));
        assertEquals(new Endpoint("dns:///host:1", false, false, 1), Endpoint.of(List.of("dns:///host:1")));
        assertEquals(new Endpoint("unix:/run/s", false, true, 1), Endpoint.of(List.of("unix:/run/s")));
        assertEquals(new Endpoint("scopeward-static:///10.0.0.1:1,10.0.0.2:2", false, false, 2),
                Endpoint.of(List.of("10.0.0.1:1", "10.0.0.2:2")));
        assertThrows(IllegalArgumentException.class, () -> ScopewardClient.builder().build());
        assertThrows(IllegalArgumentException.class, () -> ScopewardClient.builder("a:1", "b:2").build());
        assertThrows(IllegalArgumentException.class, () -> ScopewardClient.builder("https://10.0.0.1:1", "10.0.0.2:1").build());
    }

    @Test
    void settings_that_do_not_fit_are_refused_at_once() {
        for (ScopewardClient.Builder builder : List.of(
                ScopewardClient.builder("192.0.2.1:1").token("secret"),
                ScopewardClient.builder("192.0.2.1:1").tokenFile(folder),
                ScopewardClient.builder("127.0.0.1:1").token("secret").tokenFile(folder),
                ScopewardClient.builder("127.0.0.1:1").caFile(folder),
                ScopewardClient.builder("https://127.0.0.1:1").clientCertificate(folder, null),
                ScopewardClient.builder("https://127.0.0.1:1", "https://127.0.0.2:1"),
                ScopewardClient.builder("127.0.0.1:1").deadline(Duration.ZERO))) {
            assertThrows(IllegalArgumentException.class, builder::build);
        }
    }

    @Test
    void a_closed_client_answers_nothing() {
        ScopewardClient closed = ScopewardClient.create(shared.target());
        closed.close();
        assertThrows(UnavailableException.class, () -> closed.expandRegistrationScopes(registration("openid")));
        assertTrue(closed.expandRegistrationScopesAsync(registration("openid")).isCompletedExceptionally());
    }

    @Test
    void an_interrupted_thread_gets_no_grant_and_stays_interrupted() {
        Thread.currentThread().interrupt();
        UnavailableException error =
                assertThrows(UnavailableException.class, () -> client.checkAuthorizeScopes(authorize("openid", "openid")));
        assertEquals("CANCELLED temporarily_unavailable", error.code() + " " + error.oauthError().error());
        assertTrue(Thread.interrupted());
    }

    @Test
    void an_edited_policy_decides_the_next_question() throws Exception {
        try (Service service = Service.started(folder); ScopewardClient client = patient(service.target())) {
            assertEquals("profile offline_access", client.expandRegistrationScopes(registration("profile")).scope());
            service.writePolicy(Service.POLICY.replace("profile, ", ""));
            assertThrows(ArithmeticException.class, () -> client.watchPolicyStatus(status -> {
                if (status.active().generation() == 2) {
                    throw new ArithmeticException("it serves");
                }
            }));
            DeniedException denied = assertThrows(DeniedException.class, () -> client.checkAuthorizeScopes(authorize("profile", "profile")));
            assertEquals("UNSUPPORTED", denied.reason());
        }
    }
}
