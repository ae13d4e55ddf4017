package dev.scopeward.keycloak;

import java.time.Duration;
import java.util.concurrent.TimeUnit;
import java.util.function.LongSupplier;

/**
 * Keeps a service that hangs from holding the threads of Keycloak.
 *
 * <p>At most {@link #MAX_IN_FLIGHT} questions are asked at once; others wait for that. After {@link #MAX_FAILURES} failures in a row
 * nobody waits and nothing is asked, but for one question in {@link #TRIAL_INTERVAL}; the first that is answered ends that.
 */
final class CircuitBreaker {
    static final int MAX_IN_FLIGHT = 16;
    static final int MAX_FAILURES = 5;
    static final Duration TRIAL_INTERVAL = Duration.ofMillis(500);

    private final LongSupplier nanoTime;
    private int inFlight;
    private int failures;
    private long nextTrial;

    CircuitBreaker(LongSupplier nanoTime) {
        this.nanoTime = nanoTime;
    }

    /**
     * Returns {@code true} if a question may be asked now. If so, {@link #leave} has to follow.
     *
     * @param patience how long to wait for others that ask
     */
    synchronized boolean enter(Duration patience) {
        long start = nanoTime.getAsLong();
        while (!isOpen() && inFlight >= MAX_IN_FLIGHT) {
            long left = patience.toNanos() - (nanoTime.getAsLong() - start);
            if (left <= 0) {
                return false;
            }
            try {
                TimeUnit.NANOSECONDS.timedWait(this, left);
            } catch (InterruptedException error) {
                Thread.currentThread().interrupt();
                return false;
            }
        }
        if (isOpen()) {
            long now = nanoTime.getAsLong();
            if (inFlight >= MAX_IN_FLIGHT || now - nextTrial < 0) {
                return false;
            }
            nextTrial = now + TRIAL_INTERVAL.toNanos();
        }
        inFlight++;
        return true;
    }

    /** Says how the question ended. Returns true if that opened or closed the breaker. */
    synchronized boolean leave(boolean isAnswered) {
        boolean wasOpen = isOpen();
        inFlight--;
        notifyAll();
        if (isAnswered) {
            failures = 0;
        } else if (++failures == MAX_FAILURES) {
            nextTrial = nanoTime.getAsLong() + TRIAL_INTERVAL.toNanos();
        }
        return wasOpen != isOpen();
    }

    synchronized boolean isOpen() {
        return failures >= MAX_FAILURES;
    }
}
