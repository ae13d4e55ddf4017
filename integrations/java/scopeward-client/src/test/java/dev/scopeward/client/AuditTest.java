package dev.scopeward.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.JsonParser;
import dev.scopeward.testing.Service;
import dev.scopeward.v1.AuditServiceGrpc;
import dev.scopeward.v1.Client;
import dev.scopeward.v1.StreamAuditEventsRequest;
import dev.scopeward.v1.StreamAuditEventsResponse;
import io.grpc.Grpc;
import io.grpc.InsecureServerCredentials;
import io.grpc.Server;
import io.grpc.protobuf.services.HealthStatusManager;
import io.grpc.stub.StreamObserver;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The audit consumer against the real service: nothing lost, whatever happens to either side. */
class AuditTest {
    @TempDir
    Path folder;

    private Service service;
    private ScopewardClient client;

    @BeforeEach
    void start() {
        service = Service.started(folder);
        client = ScopewardClient.builder(service.target()).deadline(Duration.ofSeconds(60)).build();
    }

    @AfterEach
    void stop() {
        MessageStream.silence = Duration.ofSeconds(60);
        client.close();
        service.close();
    }

    /** Makes an expansion; waits until the client is connected again. */
    private void ask(String name) {
        OAuthClient tool = new OAuthClient(null, ClientSource.DCR, name, null, null, null, null, null);
        RegistrationQuestion question =
                RegistrationQuestion.builder().scope("openid").client(tool).correlationId("login-" + name).build();
        for (long end = System.nanoTime() + Duration.ofSeconds(30).toNanos(); System.nanoTime() < end;) {
            try {
                client.expandRegistrationScopes(question);
                return;
            } catch (UnavailableException error) {
                assertEquals("server_error", error.oauthError().error());
            }
        }
        throw new AssertionError("it did not come back");
    }

    private FileCursor cursor() {
        return new FileCursor(folder.resolve("cursor"));
    }

    private List<AuditRecord> read(AuditQuestion.Builder question) throws InterruptedException {
        List<AuditRecord> records = new ArrayList<>();
        client.readAudit(question.untilNewest().build(), records::add);
        return records;
    }

    /** The first records of the log, which are waited for. */
    private List<AuditRecord> first(int count) {
        List<AuditRecord> records = new ArrayList<>();
        assertThrows(InterruptedException.class, () -> client.readAudit(AuditQuestion.builder().build(), record -> {
            records.add(record);
            if (records.size() == count) {
                Thread.currentThread().interrupt();
            }
        }));
        return records;
    }

    /** The client names of the expansions from the cursor on. */
    private List<String> names() throws InterruptedException {
        return read(AuditQuestion.builder().cursor(cursor()).kinds(AuditEventKind.EXPANSION)).stream()
                .map(record -> assertInstanceOf(AuditEvent.class, record).client().clientName())
                .toList();
    }

    @Test
    void an_event_says_what_was_decided() throws Exception {
        ask("one");
        DeniedException denied = assertThrows(DeniedException.class, () -> client.checkAuthorizeScopes(
                new AuthorizeQuestion("root", "", List.of(Service.AUDIENCE), null, null)));
        // Nobody waits for the record of a denial, so it may be written a little later.
        List<AuditRecord> records = first(3);
        AuditEvent opened = assertInstanceOf(AuditEvent.class, records.get(0));
        AuditEvent expansion = assertInstanceOf(AuditEvent.class, records.get(1));
        AuditEvent denial = assertInstanceOf(AuditEvent.class, records.get(2));
        assertEquals("POLICY_CHANGE", opened.kind());
        assertTrue(opened.policyChange().accepted());
        assertEquals(new OAuthClient("", ClientSource.DCR, "one", "", "", null, null, ""), expansion.client());
        assertEquals("login-one openid null",
                expansion.correlationId() + " " + expansion.requestedScope() + " " + expansion.registeredScope());
        assertEquals(List.of(new AddedScope("offline_access", "BASELINE", "")), expansion.added());
        assertEquals("DENIAL FORBIDDEN ``", denial.kind() + " " + denial.reason() + " `" + denial.registeredScope() + "`");
        assertEquals(denied.decisionId(), denial.decisionId());
        assertEquals(service.audit().stream().map(JsonParser::parseString).toList(),
                records.stream().map(AuditRecord::toJson).map(JsonParser::parseString).toList());
    }

    @Test
    void it_resumes_after_the_last_event_that_was_handled() throws Exception {
        ask("one");
        assertEquals(List.of("one"), names());
        assertEquals(List.of(), names());
        ask("two");
        assertEquals(List.of("two"), names());
        assertEquals("", Service.run(Service.binary(), "audit", "tail", "--server", service.target(), "--cursor-file",
                folder.resolve("cursor").toString()));
    }

    @Test
    void an_event_that_was_not_handled_comes_again() throws Exception {
        ask("one");
        AuditQuestion question = AuditQuestion.builder().cursor(cursor()).kinds(AuditEventKind.EXPANSION).build();
        assertThrows(ArithmeticException.class, () -> client.readAudit(question, record -> {
            throw new ArithmeticException("the consumer crashed");
        }));
        assertEquals(List.of("one"), names());
    }

    @Test
    void following_survives_a_restart_of_the_server_and_ends_with_an_interrupt() throws Exception {
        BlockingQueue<String> names = new LinkedBlockingQueue<>();
        Thread reader = follow(client, names);
        ask("one");
        assertEquals("one", names.poll(30, TimeUnit.SECONDS));
        service.stop();
        service.start();
        ask("two");
        assertEquals("two", names.poll(30, TimeUnit.SECONDS));
        reader.interrupt();
        assertEquals("interrupted", names.poll(30, TimeUnit.SECONDS));
    }

