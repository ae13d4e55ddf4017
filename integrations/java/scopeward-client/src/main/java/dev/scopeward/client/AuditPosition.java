package dev.scopeward.client;

/**
 * A place in one audit log: after the record of this sequence.
 *
 * @param logId the log: a UUID
 * @param sequence 0 is before the first record
 */
public record AuditPosition(String logId, long sequence) {}
