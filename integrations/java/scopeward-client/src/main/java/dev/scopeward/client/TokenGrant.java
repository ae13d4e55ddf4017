package dev.scopeward.client;

/** What a client presents at the token endpoint. */
public enum TokenGrant {
    /** A refresh token (RFC 6749 section 6). */
    REFRESH,
    /** The client's own credentials (RFC 6749 section 4.4). */
    CLIENT_CREDENTIALS,
    /** A JWT as authorization grant (RFC 7523 section 2.1), such as an identity assertion (ID-JAG). */
    JWT_BEARER,
    /** Another token (RFC 8693). */
    TOKEN_EXCHANGE
}
