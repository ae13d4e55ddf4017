package dev.scopeward.keycloak;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import dev.scopeward.client.AuthorizeQuestion;
import dev.scopeward.client.ScopewardClient;
import dev.scopeward.testing.Service;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledIfEnvironmentVariable;

/** With as many requests as {@code KEYCLOAK_BENCH} says, prints what a question adds to an authorize request, and what other requests feel of many logins. For a machine that is quiet. */
@EnabledIfEnvironmentVariable(named = "KEYCLOAK_BENCH", matches = "[0-9]+", disabledReason = "takes minutes, and nothing is asserted")
class BenchIT extends McpRealm {
    private static final int REQUESTS = Integer.parseInt(Objects.requireNonNullElse(System.getenv("KEYCLOAK_BENCH"), "1000"));

    /** A process of its own: makes a client and asks once. */
    static final class Cold {
        private Cold() {}

        public static void main(String[] args) {
            long start = System.nanoTime();
            try (ScopewardClient client = ScopewardClient.create(args[0])) {
                long made = System.nanoTime();
                client.checkAuthorizeScopes(QUESTION);
                System.out.printf("| cold: the client is made | %.0f ms | |%n", (made - start) / 1e6);
                System.out.printf("| cold: the first question after that | %.0f ms | |%n", (System.nanoTime() - made) / 1e6);
            }
        }
    }

    private static final AuthorizeQuestion QUESTION =
            AuthorizeQuestion.builder().scope("openid").registeredScope("openid").audiences(List.of(Service.AUDIENCE)).build();

    @Test
    void what_a_question_adds() {
        System.out.println("| | p50 | p99 |\n| --- | --- | --- |");
        System.out.print(Service.run(Path.of(System.getProperty("java.home"), "bin/java").toString(), "-cp",
                System.getProperty("java.class.path"), Cold.class.getName(), scopeward.target()));
        try (ScopewardClient client = ScopewardClient.create(scopeward.target())) {
            report("warm: a question", () -> client.checkAuthorizeScopes(QUESTION));
        }
        JsonObject client = register("openid");
        report("authorize request, with the executor", () -> authorizeAsGuest(client));
        Object policies = admin("GET", "/client-policies/policies", null);
        admin("PUT", "/client-policies/policies", Map.of("policies", List.of()));
        try {
            report("authorize request, without", () -> authorizeAsGuest(client));
        } finally {
            admin("PUT", "/client-policies/policies", policies);
        }
    }

    @Test
    void what_other_requests_feel() throws Exception {
        System.out.println("| another request | p50 | p99 |\n| --- | --- | --- |");
        JsonObject client = register("openid");
        report("quiet", BenchIT::other);
        JsonElement policies = admin("GET", "/client-policies/policies", null);
        admin("PUT", "/client-policies/policies", Map.of("policies", List.of()));
        try {
            reportDuringLogins("while 200 log in at once, without the executor", client, () -> { });
        } finally {
            admin("PUT", "/client-policies/policies", policies);
        }
        reportDuringLogins("while 200 log in at once", client, () -> { });
        try {
            reportDuringLogins("while 200 log in at once and Scopeward has begun to hang", client, () -> {
                scopeward.resume();
                untilAnswered(client);
                scopeward.pause();
            });
            reportDuringLogins("while 200 log in at once and Scopeward goes on hanging", client, () -> { });
            report("while Scopeward hangs and one logs in again and again", () -> {
                authorizeAsGuest(client);
            }, BenchIT::other);
        } finally {
            scopeward.resume();
        }
    }

    private static void other() {
        keycloak.send("GET", REALM + "/.well-known/openid-configuration", null, null, null);
    }

    private static void reportDuringLogins(String name, JsonObject client, Runnable before) throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(200);
        try {
            List<Long> times = new ArrayList<>();
            for (boolean isWarm = false; times.size() < REQUESTS / 2; isWarm = true) {
                before.run();
                List<Future<Map<String, String>>> logins =
                        Stream.generate(() -> pool.submit(() -> authorizeAsGuest(client))).limit(200).toList();
                do {
                    long time = time(BenchIT::other);
                    if (isWarm) {
                        times.add(time);
                    }
                } while (!logins.stream().allMatch(Future::isDone));
            }
            print(name, times.stream().mapToLong(Long::longValue).sorted().toArray());
        } finally {
            pool.shutdownNow();
        }
    }

    private static void report(String name, Runnable request) {
        report(name, () -> { }, request);
    }

    private static void report(String name, Runnable before, Runnable request) {
        IntStream.range(0, REQUESTS / 2).forEach(i -> request.run());
        print(name, IntStream.range(0, REQUESTS).mapToLong(i -> {
            before.run();
            return time(request);
        }).sorted().toArray());
    }

    private static long time(Runnable request) {
        long start = System.nanoTime();
        request.run();
        return System.nanoTime() - start;
    }

    private static void print(String name, long[] sorted) {
        System.out.printf("| %s | %.1f ms | %.1f ms |%n", name, sorted[sorted.length / 2] / 1e6, sorted[sorted.length * 99 / 100] / 1e6);
    }
}
