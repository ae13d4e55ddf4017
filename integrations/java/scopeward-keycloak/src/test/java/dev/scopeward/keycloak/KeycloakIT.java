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
import com.sun.net.httpserver.HttpServer;
import dev.scopeward.keycloak.KeycloakServer.Answer;
import dev.scopeward.testing.Browser;
import dev.scopeward.testing.Service;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.UUID;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** On the wire of the real Keycloak: what a client gets at each event, and what it gets while Scopeward does not answer. */
class KeycloakIT {
    private static final String REALM = "/realms/mcp";
    private static final String PROTOCOL = REALM + "/protocol/openid-connect";
    private static final String DROP = "https://drop.example.com";
    private static final String VERIFIER = "0123456789012345678901234567890123456789012";
    private static final String SCOPES = "openid offline_access mcp:read mcp:write admin root";
    private static final String JSON = "application/json";
    private static final Gson GSON = new Gson();

    private static final String POLICY = Service.POLICY + """
              https://drop.example.com:
                scopesSupported: [openid, offline_access, "mcp:read", "mcp:write"]
                authorization: {unsupportedScopes: drop, unregisteredScopes: drop}
            defaultAudience: https://mcp.example.com
            registrationAudiences: [https://mcp.example.com]
            """;

    private static Service scopeward;
    private static KeycloakServer keycloak;
    private static String adminToken;

    @BeforeAll
    static void start(@TempDir Path folder) throws Exception {
        scopeward = new Service(folder, "127.0.0.1:0");
        scopeward.writePolicy(POLICY);
        scopeward.start();
        keycloak = new KeycloakServer("--spi-client-policy-executor--scopeward--target=" + scopeward.target());
        Path output = folder.resolve("realm.log");
        ProcessBuilder script = new ProcessBuilder("examples/realm.sh").redirectErrorStream(true).redirectOutput(output.toFile());
        script.environment().putAll(Map.of("KEYCLOAK_URL", keycloak.url(), "SCOPES", SCOPES));
        int code = script.start().waitFor();
        assertEquals(0, code, Files.readString(output));
        admin("PUT", "", Map.of("eventsEnabled", true));
        admin("POST", "/users", Map.of("username", "tester", "enabled", true, "email", "tester@example.com", "firstName", "A",
                "lastName", "Tester", "emailVerified", true,
                "credentials", List.of(Map.of("type", "password", "value", "secret", "temporary", false))));
    }

    @AfterAll
    static void stop() {
        if (keycloak != null) {
            keycloak.close();
        }
        if (scopeward != null) {
            scopeward.close();
        }
    }

    // What a client and an administrator do.

    private static JsonElement admin(String method, String path, Object body) {
        Answer answer = tryAsAdmin(method, path, body);
        assertTrue(answer.status() < 300, () -> method + " " + path + ": " + answer);
        return answer.body().isEmpty() ? null : JsonParser.parseString(answer.body());
    }

