package dev.scopeward.client;

import com.google.protobuf.ProtocolMessageEnum;
import com.google.protobuf.Timestamp;
import dev.scopeward.v1.BatchCheckAuthorizeScopesRequest;
import dev.scopeward.v1.BatchCheckAuthorizeScopesResponse;
import dev.scopeward.v1.BatchCheckResult;
import dev.scopeward.v1.BatchCheckTokenResult;
import dev.scopeward.v1.BatchCheckTokenScopesRequest;
import dev.scopeward.v1.BatchCheckTokenScopesResponse;
import dev.scopeward.v1.CheckError;
import dev.scopeward.v1.CheckAuthorizeScopesRequest;
import dev.scopeward.v1.CheckAuthorizeScopesResponse;
import dev.scopeward.v1.CheckTokenScopesRequest;
import dev.scopeward.v1.CheckTokenScopesResponse;
import dev.scopeward.v1.Client;
import dev.scopeward.v1.Decision;
import dev.scopeward.v1.ExpandRegistrationScopesRequest;
import dev.scopeward.v1.ExpandRegistrationScopesResponse;
import dev.scopeward.v1.ScopePolicyServiceGrpc;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.function.Function;
import java.util.stream.Collectors;

/** Between the plain data of this package and the messages of the service. Does no I/O. */
final class Wire {
    // Clients choose their scope and metadata, and the service denies what is too much of them; but a message of more than 256 KiB it
    // does not read. So what is larger than this is cut to something that is surely denied as well.
    private static final int LARGE = 96 * 1024;
    private static final int CLIENT_BYTES = 64 * 1024;
    private static final int SCOPE_TOKENS = 256;
    private static final int SCOPE_TOKEN_BYTES = 512;

    private Wire() {}

    /** Loads the classes that the first questions and answers of a process need. */
    static void warmUp() {
        OAuthClient client = new OAuthClient(null, null, null, null, null, null, null, null);
        var added = dev.scopeward.v1.AddedScope.newBuilder().setScope("openid");
        var refused = dev.scopeward.v1.RefusedScope.newBuilder().setScope("openid");
        question(RegistrationQuestion.builder().scope("openid").client(client).build()).toByteString();
        answer(ExpandRegistrationScopesResponse.newBuilder()
                .setDecision(Decision.DECISION_ALLOW).setScope("openid").addAdded(added).addRefused(refused).build());
        question(AuthorizeQuestion.builder().scope("openid").client(client).build()).toByteString();
        answer(CheckAuthorizeScopesResponse.newBuilder()
                .setDecision(Decision.DECISION_ALLOW).setScope("openid").addAdded(added).addRefused(refused)
                .addAudienceGrants(dev.scopeward.v1.AudienceGrant.newBuilder()).build());
        question(TokenQuestion.builder(TokenGrant.REFRESH).grantedScope("openid").client(client).build()).toByteString();
        answer(CheckTokenScopesResponse.newBuilder()
                .setDecision(Decision.DECISION_ALLOW).setScope("openid").addRefused(refused).build());
        ScopePolicyServiceGrpc.getServiceDescriptor();
    }

    static ExpandRegistrationScopesRequest question(RegistrationQuestion question) {
        ExpandRegistrationScopesRequest.Builder message = ExpandRegistrationScopesRequest.newBuilder()
                .addAllAudiences(texts(question.audiences()))
                .setCorrelationId(text(question.correlationId()));
        if (question.scope() != null) {
            message.setScope(scope(question.scope()));
        }
        if (question.client() != null) {
            message.setClient(client(question.client()));
        }
        if (question.previousScope() != null) {
            message.setPreviousScope(text(question.previousScope()));
        }
        return message.build();
    }

    static CheckAuthorizeScopesRequest question(AuthorizeQuestion question) {
        CheckAuthorizeScopesRequest.Builder message = CheckAuthorizeScopesRequest.newBuilder()
                .addAllAudiences(texts(question.audiences()))
                .setCorrelationId(text(question.correlationId()));
        if (question.scope() != null) {
            message.setScope(scope(question.scope()));
        }
        if (question.client() != null) {
            message.setClient(client(question.client()));
        }
        if (question.registeredScope() != null) {
            message.setRegisteredScope(text(question.registeredScope()));
        }
        return message.build();
    }

    static BatchCheckAuthorizeScopesRequest question(List<AuthorizeQuestion> checks) {
        BatchCheckAuthorizeScopesRequest.Builder message = BatchCheckAuthorizeScopesRequest.newBuilder();
        checks.forEach(check -> message.addChecks(question(check)));
        return message.build();
    }

