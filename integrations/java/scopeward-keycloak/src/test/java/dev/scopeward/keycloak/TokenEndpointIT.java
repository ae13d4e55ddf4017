package dev.scopeward.keycloak;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.JsonObject;
import dev.scopeward.keycloak.KeycloakServer.Answer;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.KeyPair;
import java.security.KeyPairGenerator;
import java.security.Signature;
import java.time.Instant;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import org.junit.jupiter.api.Test;

/** What a client gets from grants without an authorize request. */
class TokenEndpointIT extends McpRealm {
    private static final String WITHOUT_READ =
            POLICY.replace("offline_access, \"mcp:read\", \"mcp:write\"", "offline_access, \"mcp:write\"").replace("[openid, \"mcp:read\"]", "[openid]");

    private static Answer ask(Map<String, String> form) {
        return keycloak.form(PROTOCOL + "/token", form);
    }

    private static void assertRefused(String error, Answer answer) {
        assertEquals(error, json(answer).get("error").getAsString(), answer::toString);
    }

    @Test
    void client_credentials_and_passwords_get_what_the_policy_grants_or_nothing() {
        JsonObject client = makeClient(Map.of("publicClient", false, "secret", "s", "serviceAccountsEnabled", true,
                "directAccessGrantsEnabled", true, "optionalClientScopes", List.of("admin", "root", "mcp:read"),
                "attributes", Map.of(ClientFacts.REGISTERED_SCOPE, "openid mcp:read")));
        for (Map<String, String> grant : List.of(Map.of("grant_type", "client_credentials"),
                Map.of("grant_type", "password", "username", "tester", "password", "secret"))) {
            Map<String, String> form = new LinkedHashMap<>(grant);
            form.putAll(Map.of("client_id", client.get("clientId").getAsString(), "client_secret", "s", "scope", "mcp:read"));
            Answer granted = ask(form);
            assertEquals(200, granted.status(), granted::toString);
            assertTrue(decided(json(granted)).contains("mcp:read"), granted::toString);
            for (String scope : List.of("root", "admin", "mcp:read root")) {
                form.put("scope", scope);
                assertRefused("invalid_scope", ask(form));
            }
            form.put("scope", "mcp:read");
            whileDown(() -> assertUnavailable(json(ask(form)).get("error").getAsString()));
            form.remove("scope");
            Answer omitted = ask(form);
            assertFalse(decided(json(omitted)).contains("mcp:read"), omitted::toString);
        }
    }

    @Test
    void client_credentials_get_the_part_that_the_policy_still_grants() {
        for (boolean hasRefresh : new boolean[] {false, true}) {
            JsonObject client = makeClient(Map.of("publicClient", false, "secret", "s", "serviceAccountsEnabled", true,
                    "optionalClientScopes", List.of("root", "mcp:read"), "attributes", Map.of(ClientFacts.REGISTERED_SCOPE,
                            "openid mcp:read root", "client_credentials.use_refresh_token", Boolean.toString(hasRefresh))));
            Answer granted = ask(Map.of("grant_type", "client_credentials", "client_id", client.get("clientId").getAsString(),
                    "client_secret", "s", "scope", "mcp:read root"));
            assertEquals(200, granted.status(), granted::toString);
            assertGranted(json(granted), "mcp:read");
            assertEquals(hasRefresh, json(granted).has("refresh_token"));
        }
    }

    @Test
    void a_refresh_cannot_ask_for_more() {
        String clientId = makeClient(Map.of("optionalClientScopes", List.of("admin", "root", "mcp:read", "offline_access"),
                "attributes", Map.of(ClientFacts.REGISTERED_SCOPE, "openid mcp:read"))).get("clientId").getAsString();
        JsonObject tokens = login(clientId, "openid mcp:read");
        for (String scope : List.of("openid mcp:read root", "root", "admin")) {
            assertRefused("invalid_scope", ask(Map.of("grant_type", "refresh_token", "client_id", clientId,
                    "refresh_token", tokens.get("refresh_token").getAsString(), "scope", scope)));
        }
        Answer narrow = ask(Map.of("grant_type", "refresh_token", "client_id", clientId,
                "refresh_token", tokens.get("refresh_token").getAsString(), "scope", "openid"));
        assertGranted(json(narrow), "openid");
        // RFC 6749 section 6: the new refresh token stands for what the old one did.
        assertGranted(refresh(clientId, json(narrow)), "openid", "mcp:read");
    }

