package dev.scopeward.testing;

import com.google.gson.Gson;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import dev.scopeward.testing.UserAgent.Answer;
import dev.scopeward.testing.UserAgent.Parameter;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.UUID;

/** A confidential OAuth client that registers, logs in with PKCE and refreshes, with the endpoints of a Spring Authorization Server. */
public final class Tool {
    private final UserAgent browser;
    private final String clientId;
    private final String secret;
    private final String verifier = UUID.randomUUID().toString().repeat(2);

    /**
     * Takes a client that the server knows.
     *
     * @param browser whose user logs in
     * @param clientId the id of the client
     * @param secret its secret
     */
    public Tool(UserAgent browser, String clientId, String secret) {
        this.browser = browser;
        this.clientId = clientId;
        this.secret = secret;
    }

    /**
     * Takes a client that has just registered.
     *
     * @param browser whose user logs in
     * @param registered the answer of the server
     * @return the client
     */
    public static Tool of(UserAgent browser, Answer registered) {
        JsonObject client = registered.json();
        return new Tool(browser, client.get("client_id").getAsString(), client.get("client_secret").getAsString());
    }

    /**
     * Registers a client.
     *
     * @param browser any
     * @param scope null leaves it out
     * @return the answer
     */
    public static Answer register(UserAgent browser, String scope) {
        Map<String, Object> metadata = new LinkedHashMap<>();
        metadata.put("client_name", "Tool");
        metadata.put("redirect_uris", List.of(UserAgent.REDIRECT_URI));
        metadata.put("grant_types", List.of("authorization_code", "refresh_token"));
        if (scope != null) {
            metadata.put("scope", scope);
        }
        return browser.postJson("/oauth2/register", new Gson().toJson(metadata), Map.of());
    }

    /**
     * Reads the scope of an answer, of which the server loses the order.
     *
     * @param answer of registration or token endpoint
     * @return the scopes, sorted
     */
    public static Set<String> scopes(Answer answer) {
        JsonElement scope = answer.json().get("scope");
        return scope == null ? Set.of() : scopes(scope.getAsString());
    }

    /**
     * Splits scopes.
     *
     * @param scope with single blanks
     * @return the scopes, sorted
     */
    public static Set<String> scopes(String scope) {
        return new TreeSet<>(Arrays.asList(scope.split(" ")));
    }

    /**
     * Returns the parameters of an authorization request.
     *
     * @param scope null leaves it out
     * @param more names and values in turn
     * @return the parameters
     */
    public List<Parameter> request(String scope, String... more) {
        List<Parameter> parameters = new ArrayList<>(UserAgent.parameters(
                "response_type", "code", "client_id", clientId, "redirect_uri", UserAgent.REDIRECT_URI, "state", "st-" + UUID.randomUUID(),
                "code_challenge", challenge(verifier), "code_challenge_method", "S256", "scope", scope));
        parameters.addAll(UserAgent.parameters(more));
        return parameters;
    }

    /**
     * Asks at the authorization endpoint.
     *
     * @param scope null leaves it out
     * @param more names and values in turn
     * @return what comes in the end
     */
    public Answer authorize(String scope, String... more) {
        return browser.authorize("/oauth2/authorize", request(scope, more));
    }

    /**
     * Asks at the authorization endpoint, and exchanges the code.
     *
     * @param scope null leaves it out
     * @param more names and values in turn
     * @return the answer of the token endpoint
     */
    public Answer login(String scope, String... more) {
        return exchange(authorize(scope, more));
    }

    /**
     * Exchanges the code.
     *
     * @param redirect to the client
     * @return the answer of the token endpoint
     */
    public Answer exchange(Answer redirect) {
        String code = redirect.redirected().get("code");
        if (code == null) {
            throw new IllegalStateException("no code: " + redirect);
        }
        return post("/oauth2/token", UserAgent.parameters("grant_type", "authorization_code", "code", code, "redirect_uri",
                UserAgent.REDIRECT_URI, "code_verifier", verifier));
    }

    /**
     * Refreshes.
     *
     * @param tokens an answer of the token endpoint
     * @return the next one
     */
    public Answer refresh(Answer tokens) {
        return post("/oauth2/token", UserAgent.parameters(
                "grant_type", "refresh_token", "refresh_token", tokens.json().get("refresh_token").getAsString()));
    }

    /**
     * Sends a form as this client.
     *
     * @param path of the endpoint
     * @param form its fields
     * @return the answer
     */
    public Answer post(String path, List<Parameter> form) {
        String basic = Base64.getEncoder().encodeToString((clientId + ":" + secret).getBytes(StandardCharsets.UTF_8));
        return browser.post(path, form, Map.of("Authorization", "Basic " + basic));
    }

    /**
     * Returns the id.
     *
     * @return that of the client
     */
    public String clientId() {
        return clientId;
    }

    private static String challenge(String verifier) {
        try {
            byte[] sum = MessageDigest.getInstance("SHA-256").digest(verifier.getBytes(StandardCharsets.US_ASCII));
            return Base64.getUrlEncoder().withoutPadding().encodeToString(sum);
        } catch (NoSuchAlgorithmException error) {
            throw new IllegalStateException(error);
        }
    }
}
