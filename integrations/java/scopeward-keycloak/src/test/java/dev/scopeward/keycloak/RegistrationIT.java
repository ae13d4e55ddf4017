package dev.scopeward.keycloak;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import dev.scopeward.keycloak.KeycloakServer.Answer;
import dev.scopeward.testing.UserAgent;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;

/** What a client gets that registers, or updates its registration. */
class RegistrationIT extends McpRealm {
    @Test
    void a_narrow_registration_gets_the_baseline_and_can_log_in_and_refresh() {
        JsonObject client = register("openid");
        assertEquals(Set.of("offline_access", "openid"), decided(client));
        assertEquals("openid offline_access", registeredScope(id(client)));
        Set<String> defaults = stored(id(client)).getAsJsonArray("defaultClientScopes").asList().stream()
                .map(JsonElement::getAsString).collect(Collectors.toSet());
        assertTrue(defaults.containsAll(List.of("basic", "roles", "acr", "web-origins")), defaults::toString);
        JsonObject tokens = login(id(client), "openid offline_access");
        assertGranted(tokens, "offline_access", "openid");
        assertGranted(refresh(id(client), tokens), "offline_access", "openid");
    }

    @Test
    void a_registration_without_scope_gets_the_defaults() {
        assertEquals(Set.of("mcp:read", "offline_access", "openid"), decided(register(null)));
    }

    @Test
    void a_denied_registration_has_body_and_event_and_is_taken_back() {
        Map<String, Object> metadata = metadata("openid root");
        metadata.put("client_name", "Denied " + UUID.randomUUID());
        int before = admin("GET", "/clients?max=1000", null).getAsJsonArray().size();
        Answer answer = tryToRegister(metadata);
        assertEquals(400, answer.status(), answer::toString);
        assertEquals("invalid_client_metadata", json(answer).get("error").getAsString());
        assertEquals("scope forbidden: root", json(answer).get("error_description").getAsString());
        assertEquals(before, admin("GET", "/clients?max=1000", null).getAsJsonArray().size());
        JsonObject event = admin("GET", "/events?type=CLIENT_REGISTER_ERROR&max=1", null).getAsJsonArray().get(0).getAsJsonObject();
        assertEquals("scope forbidden: root", event.getAsJsonObject("details").get("client_policy_error_detail").getAsString());
    }

    @Test
    void hostile_scopes_are_denied() {
        for (String scope : List.of("mcp\"read", "openid\troot", "ópenid", "</script><script>alert(1)</script>", "a".repeat(513),
                IntStream.range(0, 256).mapToObj(number -> "scope" + number).collect(Collectors.joining(" ")))) {
            Answer answer = tryToRegister(metadata(scope));
            assertEquals("invalid_client_metadata", json(answer).get("error").getAsString(), answer::toString);
            assertTrue(json(answer).get("error_description").getAsString().matches("[ -~&&[^\"\\\\]]{1,512}"), answer::toString);
            assertEquals("invalid_scope", authorize(query(id(register("openid")), scope)).get("error"));
        }
    }

    @Test
    void what_a_client_says_of_its_own_registration_does_not_count() {
        Map<String, Object> client = new LinkedHashMap<>(Map.of("redirectUris", List.of(UserAgent.REDIRECT_URI), "publicClient", true,
                "attributes", Map.of(ClientFacts.REGISTERED_SCOPE, "openid admin"), "optionalClientScopes", List.of("mcp:read")));
        String address = REALM + "/clients-registrations/default";
        Answer answer = keycloak.send("POST", address, null, JSON, GSON.toJson(client));
        assertEquals(201, answer.status(), answer::toString);
        String clientId = json(answer).get("clientId").getAsString();
        assertEquals("mcp:read offline_access", registeredScope(clientId));
        assertEquals("invalid_scope", authorize(query(clientId, "openid admin")).get("error"));

        // Without signatures, since Keycloak takes seconds to make a key for them.
        client.putAll(Map.of("protocol", "saml", "clientId", "saml-" + UUID.randomUUID(), "attributes",
                Map.of(ClientFacts.REGISTERED_SCOPE, "openid admin", "saml.client.signature", "false")));
        Answer saml = keycloak.send("POST", address, null, JSON, GSON.toJson(client));
        assertEquals(201, saml.status(), saml::toString);
        client.put("protocol", "openid-connect");
        client.remove("optionalClientScopes");
        Answer changed = keycloak.send("PUT", address + "/" + client.get("clientId"),
                json(saml).get("registrationAccessToken").getAsString(), JSON, GSON.toJson(client));
        assertEquals(200, changed.status(), changed::toString);
        assertFalse(registeredScope((String) client.get("clientId")).contains("admin"));
        assertEquals("invalid_scope", authorize(query((String) client.get("clientId"), "openid admin")).get("error"));
    }

    @Test
    void registration_while_down_is_a_server_error_and_leaves_nothing() {
        int before = admin("GET", "/clients?max=1000", null).getAsJsonArray().size();
        whileDown(() -> {
            Answer answer = tryToRegister(metadata("openid"));
            assertEquals(503, answer.status(), answer::toString);
            assertEquals("server_error", json(answer).get("error").getAsString());
            assertTrue(answer.headers().containsKey("retry-after"), answer::toString);
            assertFalse(answer.body().contains(scopeward.target()), answer::toString);
        });
        assertEquals(before + 1, admin("GET", "/clients?max=1000", null).getAsJsonArray().size());
    }

    @Test
    void an_update_without_scope_keeps_what_is_held_and_one_that_is_not_granted_changes_nothing() {
        JsonObject client = register("openid mcp:read");
        String address = client.get("registration_client_uri").getAsString();
        Map<String, Object> update = metadata(null);
        update.put("client_id", id(client));
        Answer answer = keycloak.send("PUT", address, client.get("registration_access_token").getAsString(), JSON, GSON.toJson(update));
        assertEquals(200, answer.status(), answer::toString);
        assertEquals(Set.of("mcp:read", "offline_access", "openid"), decided(json(answer)));
        String token = json(answer).get("registration_access_token").getAsString();
        update.put("scope", "openid root");
        Answer denied = keycloak.send("PUT", address, token, JSON, GSON.toJson(update));
        assertEquals("400 invalid_client_metadata", denied.status() + " " + json(denied).get("error").getAsString());
        assertEquals("openid mcp:read offline_access", registeredScope(id(client)));
        update.put("scope", "openid");
        JsonObject before = stored(id(client));
        whileDown(() -> {
            Answer down = keycloak.send("PUT", address, token, JSON, GSON.toJson(update));
            assertEquals("503 server_error", down.status() + " " + json(down).get("error").getAsString());
        });
        assertEquals(before, stored(id(client)));
    }
}