    static CheckTokenScopesRequest question(TokenQuestion question) {
        CheckTokenScopesRequest.Builder message = CheckTokenScopesRequest.newBuilder()
                .addAllAudiences(texts(question.audiences()))
                .setGrant(grant(question.grant()))
                .setCorrelationId(text(question.correlationId()));
        if (question.scope() != null) {
            message.setScope(scope(question.scope()));
        }
        if (question.grantedScope() != null) {
            message.setGrantedScope(text(question.grantedScope()));
        }
        if (question.registeredScope() != null) {
            message.setRegisteredScope(text(question.registeredScope()));
        }
        if (question.client() != null) {
            message.setClient(client(question.client()));
        }
        return message.build();
    }

    static BatchCheckTokenScopesRequest tokenQuestions(List<TokenQuestion> checks) {
        BatchCheckTokenScopesRequest.Builder message = BatchCheckTokenScopesRequest.newBuilder();
        checks.forEach(check -> message.addChecks(question(check)));
        return message.build();
    }

    private static dev.scopeward.v1.TokenGrant grant(TokenGrant grant) {
        if (grant == null) {
            return dev.scopeward.v1.TokenGrant.TOKEN_GRANT_UNSPECIFIED;
        }
        return switch (grant) {
            case REFRESH -> dev.scopeward.v1.TokenGrant.TOKEN_GRANT_REFRESH;
            case CLIENT_CREDENTIALS -> dev.scopeward.v1.TokenGrant.TOKEN_GRANT_CLIENT_CREDENTIALS;
            case JWT_BEARER -> dev.scopeward.v1.TokenGrant.TOKEN_GRANT_JWT_BEARER;
            case TOKEN_EXCHANGE -> dev.scopeward.v1.TokenGrant.TOKEN_GRANT_TOKEN_EXCHANGE;
        };
    }

    /** Puts U+FFFD for a lone surrogate, which has no UTF-8 and which protobuf would send as {@code ?}, a scope character. */
    static String text(String text) {
        StringBuilder replaced = null;
        for (int i = 0; i < text.length(); i++) {
            char unit = text.charAt(i);
            if (!Character.isSurrogate(unit)) {
                continue;
            }
            if (Character.isHighSurrogate(unit) && i + 1 < text.length() && Character.isLowSurrogate(text.charAt(i + 1))) {
                i++;
                continue;
            }
            if (replaced == null) {
                replaced = new StringBuilder(text);
            }
            replaced.setCharAt(i, '\ufffd');
        }
        return replaced == null ? text : replaced.toString();
    }

    static List<String> texts(List<String> texts) {
        return texts.stream().map(Wire::text).toList();
    }

    private static String scope(String scope) {
        String text = text(scope);
        if (text.getBytes(StandardCharsets.UTF_8).length <= LARGE) {
            return text;
        }
        return Arrays.stream(text.split(" "))
                .filter(token -> !token.isEmpty())
                .limit(SCOPE_TOKENS + 1)
                .map(token -> text(cut(token, SCOPE_TOKEN_BYTES + 1)))
                .collect(Collectors.joining(" "));
    }

    private static Client client(OAuthClient client) {
        Client.Builder message = Client.newBuilder()
                .setClientId(text(client.clientId()))
                .setSource(source(client.source()))
                .setClientName(text(client.clientName()))
                .setSoftwareId(text(client.softwareId()))
                .setSoftwareVersion(text(client.softwareVersion()))
                .addAllRedirectUris(texts(client.redirectUris()))
                .addAllGrantTypes(texts(client.grantTypes()))
                .setApplicationType(text(client.applicationType()));
        Client whole = message.build();
        if (whole.getSerializedSize() <= LARGE) {
            return whole;
        }
        String name = text(cut(whole.getClientName(), SCOPE_TOKEN_BYTES));
        return Client.newBuilder()
                .setClientId(text(cut(whole.getClientId(), SCOPE_TOKEN_BYTES)))
                .setSource(whole.getSource())
                .setClientName(name + ".".repeat(CLIENT_BYTES + 1 - name.length()))
                .build();
    }

    private static String cut(String text, int length) {
        return text.substring(0, Math.min(text.length(), length));
    }

    private static dev.scopeward.v1.ClientSource source(ClientSource source) {
        if (source == null) {
            return dev.scopeward.v1.ClientSource.CLIENT_SOURCE_UNSPECIFIED;
        }
        return switch (source) {
            case DCR -> dev.scopeward.v1.ClientSource.CLIENT_SOURCE_DCR;
            case CIMD -> dev.scopeward.v1.ClientSource.CLIENT_SOURCE_CIMD;
            case STATIC -> dev.scopeward.v1.ClientSource.CLIENT_SOURCE_STATIC;
        };
    }

