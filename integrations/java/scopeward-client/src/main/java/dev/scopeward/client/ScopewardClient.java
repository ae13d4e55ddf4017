package dev.scopeward.client;

import com.google.common.util.concurrent.FutureCallback;
import com.google.common.util.concurrent.Futures;
import com.google.common.util.concurrent.ListenableFuture;
import com.google.common.util.concurrent.MoreExecutors;
import dev.scopeward.v1.DescribeAudienceRequest;
import dev.scopeward.v1.DescribeAudienceResponse;
import dev.scopeward.v1.GetPolicyStatusRequest;
import dev.scopeward.v1.PolicyStatusServiceGrpc;
import dev.scopeward.v1.ScopePolicyServiceGrpc;
import dev.scopeward.v1.WatchPolicyStatusRequest;
import dev.scopeward.v1.WatchPolicyStatusResponse;
import io.grpc.CallOptions;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.ClientCalls;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.function.Function;

/**
 * Asks Scopeward. Methods block until they have the answer or the deadline passes; those with {@code Async} in their name return a
 * future that then completes, exceptionally with what the blocking method throws.
 *
 * <p>Make one for each process and keep it: it connects while it is made, reconnects by itself within a second, and may be used by all
 * threads. That the service is down while it is made is no error.
 *
 * <p>Every method that asks throws {@link UnavailableException} where there is no answer.
 */
public final class ScopewardClient implements AutoCloseable {
    /** The deadline of calls if none is set: one second, retries included. */
    public static final Duration DEFAULT_DEADLINE = Duration.ofSeconds(1);

    private final Connection connection;
    private final Duration deadline;

    private ScopewardClient(Connection connection, Duration deadline) {
        this.connection = connection;
        this.deadline = deadline;
    }

    private static Duration checked(Duration deadline) {
        if (deadline.isNegative() || deadline.isZero()) {
            throw new IllegalArgumentException("the deadline " + deadline + " is not positive");
        }
        return deadline;
    }

    /**
     * Names the server.
     *
     * @param targets one of {@code HOST:PORT}, {@code http://HOST:PORT}, {@code https://HOST:PORT}, {@code unix:/PATH} and
     *     {@code dns:///NAME:PORT}, or several IP addresses. Calls go round robin over all addresses that a name has, leaving out those
     *     that are not healthy
     * @return a builder with nothing else set
     */
    public static Builder builder(String... targets) {
        return new Builder(List.of(targets));
    }

    /**
     * Makes a client for a server of this machine or network that needs neither TLS nor a token, as {@link Builder#build} does.
     *
     * @param target as for {@link #builder}
     * @return the client
     * @throws IllegalArgumentException if the text is not a target
     */
    public static ScopewardClient create(String target) {
        return builder(target).build();
    }

    /**
     * Returns the same client with another deadline for its calls.
     *
     * @param deadline what a call may take, retries included; more than zero
     * @return a client with the same connection: closing one closes both
     */
    public ScopewardClient withDeadline(Duration deadline) {
        return new ScopewardClient(connection, checked(deadline));
    }

    /** Ends calls and streams that are open, and refuses new ones. */
    @Override
    public void close() {
        connection.close();
    }

    /**
     * Asks which scopes a client holds after it registers (RFC 7591) or updates its registration (RFC 7592).
     *
     * @param question what the client sent
     * @return what to store and to return
     * @throws DeniedException with the error for HTTP 400
     * @throws UnavailableException answer {@link ScopewardException#httpStatus()} with {@link ScopewardException#oauthError()}
     */
    public RegistrationAnswer expandRegistrationScopes(RegistrationQuestion question) {
        return Wire.answer(ask(QuestionKind.REGISTRATION, ScopePolicyServiceGrpc.getExpandRegistrationScopesMethod(),
                Wire.question(question)));
    }

    /**
     * Asks as {@link #expandRegistrationScopes} does.
     *
     * @param question what the client sent
     * @return a future; cancelling it cancels the call
     */
    public CompletableFuture<RegistrationAnswer> expandRegistrationScopesAsync(RegistrationQuestion question) {
        return askAsync(QuestionKind.REGISTRATION, ScopePolicyServiceGrpc.getExpandRegistrationScopesMethod(),
                Wire.question(question), Wire::answer);
    }

