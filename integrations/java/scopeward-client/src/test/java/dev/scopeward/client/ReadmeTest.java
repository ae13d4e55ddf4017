package dev.scopeward.client;

import static org.junit.jupiter.api.Assertions.assertEquals;

import dev.scopeward.testing.Service;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledIfEnvironmentVariable;
import org.junit.jupiter.api.io.TempDir;

/** The README is true: its programs compile and print what it says, with the classes of a project that has its dependency only. */
@EnabledIfEnvironmentVariable(named = "README_CLASSPATH", matches = ".+", disabledReason = "test.sh makes such a project")
class ReadmeTest {
    private static final Path README = Path.of("../README.md");
    private static final String ADDRESS = "127.0.0.1:50551";

    @TempDir
    Path folder;

    private String address = ADDRESS;

    private record Fence(List<String> words, List<String> lines) {}

    @Test
    void the_readme_runs() throws Exception {
        Service service = null;
        int commands = 0;
        try {
            for (Fence fence : fences()) {
                String last = fence.words.get(fence.words.size() - 1);
                if (last.startsWith("file=")) {
                    Path file = folder.resolve(last.substring("file=".length()));
                    Files.createDirectories(file.getParent());
                    Files.writeString(file, String.join("\n", fence.lines).replace(ADDRESS, address));
                } else if (last.equals("serve")) {
                    service = new Service(folder, "127.0.0.1:0");
                    service.writePolicy(Files.readString(folder.resolve("demo/mcp.yaml")));
                    address = service.start().target();
                } else if (fence.words.equals(List.of("console"))) {
                    commands += run(fence.lines);
                }
            }
        } finally {
            if (service != null) {
                service.close();
            }
        }
        assertEquals(3, commands);
    }

    private int run(List<String> lines) throws IOException, InterruptedException {
        int commands = 0;
        for (Iterator<List<String>> steps = steps(lines).iterator(); steps.hasNext(); commands++) {
            List<String> step = steps.next();
            ProcessBuilder builder = new ProcessBuilder("bash", "-c", step.get(0)).directory(folder.toFile()).redirectErrorStream(true);
            builder.environment().put("CLASSPATH", System.getenv("README_CLASSPATH"));
            builder.environment().put("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC");
            Process process = builder.start();
            List<String> printed = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8).lines()
                    .filter(line -> !line.startsWith("NOTE: Picked up"))
                    .toList();
            assertEquals(step.subList(1, step.size()), printed, step.get(0));
            assertEquals(0, process.waitFor());
        }
        return commands;
    }

    /** Each command with the lines that it prints. */
    private static List<List<String>> steps(List<String> lines) {
        List<List<String>> steps = new ArrayList<>();
        for (String line : lines) {
            if (line.startsWith("$ ")) {
                steps.add(new ArrayList<>(List.of(line.substring(2))));
            } else {
                steps.get(steps.size() - 1).add(line);
            }
        }
        return steps;
    }

    private static List<Fence> fences() throws IOException {
        List<Fence> fences = new ArrayList<>();
        Fence open = null;
        for (String line : Files.readAllLines(README)) {
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