    static OAuthClient client(Client client) {
        ClientSource source = switch (client.getSource()) {
            case CLIENT_SOURCE_DCR -> ClientSource.DCR;
            case CLIENT_SOURCE_CIMD -> ClientSource.CIMD;
            case CLIENT_SOURCE_STATIC -> ClientSource.STATIC;
            case CLIENT_SOURCE_UNSPECIFIED, UNRECOGNIZED -> null;
        };
        return new OAuthClient(
                client.getClientId(),
                source,
                client.getClientName(),
                client.getSoftwareId(),
                client.getSoftwareVersion(),
                client.getRedirectUrisList(),
                client.getGrantTypesList(),
                client.getApplicationType());
    }

    /** The name without prefix; the number of a value that only newer servers know; empty for unspecified. */
    static String enumName(String prefix, ProtocolMessageEnum value, int number) {
        if (number == 0) {
            return "";
        }
        String name = ((Enum<?>) value).name();
        return name.startsWith(prefix) ? name.substring(prefix.length()) : Integer.toString(number);
    }

    static List<AddedScope> added(List<dev.scopeward.v1.AddedScope> items) {
        return map(items, item -> new AddedScope(
                item.getScope(), enumName("ORIGIN_", item.getOrigin(), item.getOriginValue()), item.getRule()));
    }

    static List<RefusedScope> refused(List<dev.scopeward.v1.RefusedScope> items) {
        return map(items, item -> new RefusedScope(
                item.getScope(), enumName("REASON_", item.getReason(), item.getReasonValue()), item.getMessage()));
    }

    static PolicyVersion policy(dev.scopeward.v1.PolicyVersion policy) {
        return new PolicyVersion(policy.getGeneration(), policy.getDigest());
    }

    static RegistrationAnswer answer(ExpandRegistrationScopesResponse answer) {
        if (answer.getDecision() != Decision.DECISION_ALLOW || answer.getScope().isEmpty()) {
            throw failure(QuestionKind.REGISTRATION, answer.getDecisionValue(), answer.getOauthError(),
                    enumName("REASON_", answer.getReason(), answer.getReasonValue()), answer.getRefusedList(),
                    answer.getPolicy(), answer.getDecisionId());
        }
        return new RegistrationAnswer(answer.getScope(), added(answer.getAddedList()), refused(answer.getRefusedList()),
                policy(answer.getPolicy()), answer.getDecisionId());
    }

    static AuthorizeAnswer answer(CheckAuthorizeScopesResponse answer) {
        if (answer.getDecision() != Decision.DECISION_ALLOW || answer.getScope().isEmpty()) {
            throw failure(QuestionKind.AUTHORIZE, answer.getDecisionValue(), answer.getOauthError(),
                    enumName("REASON_", answer.getReason(), answer.getReasonValue()), answer.getRefusedList(),
                    answer.getPolicy(), answer.getDecisionId());
        }
        // A server from before the field leaves it empty, and what was granted is enough for any check within the request.
        String effective = answer.getEffectiveRegisteredScope();
        return new AuthorizeAnswer(answer.getScope(), added(answer.getAddedList()), refused(answer.getRefusedList()),
                grants(answer.getAudienceGrantsList()),
                effective.isEmpty() ? answer.getScope() : effective, policy(answer.getPolicy()), answer.getDecisionId());
    }

    static TokenAnswer answer(CheckTokenScopesResponse answer) {
        if (answer.getDecision() != Decision.DECISION_ALLOW || answer.getScope().isEmpty()) {
            throw failure(QuestionKind.TOKEN, answer.getDecisionValue(), answer.getOauthError(),
                    enumName("REASON_", answer.getReason(), answer.getReasonValue()), answer.getRefusedList(),
                    answer.getPolicy(), answer.getDecisionId());
        }
        return new TokenAnswer(answer.getScope(), refused(answer.getRefusedList()), grants(answer.getAudienceGrantsList()),
                policy(answer.getPolicy()), answer.getDecisionId());
    }

    private static List<AudienceGrant> grants(List<dev.scopeward.v1.AudienceGrant> items) {
        return map(items, item -> new AudienceGrant(item.getAudience(), item.getScope()));
    }

    /** What is no grant: a denial if it is a whole one, and no answer otherwise. */
    private static ScopewardException failure(
            QuestionKind kind,
            int decision,
            dev.scopeward.v1.OAuthError error,
            String reason,
            List<dev.scopeward.v1.RefusedScope> refused,
            dev.scopeward.v1.PolicyVersion policy,
            String decisionId) {
        if (decision == Decision.DECISION_DENY_VALUE && !error.getError().isEmpty()) {
            return new DeniedException(new OAuthError(error.getError(), error.getErrorDescription()), reason,
                    refused(refused), policy(policy), decisionId);
        }
        return notUnderstood(kind, "decision " + decision + " is not understood");
    }

