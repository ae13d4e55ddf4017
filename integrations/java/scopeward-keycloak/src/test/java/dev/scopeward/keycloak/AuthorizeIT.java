package dev.scopeward.keycloak;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.JsonObject;
import dev.scopeward.keycloak.KeycloakServer.Answer;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.junit.jupiter.api.Test;

/** What a client gets at the authorize endpoint: by GET, POST, pushed requests and request objects. */
class AuthorizeIT extends McpRealm {
    @Test
    void a_denial_is_redirected_with_state_and_an_event() {
        String clientId = id(register("openid"));
        Map<String, String> answer = authorize(query(clientId, "openid root"));
        assertEquals("invalid_scope", answer.get("error"));
        assertEquals("scope forbidden: root", answer.get("error_description"));
        Map<String, String> target = query(clientId, "openid");
        target.put("resource", "https://other.example.com");
        assertEquals("invalid_target", authorize(target).get("error"));
        JsonObject event = admin("GET", "/events?type=LOGIN_ERROR&client=" + clientId + "&max=1", null)
                .getAsJsonArray().get(0).getAsJsonObject();
        assertTrue(Set.of("invalid_scope", "invalid_target").contains(event.get("error").getAsString()), event::toString);
    }

    @Test
    void the_redirect_uri_is_validated_before_any_error_goes_there() {
        Map<String, String> query = query(id(register("openid")), "openid root");
        query.put("redirect_uri", "https://attacker.example.com/callback");
        Map<String, String> answer = visit(query);
        assertEquals("400", answer.get("status"), answer::toString);
    }

    @Test
    void a_step_up_with_the_same_client_is_granted_and_refreshed_and_not_registered() {
        String clientId = id(register("openid"));
        JsonObject tokens = login(clientId, "openid mcp:write");
        assertGranted(tokens, "mcp:write", "openid");
        assertGranted(refresh(clientId, tokens), "mcp:write", "openid");
        assertEquals("openid offline_access", registeredScope(clientId));
        assertGranted(login(clientId, "openid"), "openid");
    }

    @Test
    void a_client_from_before_gets_the_baseline_and_refreshes() {
        String clientId = makeClient(Map.of()).get("clientId").getAsString();
        JsonObject tokens = login(clientId, "openid offline_access mcp:read");
        assertGranted(tokens, "mcp:read", "offline_access", "openid");
        assertGranted(refresh(clientId, tokens), "mcp:read", "offline_access", "openid");
        assertFalse(registeredScope(clientId).contains("offline_access"), registeredScope(clientId));
    }

    @Test
    void an_omitted_scope_gets_what_is_held() {
        String clientId = id(register("openid mcp:read"));
        assertGranted(login(clientId, null), "mcp:read", "offline_access", "openid");
    }

    @Test
    void blanks_too_many_and_repeated_scopes_do_not_matter() {
        JsonObject client = register(" openid  mcp:read ");
        assertEquals("openid mcp:read offline_access", registeredScope(id(client)));
        Map<String, String> query = query(id(client), " openid  mcp:read openid");
        assertGranted(redeem(id(client), authorize(query)), "mcp:read", "openid");
        assertGranted(redeem(id(client), checked(query, submit(query))), "mcp:read", "openid");
    }

    @Test
    void nothing_that_was_dropped_is_in_the_token() {
        String clientId = id(register("openid admin mcp:read"));
        for (boolean isPost : new boolean[] {false, true}) {
            Map<String, String> query = query(clientId, "openid mcp:read admin nonsense{x}");
            query.put("resource", DROP);
            Map<String, String> answer = isPost ? checked(query, submit(query)) : authorize(query);
            JsonObject tokens = redeem(clientId, answer);
            assertGranted(tokens, "mcp:read", "openid");
        }
        // Keycloak lets nobody change a request object.
        Map<String, String> object = requestObject(clientId, "openid mcp:read", "openid mcp:read admin", Map.of("resource", DROP));
        assertEquals("invalid_scope", authorize(object).get("error"));
        assertEquals("invalid_scope", json(keycloak.form(PROTOCOL + "/ext/par/request", object)).get("error").getAsString());
    }

