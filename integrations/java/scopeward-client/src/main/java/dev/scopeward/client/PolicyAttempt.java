package dev.scopeward.client;

import java.time.Instant;
import java.util.List;

/**
 * One try to make a policy of the files.
 *
 * @param attemptTime when the files were read
 * @param accepted true if they became the active policy, or mean the same as the active one
 * @param digest of the meaning if accepted, of the bytes if rejected
 * @param findings errors first; at most 1000
 * @param findingCount how many there are, sent or not
 */
public record PolicyAttempt(
        Instant attemptTime, boolean accepted, String digest, List<Finding> findings, long findingCount) {}
