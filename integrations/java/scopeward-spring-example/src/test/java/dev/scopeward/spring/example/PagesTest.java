package dev.scopeward.spring.example;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.scopeward.testing.Service;
import java.io.File;
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.regex.Pattern;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledIfEnvironmentVariable;
import org.junit.jupiter.api.io.TempDir;

/**
 * The README of the starter and the guide are true: their commands print what they say, in a new project that finds our packages where
 * {@code mvn install} puts them.
 *
 * <p>{@code file=PATH}, the last word, is written there; {@code console} is run, {@code console no-run} is not unless a further word is {@code java};
 * {@code serve} says that the command is a server. In what is printed {@code ...} stands for any text.
 */
@EnabledIfEnvironmentVariable(named = "PAGES_BIN", matches = ".+", disabledReason = "test.sh makes such a repository")
class PagesTest {
    private static final Path ROOT = Path.of("../../..").toAbsolutePath().normalize();
    private static final Pattern COLOUR = Pattern.compile("\u001b\\[[0-9;]*m");
    private static final String SCOPEWARD_PORT = "50551";
    private static final String SERVER_PORT = "9000";

    @TempDir
    Path folder;

    private final List<Process> processes = new ArrayList<>();
    private Service service;
    private String scopewardPort = SCOPEWARD_PORT;
    private String serverPort = SERVER_PORT;

    private record Fence(List<String> words, List<String> lines) {
        boolean has(String word) {
            return words.contains(word);
        }
    }

    @AfterEach
    void stop() throws InterruptedException {
        for (Process process : processes) {
            process.destroy();
            assertTrue(process.waitFor(30, TimeUnit.SECONDS), "the server did not stop");
        }
        if (service != null) {
            service.close();
        }
    }

    @Test
    void the_readme_runs() throws Exception {
        assertEquals(5, run(ROOT.resolve("integrations/java/scopeward-spring-boot-starter/README.md")));
    }

    @Test
    void the_guide_runs() throws Exception {
        assertEquals(8, run(ROOT.resolve("docs/guides/spring-authorization-server.md")));
    }

    /** Returns how many commands ran. */
    private int run(Path page) throws Exception {
        int commands = 0;
        for (Fence fence : fences(page)) {
            String last = fence.words.get(fence.words.size() - 1);
            if (last.startsWith("file=")) {
                Path file = folder.resolve(last.substring("file=".length()));
                Files.createDirectories(file.getParent());
                Files.writeString(file, here(String.join("\n", fence.lines) + "\n"));
            } else if (!fence.has("console") || fence.has("no-run") && !fence.has("java")) {
                continue;
            } else if (fence.has("serve")) {
                serve(fence.lines.get(0).substring(2));
            } else {
                for (List<String> step : steps(fence.lines)) {
                    commands++;
                    check(step);
                }
            }
        }
        return commands;
    }

    private void serve(String command) throws Exception {
        if (command.startsWith("scopeward serve")) {
            service = new Service(folder, "127.0.0.1:0");
            service.writePolicy(Files.readString(folder.resolve("demo/mcp.yaml")));
            scopewardPort = service.start().target().replaceFirst(".*:", "");
            try (ServerSocket free = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
                serverPort = Integer.toString(free.getLocalPort());
            }
            return;
        }
        File log = folder.resolve("server.log").toFile();
        Process server = bash("exec " + here(command)).redirectErrorStream(true).redirectOutput(log).start();
        processes.add(server);
        while (server.isAlive()) {
            try {
                new Socket(InetAddress.getLoopbackAddress(), Integer.parseInt(serverPort)).close();
                return;
            } catch (IOException notYet) {
                server.waitFor(100, TimeUnit.MILLISECONDS);
            }
        }
        throw new AssertionError(command + ":\n" + Files.readString(log.toPath()));
    }

    private void check(List<String> step) throws Exception {
        Process process = bash(here(step.get(0)).replaceFirst("^integrations/", ROOT + "/integrations/")).redirectErrorStream(true).start();
        String printed = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8).lines()
                .map(line -> COLOUR.matcher(line).replaceAll(""))
                .filter(line -> !line.isEmpty() && !line.startsWith("NOTE: Picked up"))
                .reduce("", (all, line) -> all + line + "\n");
        String expected = here(String.join("\n", step.subList(1, step.size())) + (step.size() > 1 ? "\n" : ""));
        String pattern = String.join(".*", Arrays.stream(expected.split("\\.\\.\\.", -1)).map(Pattern::quote).toList());
        if (!printed.matches(pattern)) {
            assertEquals(expected, printed, step.get(0));
        }
        assertEquals(0, process.waitFor(), step.get(0));
    }

    private ProcessBuilder bash(String command) {
        // Variables that a command sets are there for the next one.
        String variables = "[ ! -f .variables ] || . ./.variables; ";
        String keep = command.matches("[a-z]+=.*") ? "; declare -p " + command.replaceFirst("=.*", "") + " >> .variables" : "";
        ProcessBuilder builder = new ProcessBuilder("bash", "-c", variables + command + keep).directory(folder.toFile());
        builder.environment().merge("PATH", System.getenv("PAGES_BIN"), (path, first) -> first + File.pathSeparator + path);
        if (!command.startsWith(ROOT.toString())) {
            // It is for the example alone, and the binary warns of it.
            builder.environment().remove("SCOPEWARD_BIN");
        }
        builder.environment().put("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC");
        if (service != null) {
            builder.environment().put("SCOPEWARD_SERVER", service.target());
        }
        return builder;
    }

    private String here(String text) {
        return text.replace(SCOPEWARD_PORT, scopewardPort).replace(":" + SERVER_PORT, ":" + serverPort)
                .replace("port: " + SERVER_PORT, "port: " + serverPort);
    }

    /** Each command with the lines that it prints. */
    private static List<List<String>> steps(List<String> lines) {
        List<List<String>> steps = new ArrayList<>();
        for (String line : lines) {
            if (line.startsWith("$ ")) {
                steps.add(new ArrayList<>(List.of(line.substring(2))));
            } else if (line.startsWith("> ")) {
                List<String> step = steps.get(steps.size() - 1);
                step.set(0, step.get(0) + "\n" + line.substring(2));
            } else {
                steps.get(steps.size() - 1).add(line);
            }
        }
        return steps;
    }

    private static List<Fence> fences(Path page) throws IOException {
        List<Fence> fences = new ArrayList<>();
        Fence open = null;
        for (String line : Files.readAllLines(page)) {
            if (open != null && line.equals("```")) {
                fences.add(open);
                open = null;
            } else if (open != null) {
                open.lines.add(line);
            } else if (line.startsWith("```")) {
                open = new Fence(List.of(line.substring(3).split(" ")), new ArrayList<>());
            }
        }
        return fences;
    }
}
