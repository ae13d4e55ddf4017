package dev.scopeward.client;

import java.time.Instant;
import java.util.List;

/**
 * Which policy serves, and what the last attempt to change it came to.
 *
 * @param active the policy that serves; null before the first
 * @param loadTime when it was taken over; null before the first
 * @param source the directory that policies are read from, as configured
 * @param audienceCount how many audiences the active policy declares
 * @param lastAttempt the newest attempt, accepted or not; null before the first
 * @param conditions the conditions of the whole: one per type
 * @param audienceStatuses those of audiences in trouble first; at most 1000
 * @param audienceStatusCount how many there are, sent or not
 */
public record PolicyStatus(
        PolicyVersion active,
        Instant loadTime,
        String source,
        long audienceCount,
        PolicyAttempt lastAttempt,
        List<Condition> conditions,
        List<AudienceStatus> audienceStatuses,
        long audienceStatusCount) {}
