package dev.scopeward.client;

/**
 * A new log that continues a damaged or missing one.
 *
 * @param previousLogId the log before; empty if it could not be read
 * @param previousSequence the last good sequence of that log; 0 if there is none
 * @param cause why, for people
 */
public record LogOpened(String previousLogId, long previousSequence, String cause) {}
