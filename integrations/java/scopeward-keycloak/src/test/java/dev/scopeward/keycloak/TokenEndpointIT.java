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

        form.putAll(Map.of("assertion", assertion(issuer, key), "scope", "mcp:read"));
        Answer granted = keycloak.form(PROTOCOL + "/token", form);
        assertEquals(200, granted.status(), granted::toString);
        assertTrue(decided(payload(json(granted))).contains("mcp:read"), granted::toString);
        for (String scope : List.of("root", "mcp:read root")) {
            form.putAll(Map.of("assertion", assertion(issuer, key), "scope", scope));
            Answer denied = keycloak.form(PROTOCOL + "/token", form);
            assertEquals("invalid_scope", json(denied).get("error").getAsString(), denied::toString);
        }
        form.putAll(Map.of("assertion", assertion(issuer, key), "scope", "mcp:read"));
        whileDown(() -> assertUnavailable(json(keycloak.form(PROTOCOL + "/token", form)).get("error").getAsString()));
        form.put("assertion", assertion(issuer, key));
        form.remove("scope");
        Answer omitted = keycloak.form(PROTOCOL + "/token", form);
        assertEquals(200, omitted.status(), omitted::toString);
        assertEquals(Set.of(), decided(payload(json(omitted))));
    }

    /** A new one for each request (RFC 7523 section 3). */
    private static String assertion(String issuer, KeyPair key) throws GeneralSecurityException {
        long now = Instant.now().getEpochSecond();
        Base64.Encoder encoder = Base64.getUrlEncoder().withoutPadding();
        String content = encoder.encodeToString("{\"alg\":\"RS256\"}".getBytes(StandardCharsets.UTF_8)) + "."
                + encoder.encodeToString(GSON.toJson(Map.of("iss", issuer, "sub", "subject", "aud", keycloak.url() + REALM, "iat", now,
                        "exp", now + 60, "jti", UUID.randomUUID().toString())).getBytes(StandardCharsets.UTF_8));
        Signature signature = Signature.getInstance("SHA256withRSA");
        signature.initSign(key.getPrivate());
        signature.update(content.getBytes(StandardCharsets.US_ASCII));
        return content + "." + encoder.encodeToString(signature.sign());
    }
}
