package dev.scopeward.keycloak;

import dev.scopeward.client.AuthorizeAnswer;
import dev.scopeward.client.AuthorizeQuestion;
import dev.scopeward.client.DeniedException;
import dev.scopeward.client.RegistrationAnswer;
import dev.scopeward.client.RegistrationQuestion;
import dev.scopeward.client.ScopewardClient;
import dev.scopeward.client.TokenAnswer;
import dev.scopeward.client.TokenQuestion;
import dev.scopeward.client.UnavailableException;
import java.time.Duration;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentMap;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Supplier;
import org.eclipse.microprofile.config.ConfigProvider;
import org.jboss.logging.Logger;

/**
 * The way to Scopeward: one connection and one circuit breaker for each target of this process, since Keycloak makes a factory for each
 * configuration of an executor and closes none of them.
 */
final class PolicyGate {
    private static final Logger LOG = Logger.getLogger(PolicyGate.class);
    private static final ConcurrentMap<ServerOptions, PolicyGate> GATES = new ConcurrentHashMap<>();

    static final int MAX_IN_FLIGHT = 16;
    // What Keycloak makes of its option http-pool-max-threads.
    private static final String MAX_THREADS = "quarkus.thread-pool.max-threads";

    private final ScopewardClient client;
    private final String target;
    // Requests that were refused since the last answer without a question.
    private final AtomicLong notAsked = new AtomicLong();
    private final CircuitBreaker breaker = new CircuitBreaker(limit(), CircuitBreaker.Clock.SYSTEM);

    private PolicyGate(ServerOptions options) {
        this.client = options.client();
        this.target = options.target();
    }

    /** The gate of a target, which connects in the background. Throws {@link IllegalArgumentException} for wrong options. */
    static PolicyGate of(ServerOptions options) {
        return GATES.computeIfAbsent(options, PolicyGate::new);
    }

    /** How many of the threads of Keycloak questions may hold at once: a third, so that most serve what asks nothing. */
    static int limit(int threads) {
        return Math.max(1, Math.min(MAX_IN_FLIGHT, threads / 3));
    }

    private static int limit() {
        try {
            int threads = ConfigProvider.getConfig().getValue(MAX_THREADS, Integer.class);
            LOG.debugf("at most %d of %d threads ask at once", limit(threads), threads);
            return limit(threads);
        } catch (RuntimeException | LinkageError error) {
            LOG.debugf("at most %d threads ask at once; the number of threads is not known: %s", MAX_IN_FLIGHT, error);
            return MAX_IN_FLIGHT;
        }
    }

    static void closeAll() {
        GATES.values().forEach(gate -> gate.client.close());
        GATES.clear();
    }

    RegistrationAnswer ask(RegistrationQuestion question, Duration deadline) throws RefusedException {
        return guarded(true, deadline, () -> client.withDeadline(deadline).expandRegistrationScopes(question));
    }

    AuthorizeAnswer ask(AuthorizeQuestion question, Duration deadline) throws RefusedException {
        return guarded(false, deadline, () -> client.withDeadline(deadline).checkAuthorizeScopes(question));
    }

    TokenAnswer ask(TokenQuestion question, Duration deadline) throws RefusedException {
        return guarded(false, deadline, () -> client.withDeadline(deadline).checkTokenScopes(question));
    }

    private <A> A guarded(boolean isRegistration, Duration patience, Supplier<A> call) throws RefusedException {
        CircuitBreaker.Pass pass = breaker.enter(patience).orElse(null);
        if (pass == null) {
            notAsked.incrementAndGet();
            throw RefusedException.notAsked(isRegistration);
        }
        boolean isAnswered = true;
        try {
            return call.get();
        } catch (DeniedException denied) {
            LOG.debugf("denied: %s, decision %s", denied.getMessage(), denied.decisionId());
            throw RefusedException.of(denied);
        } catch (UnavailableException unavailable) {
            // What does not pass by itself is answered quickly, and the next question may have another answer.
            isAnswered = unavailable.httpStatus() != 503;
            LOG.warnf("no answer from Scopeward at %s: %s", target, unavailable.getMessage());
            throw RefusedException.of(unavailable);
        } finally {
            boolean isChanged = pass.end(isAnswered);
            long refused = isAnswered ? notAsked.getAndSet(0) : 0;
            if (refused > 0) {
                LOG.warnf("%d requests were refused while Scopeward at %s did not answer, without asking it", refused, target);
            }
            if (isChanged) {
                if (isAnswered) {
                    LOG.infof("Scopeward at %s answers again", target);
                } else {
                    LOG.errorf("Scopeward at %s does not answer: requests are refused, and it is asked once in %d ms", target,
                            CircuitBreaker.TRIAL_INTERVAL.toMillis());
                }
            }
        }
    }
}
