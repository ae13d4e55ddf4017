package dev.scopeward.testing;

import java.io.BufferedReader;
import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;

/** A {@code scopeward serve} on loopback: stops, starts again at the same place, and hangs when it is told to. */
public final class Service implements AutoCloseable {
    /** The resource of {@link #POLICY}. */
    public static final String AUDIENCE = "https://mcp.example.com";

    /** The policy of the tests. */
    public static final String POLICY = """
            audiences:
              https://mcp.example.com:
                scopesSupported: [openid, profile, offline_access, "mcp:read", "mcp:write", admin, root]
                baselineClientScopes: [offline_access]
                defaultClientScopes: [openid, "mcp:read"]
                privilegedScopes: [admin]
                forbiddenScopes: [root]
                authorization:
                  stepUpScopes: ["mcp:write"]
            """;

    private static final Pattern READY = Pattern.compile("grpc=(\\S+)");

    private final Path folder;
    private final Path policyFile;
    private final List<String> arguments;
    private String listen;
    private Process process;

    /**
     * Prepares a server; {@link #start} starts it.
     *
     * @param folder where its policy and its state are
     * @param listen the address, such as {@code 127.0.0.1:0}
     * @param arguments more arguments of {@code serve}
     */
    public Service(Path folder, String listen, String... arguments) {
        this.folder = folder;
        this.listen = listen;
        this.arguments = List.of(arguments);
        this.policyFile = folder.resolve("policies/mcp.yaml");
        writePolicy(POLICY);
    }

    /**
     * Starts a server with {@link #POLICY} on a free port of loopback.
     *
     * @param folder where its policy and its state are
     * @param arguments more arguments of {@code serve}
     * @return the server, which answers
     */
    public static Service started(Path folder, String... arguments) {
        return new Service(folder, "127.0.0.1:0", arguments).start();
    }

    /**
     * Returns the binary that {@code SCOPEWARD_BIN} names, else the one of this checkout, else the one of the path.
     *
     * @return what to run
     */
    public static String binary() {
        String named = System.getenv("SCOPEWARD_BIN");
        if (named != null) {
            return named;
        }
        for (Path up = Path.of("").toAbsolutePath(); up != null; up = up.getParent()) {
            Path built = up.resolve("target/debug/scopeward");
            if (Files.isExecutable(built)) {
                return built.toString();
            }
        }
        return "scopeward";
    }

    /**
     * Starts it, after a stop at the same address and with the same state.
     *
     * @return this, once it answers
     */
    public Service start() {
        List<String> command = new ArrayList<>(List.of(binary(), "serve", "--policies", policyFile.getParent().toString(),
                "--state-dir", folder.resolve("state").toString(), "--listen", listen, "--admin-listen", "127.0.0.1:0",
                "--debounce", "10ms", "--removal-quiet", "20ms"));
        command.addAll(arguments);
        ProcessBuilder builder = new ProcessBuilder(command)
                .redirectError(ProcessBuilder.Redirect.appendTo(folder.resolve("log").toFile()));
        builder.environment().keySet().removeIf(name -> name.startsWith("SCOPEWARD_"));
        try {
            process = builder.start();
            BufferedReader output = process.inputReader(StandardCharsets.UTF_8);
            String line = String.valueOf(output.readLine());
            Matcher ready = READY.matcher(line);
            if (!ready.find()) {
                throw new IllegalStateException("not ready: " + line + "\n" + Files.readString(folder.resolve("log")));
            }
            listen = ready.group(1);
            return this;
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    /**
     * Returns the address.
     *
     * @return such as {@code 127.0.0.1:41234}
     */
    public String target() {
        return listen;
    }

    /** Stops it, if it runs. */
    public void stop() {
        if (process == null) {
            return;
        }
        signal("CONT");
        process.destroy();
        try {
            if (!process.waitFor(30, TimeUnit.SECONDS)) {
                process.destroyForcibly();
                throw new IllegalStateException("did not stop");
            }
        } catch (InterruptedException error) {
            process.destroyForcibly();
            Thread.currentThread().interrupt();
        }
        process = null;
    }

    /** Stops it. */
    @Override
    public void close() {
        stop();
    }

    /** Lets it hang: connections stay, nothing is answered from now on. */
    public void pause() {
        signal("STOP");
        // On a busy machine a thread goes on for a moment.
        while (!isStopped()) {
            Thread.onSpinWait();
        }
    }

    private boolean isStopped() {
        try (Stream<Path> threads = Files.list(Path.of("/proc/" + process.pid() + "/task"))) {
            for (Path thread : threads.toList()) {
                // proc(5): the state follows the name in parentheses.
                if (!Files.readString(thread.resolve("stat")).contains(") T ")) {
                    return false;
                }
            }
            return true;
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    /** Ends {@link #pause}. */
    public void resume() {
        signal("CONT");
    }

    private void signal(String name) {
        run("kill", "-" + name, Long.toString(process.pid()));
    }

    /**
     * Replaces the policy. A running server takes it over when it notices.
     *
     * @param text the file
     */
    public void writePolicy(String text) {
        try {
            Files.createDirectories(policyFile.getParent());
            Path fresh = folder.resolve("fresh.yaml");
            Files.writeString(fresh, text);
            Files.move(fresh, policyFile, StandardCopyOption.REPLACE_EXISTING);
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    /**
     * Returns the audit lines so far, without denials of the last moment: nobody waits for their records.
     *
     * @return JSON objects
     */
    public List<String> audit() {
        return run(binary(), "audit", "tail", "--output", "json", "--server", listen).lines().toList();
    }

    /**
     * Runs a command to its end.
     *
     * @param command the command with its arguments
     * @return what it prints
     */
    public static String run(String... command) {
        try {
            Process process = new ProcessBuilder(command).redirectError(new File("/dev/null")).start();
            String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
            if (process.waitFor() != 0) {
                throw new IllegalStateException(String.join(" ", command) + ": exit " + process.exitValue() + "\n" + output);
            }
            return output;
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
            throw new IllegalStateException(error);
        }
    }
}
