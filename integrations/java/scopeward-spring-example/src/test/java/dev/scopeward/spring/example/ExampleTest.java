package dev.scopeward.spring.example;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import dev.scopeward.testing.UserAgent;
import dev.scopeward.testing.UserAgent.Answer;
import dev.scopeward.testing.Service;
import dev.scopeward.testing.Tool;
import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class ExampleTest {
    @TempDir
    Path folder;

    private Service service;

    @BeforeEach
    void start() {
        service = Service.started(folder);
    }

    @AfterEach
    void stop() {
        service.close();
    }

    private Process served(String... more) throws Exception {
        List<String> command = new ArrayList<>(List.of("java", "-XX:TieredStopAtLevel=1", "-cp", System.getProperty("java.class.path"),
                Main.class.getName(), "--target", service.target(), "--base", "http://localhost:4711", "--resource", Service.AUDIENCE,
                "--document", "{}"));
        command.addAll(List.of(more));
        return new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.DISCARD).start();
    }

    private static void end(Process process) throws Exception {
        process.getOutputStream().close();
        assertTrue(process.waitFor(60, TimeUnit.SECONDS), "did not end");
        assertEquals(0, process.exitValue());
    }

    @Test
    void it_serves_for_the_harness_of_the_clients_until_its_input_ends() throws Exception {
        Process process = served();
        JsonObject ready = JsonParser.parseString(process.inputReader().readLine()).getAsJsonObject();
        assertEquals("/oauth2/register", ready.get("register").getAsString());
        UserAgent browser = new UserAgent("http://127.0.0.1:" + ready.get("port").getAsInt(), Map.of());
        Answer document = browser.get("/.well-known/oauth-authorization-server");
        assertEquals("http://localhost:4711", document.json().get("issuer").getAsString());
        // No page is shown.
        Tool tool = Tool.of(browser, Tool.register(browser, "openid"));
        assertEquals(Set.of("openid", "mcp:write"), Tool.scopes(tool.login("openid mcp:write", "resource", Service.AUDIENCE)));
        assertTrue(browser.get("/oauth2/authorize?response_type=code&client_id=" + tool.clientId() + "&scope=root&redirect_uri="
                + UserAgent.REDIRECT_URI).redirected().containsKey("error"));
        end(process);
    }

    @Test
    void without_the_starter_the_server_does_something_else() throws Exception {
        Process process = served("--fault", "no-adapter");
        JsonObject ready = JsonParser.parseString(process.inputReader().readLine()).getAsJsonObject();
        UserAgent browser = new UserAgent("http://127.0.0.1:" + ready.get("port").getAsInt(), Map.of());
        assertEquals("invalid_scope", Tool.register(browser, "openid").json().get("error").getAsString());
        assertEquals(Set.of(), Tool.scopes(Tool.register(browser, null)));
        end(process);
    }

    @Test
    void it_measures_what_a_question_adds() {
        ByteArrayOutputStream printed = new ByteArrayOutputStream();
        Latency.measure(service.target(), 5, new PrintStream(printed, true, StandardCharsets.UTF_8));
        List<String> rows = printed.toString(StandardCharsets.UTF_8).lines().toList();
        assertEquals(7, rows.size(), rows.toString());
        assertTrue(rows.stream().skip(2).allMatch(row -> row.matches("\\| .* \\| [0-9.]+ ms \\| [0-9.]+ ms \\|")), rows.toString());
    }
}
