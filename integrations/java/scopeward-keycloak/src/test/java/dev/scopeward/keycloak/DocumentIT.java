package dev.scopeward.keycloak;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.ConcurrentHashMap;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** What a client gets that has a metadata document (CIMD): when it is read first, and when it is read again. */
class DocumentIT extends McpRealm {
    private final Map<String, String> documents = new ConcurrentHashMap<>();
    private HttpServer web;
    private JsonElement profiles;
    private JsonElement policies;

    @BeforeEach
    void take_documents() throws IOException {
        web = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        web.createContext("/", exchange -> {
            byte[] body = documents.get(exchange.getRequestURI().getPath()).getBytes(StandardCharsets.UTF_8);
            exchange.getResponseHeaders().add("Content-Type", JSON);
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        web.start();
        profiles = admin("GET", "/client-policies/profiles", null);
        policies = admin("GET", "/client-policies/policies", null);
        admin("PUT", "/client-policies/profiles", Map.of("profiles", List.of(
                Map.of("name", "cimd", "executors", List.of(Map.of("executor", "client-id-metadata-document", "configuration",
                        Map.of("cimd-allow-http-scheme", true, "cimd-allow-permitted-domains", List.of("localhost", "127.0.0.1"))))),
                Map.of("name", "scopeward", "executors", List.of(Map.of("executor", "scopeward", "configuration", Map.of()))))));
        admin("PUT", "/client-policies/policies", Map.of("policies", List.of(
                Map.of("name", "cimd", "enabled", true, "profiles", List.of("cimd"), "conditions",
                        List.of(Map.of("condition", "client-id-uri", "configuration", Map.of("client-id-uri-scheme",
                                List.of("http", "https"), "client-id-uri-allow-permitted-domains", List.of("localhost"))))),
                Map.of("name", "scopeward", "enabled", true, "profiles", List.of("scopeward"), "conditions",
                        List.of(Map.of("condition", "any-client", "configuration", Map.of()))))));
    }

    @AfterEach
    void take_none() {
        admin("PUT", "/client-policies/profiles", profiles);
        admin("PUT", "/client-policies/policies", policies);
        web.stop(0);
    }

    /** The id of a new client, whose document says this scope; null for none. */
    private String publish(String scope) {
        String clientId = "http://localhost:" + web.getAddress().getPort() + "/" + UUID.randomUUID() + ".json";
        publish(clientId, scope);
        return clientId;
    }

    private void publish(String clientId, String scope) {
        Map<String, Object> document = metadata(scope);
        document.put("client_id", clientId);
        documents.put(clientId.substring(clientId.lastIndexOf('/')), GSON.toJson(document));
    }

    /** Keycloak reads the document again at the next request. */
    private static void expire(String clientId) {
        JsonObject client = stored(clientId);
        JsonObject attributes = client.getAsJsonObject("attributes");
        assertNotNull(attributes.get("cimd.cache.expiry.time.in.sec"), client::toString);
        attributes.addProperty("cimd.cache.expiry.time.in.sec", "1");
        admin("PUT", "/clients/" + client.get("id").getAsString(), client);
    }

    /** A page and no redirect: there is no client yet whose redirect URIs are known. */
    private static void assertPage(String status, Map<String, String> answer) {
        assertEquals(status, answer.get("status"), answer::toString);
        assertFalse(answer.get("page").contains(scopeward.target()) || answer.get("page").contains("\tat "), answer::toString);
    }

    @Test
    void a_document_without_scope_gets_the_defaults() {
        String clientId = publish(null);
        assertGranted(login(clientId, "openid offline_access"), "offline_access", "openid");
        assertEquals("openid mcp:read offline_access", registeredScope(clientId));
        assertEquals("invalid_scope", authorize(query(clientId, "openid admin")).get("error"));
    }

    @Test
    void a_document_that_is_denied_gets_a_page_and_no_client() {
        String clientId = publish("openid root");
        assertPage("400", visit(query(clientId, "openid")));
        assertEquals(new JsonArray(), admin("GET", "/clients?clientId=" + clientId, null));
    }

    @Test
    void a_document_that_is_read_again_is_expanded_again() {
        String clientId = publish("openid");
        assertGranted(login(clientId, "openid mcp:write"), "mcp:write", "openid");
        assertEquals("openid offline_access", registeredScope(clientId));

        publish(clientId, "openid admin");
        assertEquals("invalid_scope", authorize(query(clientId, "openid admin")).get("error"), "it is not read again yet");
        expire(clientId);
        assertGranted(login(clientId, "openid admin offline_access"), "admin", "offline_access", "openid");
        assertEquals("openid admin offline_access", registeredScope(clientId));

        // Without scope it keeps what it holds; one that is denied changes nothing.
        publish(clientId, null);
        expire(clientId);
        assertGranted(login(clientId, "openid admin"), "admin", "openid");
        publish(clientId, "openid root");
        expire(clientId);
        JsonObject before = stored(clientId);
        assertPage("400", visit(query(clientId, "openid")));
        assertEquals(before, stored(clientId));
        assertEquals("openid admin offline_access", registeredScope(clientId));
    }

    @Test
    void no_document_is_taken_while_down_and_it_is_once_it_is_back() {
        String known = publish("openid mcp:read");
        String expired = publish("openid mcp:read");
        for (String clientId : List.of(known, expired)) {
            assertGranted(login(clientId, "openid"), "openid");
        }
        String first = publish("openid mcp:read");
        expire(expired);
        JsonObject before = stored(expired);
        whileDown(() -> {
            assertUnavailable(authorize(query(known, "openid")).get("error"));
            assertPage("503", visit(query(first, "openid")));
            assertPage("503", visit(query(expired, "openid")));
            assertEquals(new JsonArray(), admin("GET", "/clients?clientId=" + first, null));
            assertEquals(before, stored(expired));
        });
        for (String clientId : List.of(known, first, expired)) {
            assertGranted(login(clientId, "openid mcp:read"), "mcp:read", "openid");
        }
        long time = stored(expired).getAsJsonObject("attributes").get("cimd.cache.expiry.time.in.sec").getAsLong();
        assertTrue(time > 1, "it was read again");
    }
}