    /**
     * Asks which scopes an authorize request gets (RFC 6749 section 3.3). Not for the token endpoint, where nothing may be added: see
     * {@link #checkTokenScopes}.
     *
     * @param question what the client sent, and what is stored
     * @return what to grant
     * @throws DeniedException with the error for the redirect
     * @throws UnavailableException with the error for the redirect
     */
    public AuthorizeAnswer checkAuthorizeScopes(AuthorizeQuestion question) {
        return Wire.answer(ask(QuestionKind.AUTHORIZE, ScopePolicyServiceGrpc.getCheckAuthorizeScopesMethod(),
                Wire.question(question)));
    }

    /**
     * Asks as {@link #checkAuthorizeScopes} does.
     *
     * @param question what the client sent, and what is stored
     * @return a future; cancelling it cancels the call
     */
    public CompletableFuture<AuthorizeAnswer> checkAuthorizeScopesAsync(AuthorizeQuestion question) {
        return askAsync(QuestionKind.AUTHORIZE, ScopePolicyServiceGrpc.getCheckAuthorizeScopesMethod(),
                Wire.question(question), Wire::answer);
    }

    /**
     * Asks up to 100 checks, answered under one policy version.
     *
     * @param checks the checks
     * @return what each came to, in the order asked; denials are in the list, not thrown
     * @throws UnavailableException if the whole has no answer
     */
    public List<AuthorizeOutcome> batchCheckAuthorizeScopes(List<AuthorizeQuestion> checks) {
        return Wire.answers(ask(QuestionKind.AUTHORIZE, ScopePolicyServiceGrpc.getBatchCheckAuthorizeScopesMethod(),
                Wire.question(checks)), checks.size());
    }

    /**
     * Asks as {@link #batchCheckAuthorizeScopes} does.
     *
     * @param checks the checks
     * @return a future; cancelling it cancels the call
     */
    public CompletableFuture<List<AuthorizeOutcome>> batchCheckAuthorizeScopesAsync(List<AuthorizeQuestion> checks) {
        int count = checks.size();
        return askAsync(QuestionKind.AUTHORIZE, ScopePolicyServiceGrpc.getBatchCheckAuthorizeScopesMethod(),
                Wire.question(checks), answer -> Wire.answers(answer, count));
    }

    /**
     * Asks which scopes a token gets at the token endpoint: a refresh (RFC 6749 section 6), client credentials (section 4.4), a JWT grant
     * (RFC 7523) or a token exchange (RFC 8693). Only narrows: a refresh gains nothing because the policy changed.
     *
     * @param question what the client sent, and what its grant stands for
     * @return what the token gets
     * @throws DeniedException with the error for HTTP 400
     * @throws UnavailableException answer {@link ScopewardException#httpStatus()} with {@link ScopewardException#oauthError()}; code {@code
     *     UNIMPLEMENTED} if the service is older than this question
     */
    public TokenAnswer checkTokenScopes(TokenQuestion question) {
        return Wire.answer(ask(QuestionKind.TOKEN, ScopePolicyServiceGrpc.getCheckTokenScopesMethod(), Wire.question(question)));
    }

    /**
     * Asks as {@link #checkTokenScopes} does.
     *
     * @param question what the client sent, and what its grant stands for
     * @return a future; cancelling it cancels the call
     */
    public CompletableFuture<TokenAnswer> checkTokenScopesAsync(TokenQuestion question) {
        return askAsync(QuestionKind.TOKEN, ScopePolicyServiceGrpc.getCheckTokenScopesMethod(), Wire.question(question), Wire::answer);
    }

    /**
     * Asks up to 100 token checks, answered under one policy version.
     *
     * @param checks the checks
     * @return what each came to, in the order asked; denials are in the list, not thrown
     * @throws UnavailableException if the whole has no answer
     */
    public List<TokenOutcome> batchCheckTokenScopes(List<TokenQuestion> checks) {
        return Wire.tokenAnswers(ask(QuestionKind.TOKEN, ScopePolicyServiceGrpc.getBatchCheckTokenScopesMethod(),
                Wire.tokenQuestions(checks)), checks.size());
    }

    /**
     * Asks as {@link #batchCheckTokenScopes} does.
     *
     * @param checks the checks
     * @return a future; cancelling it cancels the call
     */
    public CompletableFuture<List<TokenOutcome>> batchCheckTokenScopesAsync(List<TokenQuestion> checks) {
        int count = checks.size();
        return askAsync(QuestionKind.TOKEN, ScopePolicyServiceGrpc.getBatchCheckTokenScopesMethod(),
                Wire.tokenQuestions(checks), answer -> Wire.tokenAnswers(answer, count));
    }

