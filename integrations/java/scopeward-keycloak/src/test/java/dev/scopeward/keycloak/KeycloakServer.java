package dev.scopeward.keycloak;

import dev.scopeward.testing.UserAgent;
import java.io.BufferedReader;
import java.io.BufferedWriter;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.function.Predicate;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** The real Keycloak of this build, with the jar of this build, on loopback. */
final class KeycloakServer implements AutoCloseable {
    private static final Path HOME = Path.of("target/keycloak/keycloak-" + System.getProperty("keycloak.version"));

    static final int DATABASE_CONNECTIONS = 12;

    private static final Pattern LISTENING = Pattern.compile("Listening on: http://127\\.0\\.0\\.1:([0-9]+)");

    private final HttpClient http = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
    private final List<String> log = new ArrayList<>();
    private final Process process;
    private volatile String url;

    /** An answer of the server: its status and its body. */
    record Answer(int status, Map<String, List<String>> headers, String body) {}

    KeycloakServer(String... arguments) throws IOException, InterruptedException {
        Files.copy(Path.of("target/scopeward-keycloak.jar"), HOME.resolve("providers/scopeward-keycloak.jar"),
                StandardCopyOption.REPLACE_EXISTING);
        List<String> command = new ArrayList<>(List.of(HOME.resolve("bin/kc.sh").toAbsolutePath().toString(), "start-dev", "--db=dev-mem",
                "--db-pool-max-size=" + DATABASE_CONNECTIONS, "--http-host=127.0.0.1", "--http-port=0", "--http-pool-max-threads=60", "--features=cimd,jwt-authorization-grant", "--log-level=INFO,dev.scopeward.keycloak.PolicyGate:DEBUG"));
        command.addAll(List.of(arguments));
        ProcessBuilder builder = new ProcessBuilder(command).redirectErrorStream(true);
        builder.environment().put("KC_BOOTSTRAP_ADMIN_USERNAME", "admin");
        builder.environment().put("KC_BOOTSTRAP_ADMIN_PASSWORD", "admin");
        if (System.getenv("KEYCLOAK_BENCH") == null) {
            builder.environment().put("JAVA_OPTS_APPEND", "-XX:TieredStopAtLevel=1");
        }
        process = builder.start();
        CountDownLatch ready = new CountDownLatch(1);
        Thread reader = new Thread(() -> read(process.inputReader(StandardCharsets.UTF_8), ready), "keycloak-log");
        reader.setDaemon(true);
        reader.start();
        if (!ready.await(10, TimeUnit.MINUTES) || url == null) {
            close();
            throw new IllegalStateException("Keycloak did not start:\n" + String.join("\n", log()));
        }
    }

    private void read(BufferedReader output, CountDownLatch ready) {
        try (output; BufferedWriter copy = Files.newBufferedWriter(Path.of("target/keycloak.log"))) {
            for (String line = output.readLine(); line != null; line = output.readLine()) {
                synchronized (log) {
                    log.add(line);
                }
                copy.append(line).append('\n').flush();
                Matcher listening = LISTENING.matcher(line);
                if (listening.find()) {
                    url = "http://localhost:" + listening.group(1);
                    ready.countDown();
                }
            }
        } catch (IOException ended) {
            // The process was ended.
        }
        ready.countDown();
    }

    String url() {
        return url;
    }

    long pid() {
        // The script starts Java as a process of its own or becomes it.
        return process.descendants().filter(child -> child.info().command().orElse("").endsWith("java")).findFirst()
                .map(ProcessHandle::pid).orElse(process.pid());
    }

    /** The time that it spent on a processor so far. */
    Duration cpu() {
        return ProcessHandle.of(pid()).flatMap(server -> server.info().totalCpuDuration()).orElseThrow();
    }

    /** Waits for a line of the log: an answer may be here before the line that was written ahead of it. */
    boolean logs(Predicate<String> line) throws InterruptedException {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(10);
        while (log().stream().noneMatch(line)) {
            if (System.nanoTime() > end) {
                return false;
            }
            Thread.sleep(10);
        }
        return true;
    }

    List<String> log() {
        synchronized (log) {
            return List.copyOf(log);
        }
    }

    Answer send(String method, String address, String token, String type, String body) {
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(address.startsWith("/") ? url + address : address))
                .timeout(Duration.ofSeconds(120))
                .method(method, body == null ? HttpRequest.BodyPublishers.noBody() : HttpRequest.BodyPublishers.ofString(body));
        if (token != null) {
            request.header("Authorization", "Bearer " + token);
        }
        if (type != null) {
            request.header("Content-Type", type);
        }
        try {
            HttpResponse<String> response = http.send(request.build(), HttpResponse.BodyHandlers.ofString());
            return new Answer(response.statusCode(), response.headers().map(), response.body());
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
            throw new IllegalStateException(error);
        }
    }

    Answer form(String address, Map<String, String> form) {
        return send("POST", address, null, "application/x-www-form-urlencoded", UserAgent.encoded(UserAgent.parameters(form)));
    }

    @Override
    public void close() {
        process.descendants().forEach(ProcessHandle::destroy);
        process.destroy();
        try {
            if (!process.waitFor(60, TimeUnit.SECONDS)) {
                process.destroyForcibly();
            }
        } catch (InterruptedException error) {
            process.destroyForcibly();
            Thread.currentThread().interrupt();
        }
    }
}