    @Test
    void a_pushed_request_is_decided_and_narrowed() {
        String clientId = id(register("openid admin"));
        Map<String, String> query = query(clientId, "openid admin");
        query.put("resource", DROP);
        Answer pushed = keycloak.form(PROTOCOL + "/ext/par/request", query);
        assertEquals(201, pushed.status(), pushed::toString);
        Map<String, String> answer = authorize(
                Map.of("client_id", clientId, "request_uri", json(pushed).get("request_uri").getAsString()));
        assertGranted(redeem(clientId, answer), "openid");
        Answer denied = keycloak.form(PROTOCOL + "/ext/par/request", query(clientId, "openid root"));
        assertEquals(400, denied.status(), denied::toString);
        // Keycloak itself refuses a blank too many, and what it has no client scope for although the policy would drop it.
        query.put("scope", "openid nonsense");
        for (Map<String, String> refused : List.of(query(clientId, " openid"), query(clientId, "openid  admin"), query)) {
            Answer own = keycloak.form(PROTOCOL + "/ext/par/request", refused);
            assertEquals("400 invalid_request", own.status() + " " + json(own).get("error").getAsString());
        }
        whileDown(() -> {
            Answer down = keycloak.form(PROTOCOL + "/ext/par/request", query(clientId, "openid"));
            assertUnavailable(json(down).get("error").getAsString());
        });
    }

    @Test
    void a_pushed_request_steps_up_and_gets_the_baseline() {
        String clientId = makeClient(Map.of()).get("clientId").getAsString();
        Answer pushed = keycloak.form(PROTOCOL + "/ext/par/request", query(clientId, "openid offline_access mcp:write"));
        assertEquals(201, pushed.status(), pushed::toString);
        JsonObject tokens = redeem(clientId, authorize(
                Map.of("client_id", clientId, "request_uri", json(pushed).get("request_uri").getAsString())));
        assertGranted(tokens, "mcp:write", "offline_access", "openid");
        assertGranted(refresh(clientId, tokens), "mcp:write", "offline_access", "openid");
    }

    @Test
    void a_request_object_is_no_way_around() {
        String clientId = makeClient(Map.of("optionalClientScopes", List.of("admin", "root", "mcp:read"),
                "attributes", Map.of(ClientFacts.REGISTERED_SCOPE, "openid mcp:read"))).get("clientId").getAsString();
        for (String scope : List.of("openid root", "openid admin")) {
            assertEquals("invalid_scope", authorize(requestObject(clientId, "openid", scope)).get("error"));
        }
        assertGranted(redeem(clientId, authorize(requestObject(clientId, "openid root", "openid mcp:read"))), "mcp:read", "openid");
        whileDown(() -> assertUnavailable(authorize(requestObject(clientId, "openid", "openid")).get("error")));
    }

    /** A request with one scope in the query and another one in an unsigned request object. */
    private static Map<String, String> requestObject(String clientId, String scope, String inner) {
        return requestObject(clientId, scope, inner, Map.of());
    }

    private static Map<String, String> requestObject(String clientId, String scope, String inner, Map<String, String> more) {
        Map<String, String> query = query(clientId, scope);
        query.putAll(more);
        Map<String, String> claims = new LinkedHashMap<>(query);
        claims.put("scope", inner);
        Base64.Encoder encoder = Base64.getUrlEncoder().withoutPadding();
        query.put("request", encoder.encodeToString("{\"alg\":\"none\"}".getBytes(StandardCharsets.UTF_8)) + "."
                + encoder.encodeToString(GSON.toJson(claims).getBytes(StandardCharsets.UTF_8)) + ".");
        return query;
    }

    @Test
    void nothing_is_granted_while_down_and_logins_work_again_without_a_restart() {
        String clientId = id(register("openid mcp:read"));
        JsonObject tokens = login(clientId, "openid mcp:read");
        whileDown(() -> {
            for (String scope : new String[] {"openid", "openid mcp:read", "openid nonsense", null}) {
                Map<String, String> query = query(clientId, scope);
                for (Map<String, String> answer : List.of(authorize(query), checked(query, submit(query)))) {
                    assertUnavailable(answer.get("error"));
                    assertFalse(answer.toString().contains(scopeward.target()), answer::toString);
                }
            }
        });
        assertGranted(refresh(clientId, tokens), "mcp:read", "openid");
        assertGranted(login(clientId, "openid mcp:read"), "mcp:read", "openid");
    }
}
