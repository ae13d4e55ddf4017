package dev.scopeward.client;

import java.io.Serializable;

/**
 * The error to send to an OAuth client.
 *
 * @param error the code: at registration {@code invalid_client_metadata} (RFC 7591 section 3.2.2) or {@code server_error}; at
 *     authorize {@code invalid_scope}, {@code invalid_target} (RFC 8707 section 2), {@code temporarily_unavailable} or
 *     {@code server_error} (RFC 6749 section 4.1.2.1), at the token endpoint the same (section 5.2)
 * @param errorDescription at most 512 bytes of printable ASCII without quote and backslash; has nothing of the service
 * @serial exclude
 */
public record OAuthError(String error, String errorDescription) implements Serializable {
    private static final long serialVersionUID = 1L;
}
