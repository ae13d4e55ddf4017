package dev.scopeward.spring.example;

import com.google.gson.Gson;
import dev.scopeward.spring.ScopewardAutoConfiguration;
import dev.scopeward.testing.Service;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Stream;
import org.springframework.boot.SpringApplication;
import org.springframework.context.ConfigurableApplicationContext;

/**
 * Without arguments it starts Scopeward, the server and a client that logs in, and prints each step. {@code --latency N} measures N
 * requests in the place of that.
 *
 * <p>{@code --target HOST:PORT} serves until its standard input ends: asks the Scopeward there, and prints its port and its endpoints as
 * one line of JSON. {@code --base}, {@code --resource}, {@code --document} and {@code --fault} are for tests that put something in front of
 * it; the second and the third are not needed by this server.
 */
final class Main {
    private static final Set<String> OPTIONS = Set.of("--target", "--base", "--resource", "--document", "--fault", "--latency");

    private Main() {}

    public static void main(String[] arguments) throws IOException {
        Map<String, String> options = options(arguments);
        String target = options.get("--target");
        if (target != null) {
            serve(target, options.getOrDefault("--base", ""), options.getOrDefault("--fault", "none"));
            return;
        }
        Path folder = Files.createTempDirectory("scopeward-example");
        try (Service service = Service.started(folder)) {
            if (options.containsKey("--latency")) {
                Latency.measure(service.target(), Integer.parseInt(options.get("--latency")), System.out);
            } else {
                Demonstration.run(service.target(), System.out);
            }
        } finally {
            try (Stream<Path> files = Files.walk(folder)) {
                files.sorted((a, b) -> b.compareTo(a)).forEach(file -> file.toFile().delete());
            }
        }
    }

    private static Map<String, String> options(String[] arguments) {
        Map<String, String> options = new HashMap<>();
        for (int i = 0; i < arguments.length; i += 2) {
            if (!OPTIONS.contains(arguments[i]) || i + 1 == arguments.length) {
                System.err.println("usage: run.sh [--latency N | --target HOST:PORT [--base URL] [--fault none|no-adapter]]");
                System.exit(2);
            }
            options.put(arguments[i], arguments[i + 1]);
        }
        return options;
    }

    private static void serve(String target, String base, String fault) throws IOException {
        List<String> settings = new ArrayList<>(List.of("example.issuer=" + base, "example.approves=true", "scopeward.deadline=3s"));
        if (fault.equals("no-adapter")) {
            settings.add("spring.autoconfigure.exclude=" + ScopewardAutoConfiguration.class.getName());
        }
        // The log goes elsewhere: nobody reads on after the first line.
        PrintStream output = System.out;
        System.setOut(System.err);
        try (ConfigurableApplicationContext server = start(target, settings)) {
            Map<String, Object> ready = new LinkedHashMap<>();
            ready.put("port", Integer.parseInt(port(server)));
            ready.put("register", "/oauth2/register");
            ready.put("authorize", "/oauth2/authorize");
            ready.put("token", "/oauth2/token");
            output.println(new Gson().toJson(ready));
            while (System.in.read() >= 0) {
                // Until the end of the input.
            }
        }
    }

    /** Starts the server on a free port of loopback. */
    static ConfigurableApplicationContext start(String target, List<String> settings) {
        SpringApplication application = new SpringApplication(ExampleServer.class);
        List<String> arguments = new ArrayList<>(List.of("--server.port=0", "--server.address=127.0.0.1", "--spring.main.banner-mode=off",
                "--logging.level.root=warn", "--spring.security.user.name=user", "--spring.security.user.password=password",
                "--scopeward.target=" + target));
        settings.forEach(setting -> arguments.add("--" + setting));
        return application.run(arguments.toArray(String[]::new));
    }

    static String port(ConfigurableApplicationContext server) {
        return server.getEnvironment().getProperty("local.server.port");
    }

    static String base(ConfigurableApplicationContext server) {
        return "http://127.0.0.1:" + port(server);
    }
}
