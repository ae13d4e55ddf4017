package dev.scopeward.client;

/** One record of the audit log: an {@link AuditEvent} or an {@link AuditGap}. */
public sealed interface AuditRecord permits AuditEvent, AuditGap {
    /**
     * Returns the log.
     *
     * @return a UUID
     */
    String logId();

    /**
     * Returns the position in the log.
     *
     * @return contiguous, from 1
     */
    long sequence();

    /**
     * Returns the line that {@code scopeward audit tail --output json} prints.
     *
     * @return a JSON object on one line, with hashes in hexadecimal digits; that of a gap is in a member {@code gap}
     */
    String toJson();
}