    static UnavailableException notUnderstood(QuestionKind kind, String message) {
        return new UnavailableException(kind, "UNKNOWN", message, ErrorDetails.NONE, null);
    }

    static List<AuthorizeOutcome> answers(BatchCheckAuthorizeScopesResponse answer, int count) {
        return outcomes(QuestionKind.AUTHORIZE, answer.getResultsList(), count, Wire::outcome);
    }

    static List<TokenOutcome> tokenAnswers(BatchCheckTokenScopesResponse answer, int count) {
        return outcomes(QuestionKind.TOKEN, answer.getResultsList(), count, Wire::outcome);
    }

    private static <A, B> List<B> outcomes(QuestionKind kind, List<A> results, int count, Function<A, B> outcome) {
        if (results.size() != count) {
            throw notUnderstood(kind, results.size() + " answers to " + count + " checks");
        }
        return map(results, outcome);
    }

    private static AuthorizeOutcome outcome(BatchCheckResult result) {
        try {
            if (result.hasError()) {
                throw failure(QuestionKind.AUTHORIZE, result.getError());
            }
            return new AuthorizeOutcome(answer(result.getResponse()), null);
        } catch (ScopewardException failure) {
            return new AuthorizeOutcome(null, failure);
        }
    }

    private static TokenOutcome outcome(BatchCheckTokenResult result) {
        try {
            if (result.hasError()) {
                throw failure(QuestionKind.TOKEN, result.getError());
            }
            return new TokenOutcome(answer(result.getResponse()), null);
        } catch (ScopewardException failure) {
            return new TokenOutcome(null, failure);
        }
    }

    private static UnavailableException failure(QuestionKind kind, CheckError error) {
        String code = io.grpc.Status.fromCodeValue(error.getCode()).getCode().name();
        return new UnavailableException(kind, code, error.getMessage(), new ErrorDetails(error.getReason(), Map.of(), null), null);
    }

    static AudienceDescription description(dev.scopeward.v1.AudienceDescription item) {
        return new AudienceDescription(item.getAudience(), List.copyOf(item.getScopesSupportedList()),
                List.copyOf(item.getAdvertisedScopesList()), List.copyOf(item.getBaselineClientScopesList()),
                List.copyOf(item.getDefaultClientScopesList()), List.copyOf(item.getPrivilegedScopesList()),
                List.copyOf(item.getStepUpScopesList()), item.getScopeMatching(),
                Map.copyOf(item.getScopeDescriptionsMap()), item.getDescription(),
                List.copyOf(item.getAliasesList()));
    }

    static PolicyStatus status(dev.scopeward.v1.PolicyStatus status) {
        return new PolicyStatus(
                status.hasActive() ? policy(status.getActive()) : null,
                status.hasLoadTime() ? instant(status.getLoadTime()) : null,
                status.getSource(),
                unsigned(status.getAudienceCount()),
                status.hasLastAttempt() ? attempt(status.getLastAttempt()) : null,
                conditions(status.getConditionsList()),
                map(status.getAudienceStatusesList(),
                        item -> new AudienceStatus(item.getAudience(), conditions(item.getConditionsList()))),
                unsigned(status.getAudienceStatusCount()));
    }

    private static PolicyAttempt attempt(dev.scopeward.v1.PolicyAttempt attempt) {
        return new PolicyAttempt(
                instant(attempt.getAttemptTime()),
                attempt.getAccepted(),
                attempt.getDigest(),
                map(attempt.getFindingsList(), item -> new Finding(item.getFile(), unsigned(item.getLine()),
                        unsigned(item.getColumn()), item.getCode(), item.getSeverity(), item.getAudience(), item.getValue(),
                        item.getMessage(), item.getSuggestion())),
                unsigned(attempt.getFindingCount()));
    }

    private static List<Condition> conditions(List<dev.scopeward.v1.Condition> items) {
        return map(items, item -> new Condition(item.getType(), item.getStatus(), item.getReason(), item.getMessage(),
                item.getObservedGeneration(), item.hasLastTransitionTime() ? instant(item.getLastTransitionTime()) : null));
    }

    static Instant instant(Timestamp time) {
        return Instant.ofEpochSecond(time.getSeconds(), time.getNanos());
    }

    static long unsigned(int value) {
        return Integer.toUnsignedLong(value);
    }

    static <A, B> List<B> map(List<A> items, Function<A, B> change) {
        List<B> changed = new ArrayList<>(items.size());
        items.forEach(item -> changed.add(change.apply(item)));
        return List.copyOf(changed);
    }
}
