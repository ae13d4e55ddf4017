package dev.scopeward.keycloak;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import dev.scopeward.testing.Service;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** Many logins at once, while Scopeward answers and while it hangs. */
class LoadIT extends McpRealm {
    private static final int LOGINS = 200;

    private ExecutorService pool;
    private JsonObject client;
    private JsonElement profiles;

    @BeforeEach
    void prepare() {
        pool = Executors.newFixedThreadPool(LOGINS);
        client = register("openid");
        profiles = admin("GET", "/client-policies/profiles", null);
    }

    @AfterEach
    void finish() {
        pool.shutdownNow();
        admin("PUT", "/client-policies/profiles", profiles);
    }

    private List<Future<Map<String, String>>> logins() {
        return Stream.generate(() -> pool.submit(() -> authorizeAsGuest(client))).limit(LOGINS).toList();
    }

    @Test
    void the_limit_is_a_part_of_the_threads_that_the_server_has() {
        assertTrue(keycloak.log().stream().anyMatch(line -> line.endsWith("at most 16 of 60 threads ask at once")));
    }

    @Test
    void two_hundred_logins_at_once_are_all_answered() throws Exception {
        admin("PUT", "/client-policies/profiles", profiles(Map.of("deadline", "10s")));
        // On a machine that gives nobody a sixth of a second to answer, the service looks like one that hangs, and some are refused.
        for (int attempt = 1;; attempt++) {
            int refused = 0;
            for (Future<Map<String, String>> login : logins()) {
                Map<String, String> problem = login.get();
                if (!problem.isEmpty()) {
                    assertUnavailable(problem.get("error"));
                    refused++;
                }
            }
            if (refused == 0) {
                return;
            }
            String told = refused + " logins were refused in attempt " + attempt;
            assertTrue(attempt < 5, told);
        }
    }

    /** How many threads of Keycloak ask Scopeward, and how many wait until they may. */
    private record Held(long asking, long waiting) {
        static Held now() {
            String dump = Service.run(Path.of(System.getProperty("java.home"), "bin/jcmd").toString(), Long.toString(keycloak.pid()), "Thread.print");
            List<String> threads = Arrays.stream(dump.split("\n\n")).filter(thread -> thread.contains("PolicyGate.guarded(")).toList();
            return new Held(threads.stream().filter(thread -> thread.contains("ScopewardClient.checkAuthorizeScopes(")).count(),
                    threads.stream().filter(thread -> thread.contains("CircuitBreaker.hasPlace(")).count());
        }
    }

    /** One needs a thread alone, the other one a connection to the database as well, of which there are fewer than questions. */
    private static void assertOthersAreServed() {
        assertEquals(200, keycloak.send("GET", REALM + "/.well-known/openid-configuration", null, null, null).status());
        assertTrue(KeycloakServer.DATABASE_CONNECTIONS < PolicyGate.MAX_IN_FLIGHT);
        admin("GET", "/users?username=" + UUID.randomUUID(), null);
    }

    @Test
    void a_service_that_hangs_holds_few_threads() throws Exception {
        admin("PUT", "/client-policies/profiles", profiles(Map.of("deadline", "10s")));
        scopeward.pause();
        try {
            List<Future<Map<String, String>>> logins = logins();
            // Those that are asked wait for the deadline, and nobody waits for them.
            for (boolean areRefused = false; !areRefused;) {
                areRefused = logins.stream().filter(Future::isDone).count() >= LOGINS - PolicyGate.MAX_IN_FLIGHT;
                Held held = Held.now();
                assertTrue(held.asking <= PolicyGate.MAX_IN_FLIGHT && (held.waiting == 0 || !areRefused), held::toString);
                assertOthersAreServed();
            }
            for (Future<Map<String, String>> login : logins) {
                if (login.isDone()) {
                    assertUnavailable(login.get().get("error"));
                }
            }
        } finally {
            scopeward.resume();
        }
        untilAnswered(client);
    }

    @Test
    void a_service_that_hangs_holds_no_thread_once_that_is_known() throws Exception {
        int before = keycloak.log().size();
        scopeward.pause();
        try {
            for (Future<Map<String, String>> login : logins()) {
                assertUnavailable(login.get().get("error"));
            }
            List<String> log = keycloak.log().stream().skip(before).toList();
            int opened = indexOf(log, "does not answer: requests are refused");
            long waited = log.stream().limit(opened).filter(line -> line.contains("no answer from Scopeward")).count();
            assertTrue(waited < PolicyGate.MAX_IN_FLIGHT + CircuitBreaker.MAX_FAILURES, () -> waited + " logins waited for the deadline");
            long asked = log.stream().filter(line -> line.contains("no answer from Scopeward")).count();
            long events = log.stream().filter(line -> line.contains("type=\"LOGIN_ERROR\"")).count();
            assertTrue(events <= asked, () -> events + " events for " + asked + " questions");

            List<Future<Map<String, String>>> logins = logins();
            for (boolean isDone = false; !isDone;) {
                isDone = logins.stream().allMatch(Future::isDone);
                Held held = Held.now();
                assertTrue(held.asking <= 1 && held.waiting == 0, held::toString);
                assertOthersAreServed();
            }
            for (Future<Map<String, String>> login : logins) {
                assertUnavailable(login.get().get("error"));
            }
        } finally {
            scopeward.resume();
        }
        untilAnswered(client);
        assertTrue(keycloak.log().stream().skip(before).anyMatch(line -> line.contains("requests were refused while Scopeward at")));
        assertGranted(login(id(client), "openid"), "openid");
    }

    private static int indexOf(List<String> log, String text) {
        for (int i = 0; i < log.size(); i++) {
            if (log.get(i).contains(text)) {
                return i;
            }
        }
        throw new AssertionError(text + " is not in the log");
    }
}
