package dev.scopeward.keycloak;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.Gson;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import dev.scopeward.client.ScopewardClient;
import dev.scopeward.keycloak.KeycloakServer.Answer;
import dev.scopeward.testing.Service;
import dev.scopeward.testing.UserAgent;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.UUID;
import java.util.concurrent.CancellationException;
import org.junit.jupiter.api.extension.BeforeAllCallback;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.extension.ExtensionContext;

/** A realm of the real Keycloak that asks the real service, and what clients and administrators do there. */
@ExtendWith(McpRealm.Servers.class)
abstract class McpRealm {
    static final String REALM = "/realms/mcp";
    static final String PROTOCOL = REALM + "/protocol/openid-connect";
    static final String DROP = "https://drop.example.com";
    private static final String VERIFIER = "0123456789012345678901234567890123456789012";
    static final String SCOPES = "openid offline_access mcp:read mcp:write admin root";
    static final String JSON = "application/json";
    static final Gson GSON = new Gson();

    static final String POLICY = Service.POLICY + """
              https://drop.example.com:
                scopesSupported: [openid, offline_access, "mcp:read", "mcp:write"]
                authorization: {unsupportedScopes: drop, unregisteredScopes: drop}
            defaultAudience: https://mcp.example.com
            registrationAudiences: [https://mcp.example.com]
            """;

    static Service scopeward;
    static KeycloakServer keycloak;
    private static String adminToken;

    /** Starts the servers before the first class of tests, and stops them after the last. */
    static final class Servers implements BeforeAllCallback, AutoCloseable {
        @Override
        public void beforeAll(ExtensionContext context) {
            context.getRoot().getStore(ExtensionContext.Namespace.GLOBAL).getOrComputeIfAbsent(Servers.class, key -> start());
        }

        private static Servers start() {
            Servers servers = new Servers();
            try {
                Path folder = Files.createTempDirectory(Path.of("target"), "servers");
                scopeward = new Service(folder, "127.0.0.1:0");
                scopeward.writePolicy(POLICY);
                scopeward.start();
                keycloak = new KeycloakServer("--spi-client-policy-executor--scopeward--target=" + scopeward.target());
                Service.run("env", "KEYCLOAK_URL=" + keycloak.url(), "SCOPES=" + SCOPES, "examples/realm.sh");
                admin("PUT", "", Map.of("eventsEnabled", true));
                admin("POST", "/users", Map.of("username", "tester", "enabled", true, "email", "tester@example.com", "firstName", "A",
                        "lastName", "Tester", "emailVerified", true,
                        "credentials", List.of(Map.of("type", "password", "value", "secret", "temporary", false))));
                return servers;
            } catch (Exception error) {
                servers.close();
                throw new IllegalStateException("the servers did not start", error);
            }
        }

        @Override
        public void close() {
            if (keycloak != null) {
                keycloak.close();
            }
            if (scopeward != null) {
                scopeward.close();
            }
        }
    }

    static JsonElement admin(String method, String path, Object body) {
        Answer answer = tryAsAdmin(method, path, body);
        assertTrue(answer.status() < 300, () -> method + " " + path + ": " + answer);
        return answer.body().isEmpty() ? null : JsonParser.parseString(answer.body());
    }

    static Answer tryAsAdmin(String method, String path, Object body) {
        for (boolean isFresh = adminToken == null;; isFresh = true) {
            if (isFresh) {
                adminToken = json(keycloak.form("/realms/master/protocol/openid-connect/token", Map.of("grant_type", "password",
                        "client_id", "admin-cli", "username", "admin", "password", "admin"))).get("access_token").getAsString();
            }
            Answer answer = keycloak.send(
                    method, "/admin" + REALM + path, adminToken, body == null ? null : JSON, body == null ? null : GSON.toJson(body));
            if (answer.status() != 401 || isFresh) {
                return answer;
            }
        }
    }