    @Test
    void a_silent_stream_is_dead() throws Exception {
        MessageStream.silence = Duration.ofMillis(100);
        BlockingQueue<StreamAuditEventsRequest> resumed = new LinkedBlockingQueue<>();
        dev.scopeward.v1.AuditEvent event = dev.scopeward.v1.AuditEvent.newBuilder()
                .setLogId("log").setSequence(7).setClient(Client.newBuilder().setClientName("one")).build();
        Server silent = Grpc.newServerBuilderForPort(0, InsecureServerCredentials.create())
                .addService(new HealthStatusManager().getHealthService())
                .addService(new AuditServiceGrpc.AuditServiceImplBase() {
                    @Override
                    public void streamAuditEvents(
                            StreamAuditEventsRequest question, StreamObserver<StreamAuditEventsResponse> observer) {
                        if (question.getLogId().isEmpty()) {
                            observer.onNext(StreamAuditEventsResponse.newBuilder().setEvent(event).build());
                        } else {
                            resumed.add(question);
                        }
                    }
                })
                .build()
                .start();
        try (ScopewardClient reading = ScopewardClient.create("127.0.0.1:" + silent.getPort())) {
            BlockingQueue<String> names = new LinkedBlockingQueue<>();
            Thread reader = follow(reading, names);
            assertEquals("one", names.poll(1, TimeUnit.MINUTES));
            assertEquals(7, resumed.poll(1, TimeUnit.MINUTES).getAfterSequence());
            reader.interrupt();
            assertEquals("interrupted", names.poll(1, TimeUnit.MINUTES));
        } finally {
            silent.shutdownNow();
        }
    }

    private Thread follow(ScopewardClient client, BlockingQueue<String> names) {
        AuditQuestion question = AuditQuestion.builder().cursor(cursor()).kinds(AuditEventKind.EXPANSION).build();
        Thread reader = new Thread(() -> {
            try {
                client.readAudit(question, record -> names.add(((AuditEvent) record).client().clientName()));
            } catch (InterruptedException expected) {
                names.add("interrupted");
            }
        });
        reader.setDaemon(true);
        reader.start();
        return reader;
    }

    @Test
    void latest_and_a_time_leave_out_what_was_before() throws Exception {
        ask("one");
        assertEquals(0, read(AuditQuestion.builder().fromLatest()).size());
        assertEquals(0, read(AuditQuestion.builder().fromTime(Instant.now().plusSeconds(3600))).size());
        assertEquals(2, read(AuditQuestion.builder().fromTime(Instant.now().minusSeconds(3600))).size());
        assertEquals(0, read(AuditQuestion.builder().audiences(List.of("https://other.example.com"))).size());
        assertEquals(0, read(AuditQuestion.builder().fromLatest().cursor(cursor())).size());
        ask("two");
        assertEquals(List.of("two"), names());
    }

    @Test
    void a_gap_is_handed_out() throws Exception {
        Path other = Files.createDirectory(folder.resolve("other"));
        try (Service limited = Service.started(other, "--audit-denials-per-second", "1");
                ScopewardClient client = ScopewardClient.builder(limited.target()).deadline(Duration.ofSeconds(60)).build()) {
            // All at once, so that a slow machine is over the rate as well.
            AuthorizeQuestion question = AuthorizeQuestion.builder().scope("root").registeredScope("").build();
            List<CompletableFuture<AuthorizeAnswer>> denials =
                    Stream.generate(() -> client.checkAuthorizeScopesAsync(question)).limit(100).toList();
            denials.forEach(denial -> assertThrows(CompletionException.class, denial::join));
            List<AuditGap> gaps = new ArrayList<>();
            assertThrows(ArithmeticException.class, () -> client.readAudit(AuditQuestion.builder().build(), record -> {
                if (record instanceof AuditGap gap) {
                    gaps.add(gap);
                    throw new ArithmeticException("seen enough");
                }
            }));
            AuditGap gap = gaps.get(0);
            assertEquals("DENIAL_RATE", gap.reason());
            assertEquals(gap.count(), gap.reasonCounts().get("REASON_FORBIDDEN"));
            assertTrue(gap.count() > 0 && gap.toJson().startsWith("{\"gap\":{"), gap::toJson);
        }
    }

    @Test
    void a_cursor_outside_what_is_kept_stops() throws Exception {
        ask("one");
        String logId = read(AuditQuestion.builder()).get(0).logId();
        for (List<Object> wrong : List.<List<Object>>of(
                List.of(new AuditPosition(logId, 4_000), "OUT_OF_RANGE", "SEQUENCE_OUT_OF_RANGE"),
                List.of(new AuditPosition("0192e4a0-0000-7000-8000-000000000000", 1), "INVALID_ARGUMENT", "LOG_ID_FOREIGN"))) {
            cursor().save((AuditPosition) wrong.get(0));
            AuditStoppedException stopped = assertThrows(AuditStoppedException.class,
                    () -> client.readAudit(AuditQuestion.builder().cursor(cursor()).build(), record -> { }));
            assertEquals(wrong.subList(1, 3), List.of(stopped.code(), stopped.reason()));
            assertEquals(wrong.get(0), cursor().load());
        }
        for (String text : List.of("{", "[]", "{\"log_id\":1}", "")) {
            Files.writeString(folder.resolve("cursor"), text);
            assertTrue(assertThrows(IllegalStateException.class, cursor()::load).getMessage().contains("is not a cursor"));
        }
    }

    @Test
    void without_following_an_outage_is_said() {
        service.stop();
        assertThrows(UnavailableException.class, () -> read(AuditQuestion.builder()));
    }
}