    private static Answer tryAsAdmin(String method, String path, Object body) {
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

    private static JsonObject json(Answer answer) {
        assertFalse(answer.body().contains("\tat "), () -> "a stack trace: " + answer.body());
        return JsonParser.parseString(answer.body()).getAsJsonObject();
    }

    private static Map<String, Object> metadata(String scope) {
        Map<String, Object> metadata = new LinkedHashMap<>(Map.of("client_name", "Example Tool", "redirect_uris",
                List.of(Browser.REDIRECT_URI), "grant_types", List.of("authorization_code", "refresh_token"),
                "token_endpoint_auth_method", "none"));
        if (scope != null) {
            metadata.put("scope", scope);
        }
        return metadata;
    }

    private static Answer tryToRegister(Map<String, Object> metadata) {
        return keycloak.send("POST", REALM + "/clients-registrations/openid-connect", null, JSON, GSON.toJson(metadata));
    }

    private static JsonObject register(String scope) {
        Answer answer = tryToRegister(metadata(scope));
        assertEquals(201, answer.status(), answer::toString);
        return json(answer);
    }

    private static Map<String, String> query(String clientId, String scope) {
        Map<String, String> query = new LinkedHashMap<>(Map.of("response_type", "code", "client_id", clientId, "redirect_uri",
                Browser.REDIRECT_URI, "state", UUID.randomUUID().toString(), "nonce", UUID.randomUUID().toString(),
                "code_challenge", challenge(), "code_challenge_method", "S256"));
        if (scope != null) {
            query.put("scope", scope);
        }
        return query;
    }

    private static String challenge() {
        try {
            byte[] digest = MessageDigest.getInstance("SHA-256").digest(VERIFIER.getBytes(StandardCharsets.US_ASCII));
            return Base64.getUrlEncoder().withoutPadding().encodeToString(digest);
        } catch (GeneralSecurityException error) {
            throw new IllegalStateException(error);
        }
    }

    private static Map<String, String> authorize(Map<String, String> query) {
        Map<String, String> answer = new Browser("tester", "secret").visit(keycloak.url() + PROTOCOL + "/auth?" + Browser.encode(query));
        return checked(query, answer);
    }

    private static Map<String, String> checked(Map<String, String> query, Map<String, String> answer) {
        assertNull(answer.get("page"), () -> query + "\n" + answer);
        if (query.containsKey("state")) {
            assertEquals(query.get("state"), answer.get("state"));
        }
        assertEquals(keycloak.url() + REALM, answer.get("iss"));
        return answer;
    }

    private static JsonObject redeem(String clientId, Map<String, String> answer) {
        assertNotNull(answer.get("code"), answer::toString);
        Answer token = keycloak.form(PROTOCOL + "/token", Map.of("grant_type", "authorization_code", "client_id", clientId, "code",
                answer.get("code"), "redirect_uri", Browser.REDIRECT_URI, "code_verifier", VERIFIER));
        assertEquals(200, token.status(), token::toString);
        return json(token);
    }

    private static JsonObject login(String clientId, String scope) {
        return redeem(clientId, authorize(query(clientId, scope)));
    }

    private static JsonObject refresh(String clientId, JsonObject tokens) {
        Answer token = keycloak.form(PROTOCOL + "/token", Map.of(
                "grant_type", "refresh_token", "client_id", clientId, "refresh_token", tokens.get("refresh_token").getAsString()));
        assertEquals(200, token.status(), token::toString);
        return json(token);
    }

    private static String id(JsonObject client) {
        return client.get("client_id").getAsString();
    }

    /** The scopes of an answer or of its access token that the policy decides. Profile and email are the realm's own defaults. */
    private static Set<String> decided(JsonObject object) {
        Set<String> scopes = new TreeSet<>(List.of(object.get("scope").getAsString().split(" ")));
        scopes.removeAll(Set.of("profile", "email"));
        return scopes;
    }

    private static JsonObject payload(JsonObject tokens) {
        String token = tokens.get("access_token").getAsString().split("\\.")[1];
        return JsonParser.parseString(new String(Base64.getUrlDecoder().decode(token), StandardCharsets.UTF_8)).getAsJsonObject();
    }

    private static void assertGranted(JsonObject tokens, String... scopes) {
        assertEquals(new TreeSet<>(List.of(scopes)), decided(tokens));
        assertEquals(new TreeSet<>(List.of(scopes)), decided(payload(tokens)));
    }

    private static JsonObject stored(String clientId) {
        return admin("GET", "/clients?clientId=" + clientId, null).getAsJsonArray().get(0).getAsJsonObject();
    }

    private static String registeredScope(String clientId) {
        return stored(clientId).getAsJsonObject("attributes").get(ClientFacts.REGISTERED_SCOPE).getAsString();
    }

    private static JsonObject makeClient(Map<String, Object> members) {
        String clientId = UUID.randomUUID().toString();
        Map<String, Object> client = new LinkedHashMap<>(Map.of("clientId", clientId, "publicClient", true, "redirectUris",
                List.of(Browser.REDIRECT_URI), "optionalClientScopes", List.of("mcp:read"), "attributes", Map.of()));
        client.putAll(members);
        admin("POST", "/clients", client);
        return stored(clientId);
    }

    private static void assertUnavailable(String error) {
        assertEquals("temporarily_unavailable", error);
    }

    /** Runs what is to be refused while Scopeward is down; asks until it answers again after that. */
    private static void whileDown(Runnable check) {
        JsonObject client = register("openid");
        scopeward.stop();
        try {
            check.run();
        } finally {
            scopeward.start();
            for (int i = 0; i < 1000 && authorizeAsGuest(client).containsKey("error"); i++) {
                Thread.onSpinWait();
            }
        }
    }

    /** What comes back before anyone logs in: an error, or the page where to log in. */
    private static Map<String, String> authorizeAsGuest(JsonObject client) {
        Map<String, String> query = query(id(client), "openid");
        query.put("prompt", "none");
        Map<String, String> answer = new Browser("", "").visit(keycloak.url() + PROTOCOL + "/auth?" + Browser.encode(query));
        return "login_required".equals(answer.get("error")) ? Map.of() : answer;
    }

    // (a), (b): registration.

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
        Map<String, Object> client = new LinkedHashMap<>(Map.of("redirectUris", List.of(Browser.REDIRECT_URI), "publicClient", true,
                "attributes", Map.of(ClientFacts.REGISTERED_SCOPE, "openid admin"), "optionalClientScopes", List.of("mcp:read")));
        String address = REALM + "/clients-registrations/default";
        Answer answer = keycloak.send("POST", address, null, JSON, GSON.toJson(client));
        assertEquals(201, answer.status(), answer::toString);
        String clientId = json(answer).get("clientId").getAsString();
        assertEquals("mcp:read offline_access", registeredScope(clientId));
        assertEquals("invalid_scope", authorize(query(clientId, "openid admin")).get("error"));

        client.putAll(Map.of("protocol", "saml", "clientId", "saml-" + UUID.randomUUID()));
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
    void an_update_without_scope_keeps_what_is_held_and_a_denied_one_changes_nothing() {
        JsonObject client = register("openid mcp:read");
        String address = client.get("registration_client_uri").getAsString();
        Map<String, Object> update = metadata(null);
        update.put("client_id", id(client));
        Answer answer = keycloak.send("PUT", address, client.get("registration_access_token").getAsString(), JSON, GSON.toJson(update));
        assertEquals(200, answer.status(), answer::toString);
        assertEquals(Set.of("mcp:read", "offline_access", "openid"), decided(json(answer)));
        update.put("scope", "openid root");
        Answer denied = keycloak.send(
                "PUT", address, json(answer).get("registration_access_token").getAsString(), JSON, GSON.toJson(update));
        assertEquals("400 invalid_client_metadata", denied.status() + " " + json(denied).get("error").getAsString());
        assertEquals("openid mcp:read offline_access", registeredScope(id(client)));
    }

    // (d): metadata documents.

    @Test
    void a_metadata_document_gets_the_defaults() throws IOException {
        HttpServer web = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        String clientId = "http://localhost:" + web.getAddress().getPort() + "/client.json";
        Map<String, Object> document = metadata(null);
        document.put("client_id", clientId);
        byte[] body = GSON.toJson(document).getBytes(StandardCharsets.UTF_8);
        web.createContext("/client.json", exchange -> {
            exchange.getResponseHeaders().add("Content-Type", JSON);
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        web.start();
        JsonElement profiles = admin("GET", "/client-policies/profiles", null);
        JsonElement policies = admin("GET", "/client-policies/policies", null);
        try {
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
            assertGranted(login(clientId, "openid offline_access"), "offline_access", "openid");
            assertEquals("openid mcp:read offline_access", registeredScope(clientId));
            assertEquals("invalid_scope", authorize(query(clientId, "openid admin")).get("error"));
        } finally {
            admin("PUT", "/client-policies/profiles", profiles);
            admin("PUT", "/client-policies/policies", policies);
            web.stop(0);
        }
    }

    // (e) to (i): the authorize endpoint.

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
        Map<String, String> answer =
                new Browser("tester", "secret").visit(keycloak.url() + PROTOCOL + "/auth?" + Browser.encode(query));
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
    void nothing_that_was_dropped_is_in_the_token() {
        String clientId = id(register("openid admin mcp:read"));
        for (boolean isPost : new boolean[] {false, true}) {
            Map<String, String> query = query(clientId, "openid mcp:read admin nonsense{x}");
            query.put("resource", DROP);
            Map<String, String> answer = isPost
                    ? checked(query, new Browser("tester", "secret").submit(keycloak.url() + PROTOCOL + "/auth", query))
                    : authorize(query);
            JsonObject tokens = redeem(clientId, answer);
            assertGranted(tokens, "mcp:read", "openid");
        }
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
        whileDown(() -> {
            Answer down = keycloak.form(PROTOCOL + "/ext/par/request", query(clientId, "openid"));
            assertUnavailable(json(down).get("error").getAsString());
        });
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
        Map<String, String> query = query(clientId, scope);
        Map<String, String> claims = new LinkedHashMap<>(query);
        claims.put("scope", inner);
        Base64.Encoder encoder = Base64.getUrlEncoder().withoutPadding();
        query.put("request", encoder.encodeToString("{\"alg\":\"none\"}".getBytes(StandardCharsets.UTF_8)) + "."
                + encoder.encodeToString(GSON.toJson(claims).getBytes(StandardCharsets.UTF_8)) + ".");
        return query;
    }

    // (j): while there is no answer.

    @Test
    void nothing_is_granted_while_down_and_logins_work_again_without_a_restart() {
        String clientId = id(register("openid mcp:read"));
        whileDown(() -> {
            for (String scope : new String[] {"openid", "openid mcp:read", "openid nonsense", null}) {
                Map<String, String> answer = authorize(query(clientId, scope));
                assertUnavailable(answer.get("error"));
                assertFalse(answer.toString().contains(scopeward.target()), answer::toString);
            }
        });
        assertGranted(login(clientId, "openid mcp:read"), "mcp:read", "openid");
    }

    @Test
    void a_service_that_hangs_does_not_hold_up_what_asks_nothing() throws Exception {
        JsonObject client = register("openid");
        ExecutorService pool = Executors.newFixedThreadPool(200);
        scopeward.pause();
        try {
            long before = System.nanoTime();
            List<Future<Map<String, String>>> logins = new ArrayList<>();
            for (int i = 0; i < 200; i++) {
                logins.add(pool.submit(() -> authorizeAsGuest(client)));
            }
            int answered = 0;
            while (!logins.stream().allMatch(Future::isDone)) {
                assertEquals(200, keycloak.send("GET", REALM + "/.well-known/openid-configuration", null, null, null).status());
                answered++;
            }
            assertTrue(answered > 0);
            for (Future<Map<String, String>> login : logins) {
                assertUnavailable(login.get().get("error"));
            }
            long waits = keycloak.log().stream().filter(line -> line.contains("no answer from Scopeward")).count();
            long whole = System.nanoTime() - before;
            assertTrue(waits < 60, () -> waits + " logins waited for the deadline, in " + whole / 1_000_000 + " ms");
            assertTrue(keycloak.log().stream().anyMatch(line -> line.contains("does not answer: requests are refused")));
        } finally {
            scopeward.resume();
            pool.shutdownNow();
        }
        for (int i = 0; i < 1000 && authorizeAsGuest(client).containsKey("error"); i++) {
            Thread.onSpinWait();
        }
        assertGranted(login(id(client), "openid"), "openid");
    }

    // The token endpoint.

    @Test
    void client_credentials_and_passwords_get_what_the_policy_grants_or_nothing() {
        JsonObject client = makeClient(Map.of("publicClient", false, "secret", "s", "serviceAccountsEnabled", true,
                "directAccessGrantsEnabled", true, "optionalClientScopes", List.of("admin", "root", "mcp:read"),
                "attributes", Map.of(ClientFacts.REGISTERED_SCOPE, "openid mcp:read")));
        for (Map<String, String> grant : List.of(Map.of("grant_type", "client_credentials"),
                Map.of("grant_type", "password", "username", "tester", "password", "secret"))) {
            Map<String, String> form = new LinkedHashMap<>(grant);
            form.putAll(Map.of("client_id", client.get("clientId").getAsString(), "client_secret", "s", "scope", "mcp:read"));
            Answer granted = keycloak.form(PROTOCOL + "/token", form);
            assertEquals(200, granted.status(), granted::toString);
            assertTrue(decided(json(granted)).contains("mcp:read"), granted::toString);
            for (String scope : List.of("root", "admin", "mcp:read root")) {
                form.put("scope", scope);
                Answer denied = keycloak.form(PROTOCOL + "/token", form);
                assertEquals("invalid_scope", json(denied).get("error").getAsString(), denied::toString);
            }
            form.put("scope", "mcp:read");
            whileDown(() -> assertUnavailable(json(keycloak.form(PROTOCOL + "/token", form)).get("error").getAsString()));
            form.remove("scope");
            Answer omitted = keycloak.form(PROTOCOL + "/token", form);
            assertFalse(decided(json(omitted)).contains("mcp:read"), omitted::toString);
        }
    }

    @Test
    void a_refresh_cannot_ask_for_more() {
        String clientId = makeClient(Map.of("optionalClientScopes", List.of("admin", "root", "mcp:read", "offline_access"),
                "attributes", Map.of(ClientFacts.REGISTERED_SCOPE, "openid mcp:read"))).get("clientId").getAsString();
        JsonObject tokens = login(clientId, "openid mcp:read");
        for (String scope : List.of("openid mcp:read root", "root")) {
            Answer wider = keycloak.form(PROTOCOL + "/token", Map.of("grant_type", "refresh_token", "client_id", clientId,
                    "refresh_token", tokens.get("refresh_token").getAsString(), "scope", scope));
            assertTrue(wider.status() == 400 || !decided(payload(json(wider))).contains("root"), wider::toString);
        }
    }

    @Test
    void a_device_gets_what_the_policy_grants_or_nothing() {
        JsonObject client = makeClient(Map.of("optionalClientScopes", List.of("root", "mcp:read"),
                "attributes", Map.of(ClientFacts.REGISTERED_SCOPE, "openid mcp:read",
                        "oauth2.device.authorization.grant.enabled", "true")));
        Map<String, String> form = new LinkedHashMap<>(Map.of("client_id", client.get("clientId").getAsString(), "scope", "openid mcp:read"));
        Answer granted = keycloak.form(PROTOCOL + "/auth/device", form);
        assertEquals(200, granted.status(), granted::toString);
        whileDown(() -> assertUnavailable(json(keycloak.form(PROTOCOL + "/auth/device", form)).get("error").getAsString()));
        form.put("scope", "openid root");
        Answer denied = keycloak.form(PROTOCOL + "/auth/device", form);
        assertEquals("invalid_scope", json(denied).get("error").getAsString(), denied::toString);
    }

    @Test
    void a_backchannel_login_gets_what_the_policy_grants_or_nothing() {
        JsonObject client = makeClient(Map.of("publicClient", false, "secret", "s", "optionalClientScopes", List.of("root", "mcp:read"),
                "attributes", Map.of(ClientFacts.REGISTERED_SCOPE, "openid mcp:read", "oidc.ciba.grant.enabled", "true")));
        Map<String, String> form = new LinkedHashMap<>(Map.of("client_id", client.get("clientId").getAsString(), "client_secret", "s",
                "login_hint", "tester", "scope", "openid root"));
        Answer denied = keycloak.form(PROTOCOL + "/ext/ciba/auth", form);
        assertEquals("invalid_scope", json(denied).get("error").getAsString(), denied::toString);
        form.put("scope", "openid mcp:read");
        whileDown(() -> assertUnavailable(json(keycloak.form(PROTOCOL + "/ext/ciba/auth", form)).get("error").getAsString()));
        // What is granted goes on to the device of the user, and this realm has no channel to one.
        Answer granted = keycloak.form(PROTOCOL + "/ext/ciba/auth", form);
        assertEquals("server_error Failed to send authentication request",
                json(granted).get("error").getAsString() + " " + json(granted).get("error_description").getAsString());
    }

    @Test
    void a_token_exchange_gets_what_the_policy_grants_or_nothing() {
        JsonObject client = makeClient(Map.of("publicClient", false, "secret", "s", "directAccessGrantsEnabled", true,
                "optionalClientScopes", List.of("root", "mcp:read"),
                "attributes", Map.of(ClientFacts.REGISTERED_SCOPE, "openid mcp:read", "standard.token.exchange.enabled", "true")));
        String clientId = client.get("clientId").getAsString();
        Answer subject = keycloak.form(PROTOCOL + "/token", Map.of("grant_type", "password", "client_id", clientId, "client_secret", "s",
                "username", "tester", "password", "secret", "scope", "mcp:read"));
        Map<String, String> form = new LinkedHashMap<>(Map.of("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange",
                "client_id", clientId, "client_secret", "s", "subject_token", json(subject).get("access_token").getAsString(),
                "subject_token_type", "urn:ietf:params:oauth:token-type:access_token", "scope", "mcp:read"));
        Answer granted = keycloak.form(PROTOCOL + "/token", form);
        assertEquals(200, granted.status(), granted::toString);
        whileDown(() -> assertUnavailable(json(keycloak.form(PROTOCOL + "/token", form)).get("error").getAsString()));
        form.put("scope", "root");
        Answer denied = keycloak.form(PROTOCOL + "/token", form);
        assertEquals("invalid_scope", json(denied).get("error").getAsString(), denied::toString);
        form.remove("scope");
        Answer omitted = keycloak.form(PROTOCOL + "/token", form);
        assertFalse(decided(payload(json(omitted))).contains("root"), omitted::toString);
    }

    // Settings.

    @Test
    void settings_that_are_wrong_are_refused_and_named_in_the_answer_and_the_log() {
        for (Map.Entry<String, Object> wrong : Map.<String, Object>of("audience", "https://mcp.example.com", "deadline", "300",
                "implicit-openid", "perhaps", "audiences", "https://mcp.example.com").entrySet()) {
            Answer answer = tryAsAdmin("PUT", "/client-policies/profiles", profiles(Map.of(wrong.getKey(), wrong.getValue())));
            assertEquals(400, answer.status(), answer::toString);
            assertTrue(json(answer).get("errorMessage").getAsString().contains("`" + wrong.getKey() + "`"), answer::toString);
            assertTrue(keycloak.log().stream().anyMatch(line -> line.contains("`" + wrong.getKey() + "`")), wrong::toString);
        }
    }

    private static Map<String, Object> profiles(Map<String, Object> settings) {
        return Map.of("profiles", List.of(
                Map.of("name", "scopeward", "executors", List.of(Map.of("executor", "scopeward", "configuration", settings)))));
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
