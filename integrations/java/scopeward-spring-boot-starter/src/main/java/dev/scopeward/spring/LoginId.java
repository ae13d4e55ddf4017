package dev.scopeward.spring;

import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Objects;

/**
 * One id for all requests of a login: the same before and after the user has signed in, for a pushed request and the one that uses it,
 * and for a reload.
 *
 * <p>It is made of the parameters that the client sends with each of them. Client libraries make the last three new for each login.
 */
final class LoginId {
    private LoginId() {}

    static String of(String clientId, String redirectUri, String state, Map<String, Object> parameters) {
        List<String> parts = List.of(clientId, text(redirectUri), text(state), text(parameters.get("code_challenge")), text(parameters.get("nonce")));
        try {
            byte[] sum = MessageDigest.getInstance("SHA-256").digest(String.join("\0", parts).getBytes(StandardCharsets.UTF_8));
            return HexFormat.of().formatHex(sum, 0, 16);
        } catch (NoSuchAlgorithmException error) {
            throw new IllegalStateException(error);
        }
    }

    private static String text(Object parameter) {
        return Objects.requireNonNullElse(parameter, "") instanceof String text ? text : "";
    }
}
