package dev.scopeward.client;

import java.util.List;

/**
 * A change, or a refused change, of the policy or of the access file.
 *
 * @param accepted whether it was taken over
 * @param previousDigest the digest before; empty if there was none
 * @param findingCount how many findings the attempt had
 * @param changes what changed, in words: at most the first 50
 * @param changeCount how many changes there are, listed or not
 * @param wideningCount how many of them widen what clients may get
 */
public record PolicyChange(
        boolean accepted,
        String previousDigest,
        long findingCount,
        List<String> changes,
        long changeCount,
        long wideningCount) {}
