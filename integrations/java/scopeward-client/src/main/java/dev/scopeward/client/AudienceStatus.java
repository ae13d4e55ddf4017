package dev.scopeward.client;

import java.util.List;

/**
 * The conditions of one audience.
 *
 * @param audience spelled as in the policy
 * @param conditions one per type
 */
public record AudienceStatus(String audience, List<Condition> conditions) {}
