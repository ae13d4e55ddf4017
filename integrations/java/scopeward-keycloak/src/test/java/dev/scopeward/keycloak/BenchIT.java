package dev.scopeward.keycloak;

import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.JsonObject;
import dev.scopeward.client.AuthorizeQuestion;
import dev.scopeward.client.ScopewardClient;
import dev.scopeward.testing.Service;
import dev.scopeward.testing.UserAgent;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.locks.LockSupport;
import java.util.function.Supplier;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledIfEnvironmentVariable;

/**
 * With as many requests as {@code KEYCLOAK_BENCH} says, prints what a question adds to an authorize request, and what other requests feel
 * of many logins. For a machine that is quiet.
 */
@EnabledIfEnvironmentVariable(named = "KEYCLOAK_BENCH", matches = "[0-9]+", disabledReason = "takes minutes, on a machine that is quiet")
class BenchIT extends McpRealm {
    private static final int REQUESTS = Integer.parseInt(Objects.requireNonNullElse(System.getenv("KEYCLOAK_BENCH"), "1000"));

    private static final int LOGINS_AT_ONCE = 200;
    // One for all: making a client costs more than a login does, on the processors that Keycloak wants.
    private static final HttpClient BROWSERS = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
    private static final HttpClient OTHERS = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
    private static final String OTHER = REALM + "/.well-known/openid-configuration";

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

    /**
     * What goes on while other requests are timed, and how long these took. Each round has a window of the same length for every load, in
     * which a request is sent at a fixed interval, whether or not those before it are answered.
     */
    private static final class Load {
        private static final Duration WINDOW = Duration.ofMillis(400);
        private static final Duration INTERVAL = Duration.ofMillis(5);

        final String name;
        private final Runnable before;
        private final Supplier<Stream<HttpRequest>> logins;
        private final List<Long> others = new ArrayList<>();
        private final List<Long> durations = new ArrayList<>();
        private Duration cpu = Duration.ZERO;
        private long refused;

        Load(String name, Runnable before, Supplier<Stream<HttpRequest>> logins) {
            this.name = name;
            this.before = before;
            this.logins = logins;
        }

        void run() {
            before.run();
            List<HttpRequest> requests = logins.get().toList();
            Duration cpuBefore = keycloak.cpu();
            long begun = System.nanoTime();
            List<CompletableFuture<String>> answers = requests.stream()
                    .map(request -> BROWSERS.sendAsync(request, BodyHandlers.discarding())
                            .thenApply(answer -> answer.headers().firstValue("Location").orElse("")))
                    .toList();
            CompletableFuture<Long> all = CompletableFuture.allOf(answers.toArray(CompletableFuture<?>[]::new))
                    .thenApply(done -> System.nanoTime() - begun);
            List<CompletableFuture<Long>> times = new ArrayList<>();
            long first = System.nanoTime();
            for (long due = first; due - first < WINDOW.toNanos(); due += INTERVAL.toNanos()) {
                for (long left = due - System.nanoTime(); left > 0; left = due - System.nanoTime()) {
                    LockSupport.parkNanos(left);
                }
                long sent = due;
                times.add(OTHERS.sendAsync(HttpRequest.newBuilder(URI.create(keycloak.url() + OTHER)).build(), BodyHandlers.discarding())
                        .thenApply(answer -> System.nanoTime() - sent));
            }
            times.forEach(time -> others.add(time.join()));
            durations.add(all.join());
            cpu = cpu.plus(keycloak.cpu().minus(cpuBefore));
            refused += answers.stream().filter(location -> location.join().contains("error=temporarily_unavailable")).count();
        }

        /** Forgets what was measured. Returns the median. */
        double forget() {
            double median = millis(others, 50);
            others.clear();
            durations.clear();
            cpu = Duration.ZERO;
            refused = 0;
            return median;
        }

        double p50() {
            return millis(others, 50);
        }

        double p99() {
            return millis(others, 99);
        }

