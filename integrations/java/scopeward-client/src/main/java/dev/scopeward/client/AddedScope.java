package dev.scopeward.client;

/**
 * A scope that was granted although the client did not ask for it, or did not hold it.
 *
 * @param scope the token, such as {@code offline_access}
 * @param origin {@code BASELINE}, {@code DEFAULT}, {@code REGISTERED}, {@code STEP_UP} or {@code ALWAYS}; newer servers may have more
 * @param rule the client rule that brought it; empty if none did
 */
public record AddedScope(String scope, String origin, String rule) {}
