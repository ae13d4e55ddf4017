package dev.scopeward.keycloak;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.scopeward.client.AuthorizeQuestion;
import dev.scopeward.client.RegistrationQuestion;
import dev.scopeward.client.TokenGrant;
import dev.scopeward.client.TokenQuestion;
import dev.scopeward.testing.Authority;
import dev.scopeward.testing.Service;
import dev.scopeward.v1.CheckAuthorizeScopesRequest;
import dev.scopeward.v1.CheckAuthorizeScopesResponse;
import dev.scopeward.v1.ScopePolicyServiceGrpc;
import io.grpc.Grpc;
import io.grpc.InsecureServerCredentials;
import io.grpc.Server;
import io.grpc.protobuf.services.HealthStatusManager;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** What Keycloak is to answer, by how Scopeward is reached: the server options, without a Keycloak. */
class PolicyGateTest {
    private static final Duration PATIENT = Duration.ofSeconds(60);
    private static final AuthorizeQuestion QUESTION = AuthorizeQuestion.builder().scope("openid").registeredScope("openid").build();

    @TempDir
    Path folder;

    @AfterEach
    void close() {
        PolicyGate.closeAll();
    }

    private static ServerOptions target(String target) {
        return new ServerOptions(target, null, null, null, null, null);
    }

    private static RefusedException refused(ServerOptions options, Duration deadline) {
        return assertThrows(RefusedException.class, () -> PolicyGate.of(options).ask(QUESTION, deadline));
    }

    @Test
    void tls_with_a_token_and_with_a_wrong_certificate() throws Exception {
        Authority authority = new Authority(folder, "authority");
        List<Path> pair = authority.issue("server", "localhost");
        Path token = Files.writeString(folder.resolve("token"), "a-token-of-at-least-32-characters-for-tests\n");
        Path other = new Authority(folder, "other").file();
        try (Service service = Service.started(folder, "--tls-cert-file", pair.get(0).toString(), "--tls-private-key-file", pair.get(1).toString())) {
            String target = "https://localhost:" + service.target().substring(service.target().lastIndexOf(':') + 1);
            ServerOptions right =
                    new ServerOptions(target, authority.file().toString(), null, null, null, token.toString());
            assertEquals("openid", PolicyGate.of(right).ask(QUESTION, PATIENT).scope());
            for (String file : new String[] {other.toString(), null, folder.resolve("missing").toString()}) {
                RefusedException wrong = refused(new ServerOptions(target, file, null, null, null, null), Duration.ofSeconds(2));
                assertTrue(List.of("temporarily_unavailable", "server_error").contains(wrong.error()), wrong::toString);
                assertEquals("the scope policy could not be asked; try again later", wrong.description());
            }
        }
    }

    @Test
    void options_that_are_wrong_are_named() {
        for (ServerOptions options : List.of(target(null), target(" "))) {
            String message = assertThrows(IllegalArgumentException.class, () -> PolicyGate.of(options)).getMessage();
            assertTrue(message.contains("spi-client-policy-executor--scopeward--target"), message);
        }
        String message = assertThrows(IllegalArgumentException.class, () -> PolicyGate.of(target("localhost"))).getMessage();
        assertTrue(message.contains("`localhost` is not a target"), message);
    }

    @Test
    void a_third_of_the_threads_may_ask_and_never_more_than_sixteen() {
        assertEquals(List.of(1, 1, 1, 6, 16, 16), IntStream.of(1, 3, 5, 20, 50, 200).map(PolicyGate::limit).boxed().toList());
    }

    @Test
    void one_gate_serves_all_that_have_the_same_options() {
        try (Service service = Service.started(folder)) {
            assertEquals(PolicyGate.of(target(service.target())), PolicyGate.of(target(service.target())));
        }
    }

    @Test
    void a_denial_of_256_scopes_is_one_short_line() {
        String scope = IntStream.range(0, 256).mapToObj(number -> "scope" + number).collect(Collectors.joining(" "));
        try (Service service = Service.started(folder)) {
            PolicyGate gate = PolicyGate.of(target(service.target()));
            RefusedException denied = assertThrows(RefusedException.class,
                    () -> gate.ask(RegistrationQuestion.builder().scope(scope).build(), PATIENT));
            assertEquals("invalid_client_metadata 400", denied.error() + " " + denied.status());
            assertTrue(denied.description().matches("[ -~&&[^\"\\\\]]{1,512}"), denied::description);
        }
    }

    @Test
    void an_answer_that_is_not_understood_is_no_grant() throws IOException {
        Server old = Grpc.newServerBuilderForPort(0, InsecureServerCredentials.create())
                .addService(new HealthStatusManager().getHealthService())
                .addService(new ScopePolicyServiceGrpc.ScopePolicyServiceImplBase() {
                    @Override
                    public void checkAuthorizeScopes(
                            CheckAuthorizeScopesRequest question, StreamObserver<CheckAuthorizeScopesResponse> observer) {
                        observer.onNext(CheckAuthorizeScopesResponse.newBuilder().setScope("openid").build());
                        observer.onCompleted();
                    }
                })
                .build()
                .start();
        try {
            RefusedException refused = refused(target("127.0.0.1:" + old.getPort()), PATIENT);
            assertEquals("server_error 500", refused.error() + " " + refused.status());
            // It is older than the question of tokens.
            TokenQuestion question = TokenQuestion.builder(TokenGrant.REFRESH).grantedScope("openid").build();
            refused = assertThrows(RefusedException.class,
                    () -> PolicyGate.of(target("127.0.0.1:" + old.getPort())).ask(question, PATIENT));
            assertEquals("server_error 500", refused.error() + " " + refused.status());
            assertTrue(refused.getCause().getMessage().contains("it is older than this client"), refused.getCause()::getMessage);
        } finally {
            old.shutdownNow();
        }
    }

    @Test
    void a_service_that_hangs_is_not_asked_by_all_and_one_that_is_back_is() throws Exception {
        try (Service service = Service.started(folder)) {
            ServerOptions options = target(service.target());
            PolicyGate.of(options);
            service.pause();
            for (int i = 0; i < CircuitBreaker.MAX_FAILURES + 3; i++) {
                RefusedException refused = refused(options, Duration.ofMillis(100));
                assertEquals("temporarily_unavailable 503", refused.error() + " " + refused.status());
                assertEquals(1, refused.retryAfterSeconds().orElseThrow());
            }
            service.resume();
            for (long end = System.nanoTime() + PATIENT.toNanos(); System.nanoTime() < end;) {
                try {
                    assertEquals("openid", PolicyGate.of(options).ask(QUESTION, PATIENT).scope());
                    return;
                } catch (RefusedException notYet) {
                    assertEquals("temporarily_unavailable", notYet.error());
                }
            }
            throw new AssertionError("it did not come back");
        }
    }
}
