package dev.scopeward.keycloak;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import dev.scopeward.keycloak.KeycloakServer.Answer;
import dev.scopeward.testing.Service;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

/** What an administrator of a realm sets in a client profile. */
class SettingsIT extends McpRealm {
    @Test
    void settings_that_are_wrong_are_refused_and_named_in_the_answer_and_the_log() throws InterruptedException {
        for (Map.Entry<String, Object> wrong : Map.<String, Object>of("audience", "https://mcp.example.com", "deadline", "300",
                "implicit-openid", "perhaps", "audiences", "https://mcp.example.com").entrySet()) {
            Answer answer = tryAsAdmin("PUT", "/client-policies/profiles", profiles(Map.of(wrong.getKey(), wrong.getValue())));
            assertEquals(400, answer.status(), answer::toString);
            assertTrue(json(answer).get("errorMessage").getAsString().contains("`" + wrong.getKey() + "`"), answer::toString);
            assertTrue(keycloak.logs(line -> line.contains("`" + wrong.getKey() + "`")), wrong::toString);
        }
    }

    @Test
    void a_hundred_edits_open_no_second_connection_and_no_thread() {
        JsonElement profiles = admin("GET", "/client-policies/profiles", null);
        JsonObject client = register("openid");
        long connections = connections();
        long threads = threads();
        try {
            for (int i = 1; i <= 100; i++) {
                admin("PUT", "/client-policies/profiles", profiles(Map.of("deadline", (5000 + i) + "ms")));
                assertEquals(Map.of(), authorizeAsGuest(client));
            }
            assertEquals(1, connections);
            assertEquals(connections, connections());
            assertTrue(threads() <= threads, () -> threads + " threads became " + threads());
        } finally {
            admin("PUT", "/client-policies/profiles", profiles);
        }
    }

    private static long connections() {
        String port = scopeward.target().substring(scopeward.target().lastIndexOf(':'));
        return Service.run("ss", "-tnpH", "state", "established").lines()
                .filter(line -> line.contains("pid=" + keycloak.pid() + ",") && line.split("\\s+")[3].endsWith(port))
                .count();
    }

    /** The threads of the executor. Others come and go as Keycloak likes. */
    private static long threads() {
        try (var tasks = Files.list(Path.of("/proc/" + keycloak.pid() + "/task"))) {
            return tasks.filter(task -> {
                try {
                    String name = Files.readString(task.resolve("comm"));
                    return name.startsWith("scopeward") || name.startsWith("grpc-");
                } catch (IOException ended) {
                    return false;
                }
            }).count();
        } catch (IOException error) {
            throw new IllegalStateException(error);
        }
    }
}