    static JsonObject json(Answer answer) {
        assertFalse(answer.body().contains("\tat "), () -> "a stack trace: " + answer.body());
        return JsonParser.parseString(answer.body()).getAsJsonObject();
    }

    static Map<String, Object> metadata(String scope) {
        Map<String, Object> metadata = new LinkedHashMap<>(Map.of("client_name", "Example Tool", "redirect_uris",
                List.of(UserAgent.REDIRECT_URI), "grant_types", List.of("authorization_code", "refresh_token"),
                "token_endpoint_auth_method", "none"));
        if (scope != null) {
            metadata.put("scope", scope);
        }
        return metadata;
    }

    static Answer tryToRegister(Map<String, Object> metadata) {
        return keycloak.send("POST", REALM + "/clients-registrations/openid-connect", null, JSON, GSON.toJson(metadata));
    }

    static JsonObject register(String scope) {
        Answer answer = tryToRegister(metadata(scope));
        assertEquals(201, answer.status(), answer::toString);
        return json(answer);
    }

    static Map<String, String> query(String clientId, String scope) {
        Map<String, String> query = new LinkedHashMap<>(Map.of("response_type", "code", "client_id", clientId, "redirect_uri",
                UserAgent.REDIRECT_URI, "state", UUID.randomUUID().toString(), "nonce", UUID.randomUUID().toString(),
                "code_challenge", challenge(), "code_challenge_method", "S256"));
        if (scope != null) {
            query.put("scope", scope);
        }
        return query;
    }

    static String challenge() {
        try {
            byte[] digest = MessageDigest.getInstance("SHA-256").digest(VERIFIER.getBytes(StandardCharsets.US_ASCII));
            return Base64.getUrlEncoder().withoutPadding().encodeToString(digest);
        } catch (GeneralSecurityException error) {
            throw new IllegalStateException(error);
        }
    }

    static Map<String, String> authorize(Map<String, String> query) {
        return checked(query, visit(query));
    }

    /** What comes back to the redirect URI; {@code page} and {@code status} if it ended elsewhere. */
    static Map<String, String> visit(Map<String, String> query) {
        return ended(browser().authorize(PROTOCOL + "/auth", UserAgent.parameters(query)));
    }

    /** The same by POST. */
    static Map<String, String> submit(Map<String, String> query) {
        return ended(browser().submit(PROTOCOL + "/auth", UserAgent.parameters(query)));
    }

    private static UserAgent browser() {
        return new UserAgent(keycloak.url(), Map.of("username", "tester", "password", "secret"));
    }

    private static Map<String, String> ended(UserAgent.Answer answer) {
        return answer.isRedirected()
                ? answer.redirected()
                : Map.of("page", answer.body(), "status", Integer.toString(answer.status()));
    }

    static Map<String, String> checked(Map<String, String> query, Map<String, String> answer) {
        assertNull(answer.get("page"), () -> query + "\n" + answer);
        if (query.containsKey("state")) {
            assertEquals(query.get("state"), answer.get("state"));
        }
        assertEquals(keycloak.url() + REALM, answer.get("iss"));
        return answer;
    }

    static JsonObject redeem(String clientId, Map<String, String> answer) {
        assertNotNull(answer.get("code"), answer::toString);
        Answer token = keycloak.form(PROTOCOL + "/token", Map.of("grant_type", "authorization_code", "client_id", clientId, "code",
                answer.get("code"), "redirect_uri", UserAgent.REDIRECT_URI, "code_verifier", VERIFIER));
        assertEquals(200, token.status(), token::toString);
        return json(token);
    }

    static JsonObject login(String clientId, String scope) {
        return redeem(clientId, authorize(query(clientId, scope)));
    }

    static JsonObject refresh(String clientId, JsonObject tokens) {
        Answer token = keycloak.form(PROTOCOL + "/token", Map.of(
                "grant_type", "refresh_token", "client_id", clientId, "refresh_token", tokens.get("refresh_token").getAsString()));
        assertEquals(200, token.status(), token::toString);
        return json(token);
    }

