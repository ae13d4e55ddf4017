package dev.scopeward.client;

import java.time.Instant;
import java.util.List;

/**
 * One audited decision or policy change. Texts are empty and lists are empty where the event has nothing to say.
 *
 * @param logId the log
 * @param sequence the position in the log, from 1
 * @param eventId a UUIDv7, the same if the event is delivered again
 * @param eventTime when it was decided
 * @param kind {@code EXPANSION}, {@code DENIAL}, {@code POLICY_CHANGE}, {@code LOG_OPENED}, {@code ACCESS_CHANGE}; newer servers may
 *     have more
 * @param decisionId the answer that the caller got
 * @param method the path of the RPC
 * @param audiences those that decided, as in the policy; as asked, if the audience was refused
 * @param askedAudiences as the request named them
 * @param client as the client claims to be; null if the request had none
 * @param clientTruncated whether its metadata was cut to 4 KiB
 * @param requestedScope as received; null if it was left out
 * @param registeredScope as received, at registration the previous scope; null if it was left out
 * @param grantedScope at the token endpoint the scopes of the grant as received; null if they were left out
 * @param grant at the token endpoint what the client presented, such as {@code REFRESH}; else empty
 * @param effectiveScope the granted scopes; empty on a denial
 * @param added the scopes that the client got without asking
 * @param refused the scopes that were refused
 * @param reason why the whole was denied
 * @param policy the policy that decided, or the one in force after a change
 * @param policyChange set for changes only, else null
 * @param logOpened set for the first record of a log only, else null
 * @param callerName the caller in the access file
 * @param authenticatedBy {@code mtls}, {@code token} or {@code unix}
 * @param peer where the call came from
 * @param traceId 32 hex digits
 * @param attempt the caller's retry count
 * @param correlationId of the request
 * @param toJson the line that {@code scopeward audit tail --output json} prints
 */
public record AuditEvent(
        String logId,
        long sequence,
        String eventId,
        Instant eventTime,
        String kind,
        String decisionId,
        String method,
        List<String> audiences,
        List<String> askedAudiences,
        OAuthClient client,
        boolean clientTruncated,
        String requestedScope,
        String registeredScope,
        String grantedScope,
        String grant,
        String effectiveScope,
        List<AddedScope> added,
        List<RefusedScope> refused,
        String reason,
        PolicyVersion policy,
        PolicyChange policyChange,
        LogOpened logOpened,
        String callerName,
        String authenticatedBy,
        String peer,
        String traceId,
        long attempt,
        String correlationId,
        String toJson)
        implements AuditRecord {}
