package dev.scopeward.client;

/**
 * A scope that was asked for and not granted.
 *
 * @param scope the token as received
 * @param reason why: {@code UNSUPPORTED}, {@code FORBIDDEN}, {@code UNREGISTERED}, {@code MALFORMED} …; newer servers may have more
 * @param message the same for people; may change, {@code reason} does not
 */
public record RefusedScope(String scope, String reason, String message) {}