    static String id(JsonObject client) {
        return client.get("client_id").getAsString();
    }

    /** The scopes of an answer or of its access token that the policy decides. Profile and email are the realm's own defaults. */
    static Set<String> decided(JsonObject object) {
        Set<String> scopes = new TreeSet<>(ClientFacts.tokens(object.get("scope").getAsString()));
        scopes.removeAll(Set.of("profile", "email"));
        return scopes;
    }

    static JsonObject payload(JsonObject tokens) {
        String token = tokens.get("access_token").getAsString().split("\\.")[1];
        return JsonParser.parseString(new String(Base64.getUrlDecoder().decode(token), StandardCharsets.UTF_8)).getAsJsonObject();
    }

    static void assertGranted(JsonObject tokens, String... scopes) {
        assertEquals(new TreeSet<>(List.of(scopes)), decided(tokens));
        assertEquals(new TreeSet<>(List.of(scopes)), decided(payload(tokens)));
    }

    static JsonObject stored(String clientId) {
        return admin("GET", "/clients?clientId=" + clientId, null).getAsJsonArray().get(0).getAsJsonObject();
    }

    static String registeredScope(String clientId) {
        return stored(clientId).getAsJsonObject("attributes").get(ClientFacts.REGISTERED_SCOPE).getAsString();
    }

    static JsonObject makeClient(Map<String, Object> members) {
        String clientId = UUID.randomUUID().toString();
        Map<String, Object> client = new LinkedHashMap<>(Map.of("clientId", clientId, "publicClient", true, "redirectUris",
                List.of(UserAgent.REDIRECT_URI), "optionalClientScopes", List.of("mcp:read"), "attributes", Map.of()));
        client.putAll(members);
        admin("POST", "/clients", client);
        return stored(clientId);
    }

    /** Client profiles with the executor alone. */
    static Map<String, Object> profiles(Map<String, Object> settings) {
        return Map.of("profiles", List.of(
                Map.of("name", "scopeward", "executors", List.of(Map.of("executor", "scopeward", "configuration", settings)))));
    }

    static void assertUnavailable(String error) {
        assertEquals("temporarily_unavailable", error);
    }

    /** Runs what is to be refused while Scopeward is down; asks until it answers again after that. */
    static void whileDown(Runnable check) {
        JsonObject client = register("openid");
        scopeward.stop();
        try {
            check.run();
        } finally {
            scopeward.start();
            untilAnswered(client);
        }
    }

    /** Runs what is to be seen under another policy, and puts the one of before back. */
    static void whilePolicyIs(String policy, Runnable check) {
        serve(policy);
        try {
            check.run();
        } finally {
            serve(POLICY);
        }
    }

    private static void serve(String policy) {
        try (ScopewardClient client = ScopewardClient.create(scopeward.target())) {
            long before = client.policyStatus().active().generation();
            scopeward.writePolicy(policy);
            client.watchPolicyStatus(status -> {
                if (status.active().generation() > before) {
                    throw new CancellationException("it serves");
                }
            });
        } catch (CancellationException serves) {
            return;
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
        }
        throw new AssertionError("the policy is not served");
    }

    /** Asks until Scopeward answers again. */
    static void untilAnswered(JsonObject client) {
        for (long end = System.nanoTime() + Duration.ofMinutes(2).toNanos(); authorizeAsGuest(client).containsKey("error");) {
            assertTrue(System.nanoTime() < end, "it does not answer again");
        }
    }

    /** What comes back before anyone logs in: an error, or the page where to log in. */
    static Map<String, String> authorizeAsGuest(JsonObject client) {
        Map<String, String> query = query(id(client), "openid");
        query.put("prompt", "none");
        Map<String, String> answer = visit(query);
        return "login_required".equals(answer.get("error")) ? Map.of() : answer;
    }
}