    /**
     * Returns what the policy says about one audience: what belongs into discovery documents and consent pages.
     *
     * @param audience as the policy spells it, or an alias
     * @return the description
     * @throws UnavailableException with code {@code NOT_FOUND} if the policy has no such audience
     */
    public AudienceDescription describeAudience(String audience) {
        DescribeAudienceResponse answer = ask(QuestionKind.OTHER, ScopePolicyServiceGrpc.getDescribeAudienceMethod(),
                DescribeAudienceRequest.newBuilder().setAudience(Wire.text(audience)).build());
        if (answer.getAudiencesCount() != 1) {
            throw Wire.notUnderstood(QuestionKind.OTHER, answer.getAudiencesCount() + " descriptions of one audience");
        }
        return Wire.description(answer.getAudiences(0));
    }

    /**
     * Returns what the policy says about all audiences.
     *
     * @return the descriptions, ordered by name, from as many calls as it takes
     */
    public List<AudienceDescription> describeAudiences() {
        List<AudienceDescription> descriptions = new ArrayList<>();
        String token = "";
        do {
            DescribeAudienceResponse answer = ask(QuestionKind.OTHER, ScopePolicyServiceGrpc.getDescribeAudienceMethod(),
                    DescribeAudienceRequest.newBuilder().setPageToken(token).build());
            descriptions.addAll(Wire.map(answer.getAudiencesList(), Wire::description));
            token = answer.getNextPageToken();
        } while (!token.isEmpty());
        return List.copyOf(descriptions);
    }

    /**
     * Returns which policy serves, and whether the files on disk would be accepted.
     *
     * @return the status
     */
    public PolicyStatus policyStatus() {
        return Wire.status(ask(QuestionKind.OTHER, PolicyStatusServiceGrpc.getGetPolicyStatusMethod(),
                GetPolicyStatusRequest.getDefaultInstance()).getStatus());
    }

    /**
     * Follows the status: the current one, then each change, and every 30 seconds.
     *
     * <p>Blocks until the thread is interrupted, {@code watcher} throws, or the server disconnects.
     *
     * @param watcher is given each status; what it throws ends the call
     * @throws InterruptedException if the thread is interrupted
     * @throws UnavailableException when the server disconnects
     */
    public void watchPolicyStatus(Consumer<PolicyStatus> watcher) throws InterruptedException {
        try (MessageStream<WatchPolicyStatusResponse> stream = MessageStream.open(connection.channel(QuestionKind.OTHER),
                PolicyStatusServiceGrpc.getWatchPolicyStatusMethod(), WatchPolicyStatusRequest.getDefaultInstance())) {
            WatchPolicyStatusResponse message = stream.next();
            while (message != null) {
                watcher.accept(Wire.status(message.getStatus()));
                message = stream.next();
            }
            throw unavailable(QuestionKind.OTHER, PolicyStatusServiceGrpc.getWatchPolicyStatusMethod(),
                    Status.UNAVAILABLE.withDescription("the stream ended").asRuntimeException());
        } catch (StatusRuntimeException error) {
            throw unavailable(QuestionKind.OTHER, PolicyStatusServiceGrpc.getWatchPolicyStatusMethod(), error);
        }
    }

    /**
     * Reads the audit log from the cursor on: each event is handed out at least once, in order.
     *
     * <p>The cursor moves past an event when {@code handler} has returned, so a crash repeats an event and loses none. What passes by
     * itself is waited for: a server that restarts, a connection that breaks. Blocks until the newest event is handled; one that
     * follows, until the thread is interrupted, {@code handler} throws, or a person is needed.
     *
     * @param question where to begin and what to read
     * @param handler is given each event and each gap; what it throws ends the call, and the event comes again
     * @throws InterruptedException if the thread is interrupted
     * @throws AuditStoppedException if only a person can help, such as with a cursor that is older than what is kept
     * @throws UnavailableException if the server disconnects and the question does not follow
     * @throws IllegalStateException if the client has several addresses: each server has a log of its own
     */
    public void readAudit(AuditQuestion question, Consumer<AuditRecord> handler) throws InterruptedException {
        if (connection.endpoint().addresses() != 1) {
            throw new IllegalStateException("each server has an audit log of its own: read them one by one, with a cursor for each");
        }
        new AuditReader(question, handler).read(() -> connection.channel(QuestionKind.OTHER));
    }

