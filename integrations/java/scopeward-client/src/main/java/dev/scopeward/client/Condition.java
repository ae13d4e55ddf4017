package dev.scopeward.client;

import java.time.Instant;

/**
 * Something that is true or false of the server or an audience.
 *
 * @param type such as {@code PolicyAccepted}
 * @param status {@code True}, {@code False} or {@code Unknown}
 * @param reason why, for machines
 * @param message why, for people
 * @param observedGeneration the generation of the policy that it is about
 * @param lastTransitionTime when the status changed last; null if never
 */
public record Condition(
        String type, String status, String reason, String message, long observedGeneration, Instant lastTransitionTime) {}
