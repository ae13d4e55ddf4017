package dev.scopeward.client;

/** Where an authorization server knows a client from. */
public enum ClientSource {
    /** Dynamic registration (RFC 7591). */
    DCR,
    /** A client id metadata document: the client id is the https URL of the client's metadata. */
    CIMD,
    /** Configured by an operator. */
    STATIC
}
