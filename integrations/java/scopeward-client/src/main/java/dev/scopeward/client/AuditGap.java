package dev.scopeward.client;

import java.time.Instant;
import java.util.Map;

/**
 * Events that could not be recorded. Alert on it.
 *
 * @param logId the log
 * @param sequence the position of the gap in the log
 * @param count how many events are missing
 * @param reason why, such as {@code DENIAL_RATE}
 * @param firstTime when the first of them happened
 * @param lastTime when the last of them happened
 * @param reasonCounts how many of them by reason of the denial; empty if they are not denials
 * @param toJson the line that {@code scopeward audit tail --output json} prints
 */
public record AuditGap(
        String logId,
        long sequence,
        long count,
        String reason,
        Instant firstTime,
        Instant lastTime,
        Map<String, Long> reasonCounts,
        String toJson)
        implements AuditRecord {}