        void print(Load quiet) {
            int rounds = durations.size();
            System.out.printf("| %s | %.1f ms | %.1f ms | %.1f, %.1f | %.0f | %.0f ms | %.0f ms |%n", name, p50(), p99(), p50() / quiet.p50(),
                    p99() / quiet.p99(), (double) refused / rounds, millis(durations, 50), cpu.toMillis() / (double) rounds);
        }

        private static double millis(List<Long> nanos, int percent) {
            return nanos.stream().mapToLong(Long::longValue).sorted().skip((long) nanos.size() * percent / 100).findFirst().orElseThrow() / 1e6;
        }
    }

    @Test
    void what_other_requests_feel() throws Exception {
        Service.run("env", "KEYCLOAK_URL=" + keycloak.url(), "REALM=plain", "SCOPES=" + SCOPES, "EXECUTOR=", "examples/realm.sh");
        JsonObject plain = json(keycloak.send(
                "POST", "/realms/plain/clients-registrations/openid-connect", null, JSON, GSON.toJson(metadata("openid"))));
        JsonObject client = register("openid");
        Runnable answered = () -> {
            scopeward.resume();
            untilAnswered(client);
        };
        Runnable hung = () -> {
            answered.run();
            scopeward.pause();
        };
        Supplier<Stream<HttpRequest>> logins = () -> logins(PROTOCOL, client, "openid");
        Load quiet = new Load("quiet", answered, Stream::empty);
        Load refused = new Load("200 are refused by Keycloak itself, in a realm that does not ask", answered,
                () -> logins("/realms/plain/protocol/openid-connect", plain, "admin"));
        Load plainLogins = new Load("200 log in, in a realm that does not ask", answered,
                () -> logins("/realms/plain/protocol/openid-connect", plain, "openid"));
        Load answeredLogins = new Load("200 log in", answered, logins);
        Load beginning = new Load("200 log in and Scopeward has begun to hang", hung, logins);
        Load hanging = new Load("200 log in and Scopeward goes on hanging", () -> { }, logins);
        List<Load> loads = List.of(quiet, refused, plainLogins, answeredLogins, beginning, hanging);
        try {
            // The server is warm when its medians do not fall any more.
            List<Double> medians = loads.stream().map(load -> Double.MAX_VALUE).toList();
            for (int i = 0; i < 10; i++) {
                IntStream.range(0, 3).forEach(round -> loads.forEach(Load::run));
                List<Double> last = medians;
                medians = loads.stream().map(Load::forget).toList();
                System.out.println("medians in ms while warming up: " + medians);
                if (medians.get(0) > 0.9 * last.get(0) && medians.get(1) > 0.9 * last.get(1)) {
                    break;
                }
            }
            IntStream.range(0, Math.max(3, REQUESTS / 20)).forEach(round -> loads.forEach(Load::run));
        } finally {
            scopeward.resume();
        }
        System.out.println("| another request, while | p50 | p99 | to quiet | logins refused | all answered after | CPU of Keycloak |\n"
                + "| --- | --- | --- | --- | --- | --- | --- |");
        loads.forEach(load -> load.print(quiet));
        for (Load load : List.of(beginning, hanging)) {
            // Where requests that ask nobody do as much, it is the burst that does it, and not the question.
            assertTrue(load.p50() <= Math.max(2 * quiet.p50(), refused.p50()), load.name);
            assertTrue(load.p99() <= Math.max(2 * quiet.p99(), refused.p99()), load.name);
        }
    }

    private static Stream<HttpRequest> logins(String protocol, JsonObject client, String scope) {
        return Stream.generate(() -> {
            Map<String, String> query = query(id(client), scope);
            query.put("prompt", "none");
            String address = keycloak.url() + protocol + "/auth?" + UserAgent.encoded(UserAgent.parameters(query));
            return HttpRequest.newBuilder(URI.create(address)).build();
        }).limit(LOGINS_AT_ONCE);
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