    @Test
    void a_refresh_loses_what_the_policy_took_away_and_gains_nothing() {
        for (String scope : List.of("openid mcp:read", "openid mcp:read offline_access")) {
            JsonObject client = register("openid mcp:read");
            JsonObject tokens = login(id(client), scope);
            assertGranted(tokens, scope.split(" "));
            JsonObject[] fewer = new JsonObject[1];
            whilePolicyIs(WITHOUT_READ, () -> {
                fewer[0] = refresh(id(client), tokens);
                assertGranted(fewer[0], scope.replace(" mcp:read", "").split(" "));
                // Keycloak would make the one of an offline token by all that this stands for.
                assertEquals(!scope.contains("offline_access"), fewer[0].has("id_token"));
            });
            whilePolicyIs(POLICY.replace("baselineClientScopes: [", "baselineClientScopes: [\"mcp:write\", "), () ->
                    assertGranted(refresh(id(client), fewer[0]), scope.split(" ")));
        }
    }

    @Test
    void a_refresh_of_which_nothing_is_left_is_refused() {
        JsonObject client = register("mcp:read");
        JsonObject tokens = login(id(client), "mcp:read");
        Map<String, String> form = Map.of("grant_type", "refresh_token", "client_id", id(client), "refresh_token",
                tokens.get("refresh_token").getAsString());
        whilePolicyIs(WITHOUT_READ, () -> assertRefused("invalid_scope", ask(form)));
        whileDown(() -> {
            assertUnavailable(json(ask(form)).get("error").getAsString());
            assertRefused("invalid_grant", ask(Map.of("grant_type", "refresh_token", "client_id", id(client), "refresh_token", "x")));
        });
        assertGranted(json(ask(form)), "mcp:read");
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
    void a_token_exchange_gets_what_the_subject_token_has_and_the_policy_grants() {
        JsonObject client = makeClient(Map.of("publicClient", false, "secret", "s", "directAccessGrantsEnabled", true,
                "optionalClientScopes", List.of("root", "mcp:read", "mcp:write"),
                "attributes", Map.of(ClientFacts.REGISTERED_SCOPE, "openid mcp:read mcp:write", "standard.token.exchange.enabled", "true")));
        String clientId = client.get("clientId").getAsString();
        Map<String, String> login = new LinkedHashMap<>(Map.of("grant_type", "password", "client_id", clientId, "client_secret", "s",
                "username", "tester", "password", "secret", "scope", "mcp:read"));
        Map<String, String> form = new LinkedHashMap<>(Map.of("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange",
                "client_id", clientId, "client_secret", "s", "subject_token", json(ask(login)).get("access_token").getAsString(),
                "subject_token_type", "urn:ietf:params:oauth:token-type:access_token", "scope", "mcp:read"));
        assertGranted(json(ask(form)), "mcp:read");
        whileDown(() -> assertUnavailable(json(ask(form)).get("error").getAsString()));
        // RFC 8693 leaves it to the server; the client holds the second one, and the subject token does not.
        for (String scope : List.of("root", "mcp:read mcp:write")) {
            form.put("scope", scope);
            assertRefused("invalid_scope", ask(form));
        }
        form.remove("scope");
        Answer omitted = ask(form);
        assertEquals(Set.of(), decided(payload(json(omitted))), omitted::toString);

        login.put("scope", "mcp:read mcp:write");
        form.putAll(Map.of("subject_token", json(ask(login)).get("access_token").getAsString(), "scope", "mcp:read mcp:write"));
        assertGranted(json(ask(form)), "mcp:read", "mcp:write");
        whilePolicyIs(WITHOUT_READ, () -> assertGranted(json(ask(form)), "mcp:write"));
        form.put("subject_token", "x");
        assertRefused("invalid_request", ask(form));
    }

    @Test
    void an_assertion_of_another_issuer_gets_what_the_policy_grants_or_nothing() throws GeneralSecurityException {
        KeyPairGenerator generator = KeyPairGenerator.getInstance("RSA");
        generator.initialize(2048);
        KeyPair key = generator.generateKeyPair();
        String issuer = "https://issuer.example.com";
        admin("POST", "/identity-provider/instances", Map.of("alias", "issuer", "providerId", "jwt-authorization-grant", "enabled", true,
                "config", Map.of("issuer", issuer, "jwtAuthorizationGrantEnabled", "true", "publicKeySignatureVerifier",
                        Base64.getEncoder().encodeToString(key.getPublic().getEncoded()))));
        String user = admin("GET", "/users?username=tester", null).getAsJsonArray().get(0).getAsJsonObject().get("id").getAsString();
        admin("POST", "/users/" + user + "/federated-identity/issuer", Map.of("userId", "subject", "userName", "subject"));
        JsonObject client = makeClient(Map.of("publicClient", false, "secret", "s", "optionalClientScopes", List.of("root", "mcp:read"),
                "attributes", Map.of(ClientFacts.REGISTERED_SCOPE, "openid mcp:read",
                        "oauth2.jwt.authorization.grant.enabled", "true", "oauth2.jwt.authorization.grant.idp", "issuer")));
        Map<String, String> form = new LinkedHashMap<>(Map.of("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer",
                "client_id", client.get("clientId").getAsString(), "client_secret", "s"));

        form.putAll(Map.of("assertion", assertion(issuer, key, null), "scope", "mcp:read"));
        assertGranted(json(ask(form)), "mcp:read");
        for (String scope : List.of("root", "mcp:read root")) {
            form.putAll(Map.of("assertion", assertion(issuer, key, null), "scope", scope));
            assertRefused("invalid_scope", ask(form));
        }
        form.putAll(Map.of("assertion", assertion(issuer, key, null), "scope", "mcp:read"));
        whileDown(() -> assertUnavailable(json(ask(form)).get("error").getAsString()));
        // The scope in an assertion (ID-JAG) is what it stands for.
        form.putAll(Map.of("assertion", assertion(issuer, key, "mcp:read root"), "scope", "mcp:read root"));
        assertGranted(json(ask(form)), "mcp:read");
        form.putAll(Map.of("assertion", assertion(issuer, key, "openid"), "scope", "mcp:read"));
        assertRefused("invalid_scope", ask(form));
        form.put("assertion", assertion(issuer, key, "mcp:read"));
        form.remove("scope");
        Answer omitted = ask(form);
        assertEquals(200, omitted.status(), omitted::toString);
        assertEquals(Set.of(), decided(payload(json(omitted))));
    }

    /** A new one for each request (RFC 7523 section 3). */
    private static String assertion(String issuer, KeyPair key, String scope) throws GeneralSecurityException {
        long now = Instant.now().getEpochSecond();
        Base64.Encoder encoder = Base64.getUrlEncoder().withoutPadding();
        Map<String, Object> claims = new LinkedHashMap<>(Map.of("iss", issuer, "sub", "subject", "aud", keycloak.url() + REALM,
                "iat", now, "exp", now + 60, "jti", UUID.randomUUID().toString()));
        if (scope != null) {
            claims.put("scope", scope);
        }
        String content = encoder.encodeToString("{\"alg\":\"RS256\"}".getBytes(StandardCharsets.UTF_8)) + "."
                + encoder.encodeToString(GSON.toJson(claims).getBytes(StandardCharsets.UTF_8));
        Signature signature = Signature.getInstance("SHA256withRSA");
        signature.initSign(key.getPrivate());
        signature.update(content.getBytes(StandardCharsets.US_ASCII));
        return content + "." + encoder.encodeToString(signature.sign());
    }
}
