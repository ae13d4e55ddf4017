package dev.scopeward.keycloak;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import dev.scopeward.client.AuthorizeQuestion;
import dev.scopeward.client.ScopewardClient;
import dev.scopeward.testing.Service;
import dev.scopeward.testing.UserAgent;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Future;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledIfEnvironmentVariable;

/** With as many requests as {@code KEYCLOAK_BENCH} says, prints what a question adds to an authorize request, and what other requests feel of many logins. For a machine that is quiet. */
@EnabledIfEnvironmentVariable(named = "KEYCLOAK_BENCH", matches = "[0-9]+", disabledReason = "takes minutes, and nothing is asserted")
class BenchIT extends McpRealm {
    private static final int REQUESTS = Integer.parseInt(Objects.requireNonNullElse(System.getenv("KEYCLOAK_BENCH"), "1000"));

    private static final int LOGINS_AT_ONCE = 200;
    // One for all: making a client costs more than a login does, on the processors that Keycloak wants.
    private static final HttpClient BROWSERS = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();

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

    /** How long other requests took, sorted. */
    private record Others(long[] nanos) {
        double millis(int percent) {
            return nanos[nanos.length * percent / 100] / 1e6;
        }
    }

    /** What a burst of logins came to: how long other requests took meanwhile, and how many logins were refused. */
    private record Burst(List<Long> others, long refused) {}

    private interface Load {
        Burst run();
    }

    @Test
    void what_other_requests_feel() throws Exception {
        System.out.println("| another request | p50 | p99 | to quiet | to the same logins, answered | logins refused | CPU of Keycloak a login |\n"
                + "| --- | --- | --- | --- | --- | --- | --- |");
        JsonObject client = register("openid");
        Load logins = () -> logins(client);
        Others quiet = measure(() -> new Burst(List.of(time(BenchIT::other)), 0), "quiet", null, null);
        JsonElement policies = admin("GET", "/client-policies/policies", null);
        admin("PUT", "/client-policies/policies", Map.of("policies", List.of()));
        try {
            measure(logins, "while 200 log in at once, without the executor", quiet, null);
        } finally {
            admin("PUT", "/client-policies/policies", policies);
        }
        Others answered = measure(logins, "while 200 log in at once", quiet, null);
        try {
            measure(() -> {
                scopeward.resume();
                untilAnswered(client);
                scopeward.pause();
                return logins(client);
            }, "while 200 log in at once and Scopeward has begun to hang", quiet, answered);
            measure(logins, "while 200 log in at once and Scopeward goes on hanging", quiet, answered);
        } finally {
            scopeward.resume();
        }
    }

    private static void other() {
        keycloak.send("GET", REALM + "/.well-known/openid-configuration", null, null, null);
    }

    /** Begins 200 logins at once, and sends other requests one after the other until all are answered. */
    private static Burst logins(JsonObject client) {
        List<HttpRequest> requests = Stream.generate(() -> {
            Map<String, String> query = query(id(client), "openid");
            query.put("prompt", "none");
            String address = keycloak.url() + PROTOCOL + "/auth?" + UserAgent.encoded(UserAgent.parameters(query));
            return HttpRequest.newBuilder(URI.create(address)).build();
        }).limit(LOGINS_AT_ONCE).toList();
        List<CompletableFuture<HttpResponse<Void>>> logins =
                requests.stream().map(request -> BROWSERS.sendAsync(request, BodyHandlers.discarding())).toList();
        List<Long> others = new ArrayList<>();
        do {
            others.add(time(BenchIT::other));
        } while (!logins.stream().allMatch(Future::isDone));
        long refused = logins.stream()
                .map(login -> login.join().headers().firstValue("Location").orElse(""))
                .filter(location -> location.contains("error=temporarily_unavailable"))
                .count();
        return new Burst(others, refused);
    }

    private static Others measure(Load load, String name, Others quiet, Others answered) {
        List<Long> times = new ArrayList<>();
        long refused = 0;
        int runs = 0;
        while (times.size() < REQUESTS / 2) {
            times.addAll(load.run().others);
        }
        times.clear();
        Duration before = keycloak.cpu();
        for (; times.size() < REQUESTS; runs++) {
            Burst burst = load.run();
            times.addAll(burst.others);
            refused += burst.refused;
        }
        Others others = new Others(times.stream().mapToLong(Long::longValue).sorted().toArray());
        System.out.printf("| %s | %.1f ms | %.1f ms | %s | %s | %.0f | %s |%n", name, others.millis(50), others.millis(99),
                ratios(others, quiet), ratios(others, answered), (double) refused / runs,
                quiet == null ? "" : "%.1f ms".formatted(keycloak.cpu().minus(before).toNanos() / 1e6 / runs / LOGINS_AT_ONCE));
        return others;
    }

    private static String ratios(Others others, Others base) {
        return base == null ? "" : "%.1f, %.1f".formatted(others.millis(50) / base.millis(50), others.millis(99) / base.millis(99));
    }

    private static void report(String name, Runnable request) {
        IntStream.range(0, REQUESTS / 2).forEach(i -> request.run());
        long[] sorted = IntStream.range(0, REQUESTS).mapToLong(i -> time(request)).sorted().toArray();
        System.out.printf("| %s | %.1f ms | %.1f ms |%n", name, sorted[sorted.length / 2] / 1e6, sorted[sorted.length * 99 / 100] / 1e6);
    }

    private static long time(Runnable request) {
        long start = System.nanoTime();
        request.run();
        return System.nanoTime() - start;
    }
}