    private <Q, A> A ask(QuestionKind kind, MethodDescriptor<Q, A> method, Q question) {
        try {
            return ClientCalls.blockingUnaryCall(connection.channel(kind), method, options(), question);
        } catch (StatusRuntimeException error) {
            throw unavailable(kind, method, error);
        }
    }

    private <Q, A, R> CompletableFuture<R> askAsync(
            QuestionKind kind, MethodDescriptor<Q, A> method, Q question, Function<A, R> convert) {
        CompletableFuture<R> result = new CompletableFuture<>();
        ListenableFuture<A> call;
        try {
            call = ClientCalls.futureUnaryCall(connection.channel(kind).newCall(method, options()), question);
        } catch (UnavailableException error) {
            result.completeExceptionally(error);
            return result;
        }
        Futures.addCallback(call, new FutureCallback<A>() {
            @Override
            public void onSuccess(A answer) {
                try {
                    result.complete(convert.apply(answer));
                } catch (ScopewardException failure) {
                    result.completeExceptionally(failure);
                }
            }

            @Override
            public void onFailure(Throwable error) {
                result.completeExceptionally(unavailable(kind, method, error));
            }
        }, MoreExecutors.directExecutor());
        result.whenComplete((answer, error) -> {
            if (result.isCancelled()) {
                call.cancel(true);
            }
        });
        return result;
    }

    private CallOptions options() {
        return CallOptions.DEFAULT.withDeadlineAfter(deadline.toNanos(), TimeUnit.NANOSECONDS);
    }

    private static UnavailableException unavailable(QuestionKind kind, MethodDescriptor<?, ?> method, Throwable error) {
        Status status = Status.fromThrowable(error);
        String message = status.getDescription() == null ? "no details" : status.getDescription();
        if (status.getCode() == Status.Code.UNIMPLEMENTED) {
            message = "the service does not know " + method.getBareMethodName() + ": it is older than this client, or is none";
        }
        return new UnavailableException(kind, status.getCode().name(), message, ErrorDetails.of(error), error);
    }

    /** Says how to reach the server. Nothing has to be set. */
    public static final class Builder {
        private final List<String> targets;
        private Path caFile;
        private Path certFile;
        private Path privateKeyFile;
        private String serverName;
        private String token;
        private Path tokenFile;
        private Duration deadline = DEFAULT_DEADLINE;

        private Builder(List<String> targets) {
            this.targets = targets;
        }

        /**
         * Sets who issues the certificate of an https server. Without it, whom Java trusts.
         *
         * @param file certificates (PEM); read again when it changes
         * @return this
         */
        public Builder caFile(Path file) {
            this.caFile = file;
            return this;
        }

        /**
         * Sets the certificate to show.
         *
         * @param certFile the certificate with its chain (PEM); read again when it changes
         * @param privateKeyFile its key (PEM, PKCS 8); read again when it changes
         * @return this
         */
        public Builder clientCertificate(Path certFile, Path privateKeyFile) {
            this.certFile = certFile;
            this.privateKeyFile = privateKeyFile;
            return this;
        }

        /**
         * Sets the name that the certificate of the server must have, where the target does not say it.
         *
         * @param serverName a DNS name
         * @return this
         */
        public Builder serverName(String serverName) {
            this.serverName = serverName;
            return this;
        }

        /**
         * Sets a bearer token to show; only over TLS, or within this machine.
         *
         * @param token the token
         * @return this
         */
        public Builder token(String token) {
            this.token = token;
            return this;
        }

        /**
         * Sets a file with the bearer token.
         *
         * @param file read for each call, so that a new token counts at once
         * @return this
         */
        public Builder tokenFile(Path file) {
            this.tokenFile = file;
            return this;
        }

        /**
         * Sets what a call may take, retries included.
         *
         * @param deadline more than zero; {@link #DEFAULT_DEADLINE} if it is not set
         * @return this
         */
        public Builder deadline(Duration deadline) {
            this.deadline = deadline;
            return this;
        }

        /**
         * Makes the client.
         *
         * <p>Returns when it is connected, or cannot be, and after five seconds at most: a JVM takes up to a second to load what a first
         * call needs, which would be the time of somebody's login.
         *
         * @return the client, to be closed
         * @throws IllegalArgumentException if the settings are wrong or do not fit each other
         */
        public ScopewardClient build() {
            Duration given = checked(deadline);
            Connection connection = new Connection(Endpoint.of(targets),
                    new Connection.Settings(caFile, certFile, privateKeyFile, serverName, token, tokenFile));
            return new ScopewardClient(connection, given);
        }
    }
}
