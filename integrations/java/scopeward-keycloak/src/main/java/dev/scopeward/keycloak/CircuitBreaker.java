package dev.scopeward.keycloak;

import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;

/**
 * Keeps a service that hangs from holding the threads of Keycloak, in two ways.
 *
 * <p>A bulkhead: a limited number of questions is asked at once. Others wait until one of these has ended, as long as answers come. After a
 * sixtieth of what a question may take without an answer no more wait than are asked, and after a twelfth nobody waits, until there is an
 * answer. For a service that is slow both are twice the time of its answers, but at most a third of what a question may take. Callers
 * within the limit are asked however slow the service is.
 *
 * <p>A circuit breaker: after {@link #MAX_FAILURES} failures in a row nothing is asked, but for one question at a time,
 * {@link #TRIAL_INTERVAL} after the one before at the earliest; the first that is answered ends that.
 */
final class CircuitBreaker {
    static final int MAX_FAILURES = 5;
    static final Duration TRIAL_INTERVAL = Duration.ofMillis(500);

    // Whoever waits looks that often during a silence. A pause of the whole process is one look, and not a silence.
    private static final int LOOKS = 10;

    private final int limit;
    private final Clock clock;
    private final ReentrantLock lock = new ReentrantLock();
    private final Condition changed = lock.newCondition();
    private int inFlight;
    private int waiting;
    private int failures;
    private long nextTrial;
    private long answers;
    private long averageNanos;
    private Silence silence = Silence.NONE;

    /** How long there was no answer while questions were asked, and others waited. */
    private enum Silence {
        NONE,
        /** No more wait than are asked. */
        SHORT,
        /** Nobody waits. */
        LONG
    }

    /** What time it is, and how to wait. */
    interface Clock {
        Clock SYSTEM = new Clock() {
            @Override
            public long nanoTime() {
                return System.nanoTime();
            }

            @Override
            public long await(Condition condition, long nanos) throws InterruptedException {
                return condition.awaitNanos(nanos);
            }
        };

        long nanoTime();

        /** Waits for a signal, or until the time is up. Returns what is left of it. */
        long await(Condition condition, long nanos) throws InterruptedException;
    }

    /** A question that is asked. */
    final class Pass {
        private final long begun = clock.nanoTime();

        private Pass() {}

        /** Ends it. Returns {@code true} if that opened or closed the breaker. */
        boolean end(boolean isAnswered) {
            return leave(begun, isAnswered);
        }
    }

    /**
     * Makes one that is closed.
     *
     * @param limit how many questions are asked at once; at least one
     * @param clock the time
     */
    CircuitBreaker(int limit, Clock clock) {
        this.limit = limit;
        this.clock = clock;
    }

    /**
     * Asks whether a question may be asked now, which then has to be ended.
     *
     * @param patience what the question may take; nobody waits longer for others
     * @return empty if it is not to be asked
     */
    Optional<Pass> enter(Duration patience) {
        lock.lock();
        try {
            if (!hasPlace(patience.toNanos())) {
                return Optional.empty();
            }
            if (isOpen()) {
                long now = clock.nanoTime();
                if (inFlight > 0 || now - nextTrial < 0) {
                    return Optional.empty();
                }
                nextTrial = now + TRIAL_INTERVAL.toNanos();
            }
            inFlight++;
            return Optional.of(new Pass());
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
            return Optional.empty();
        } finally {
            lock.unlock();
        }
    }

    /** Waits until fewer are asked, or the breaker is open. Returns {@code false} if it waited in vain. */
    private boolean hasPlace(long patience) throws InterruptedException {
        long look = Math.min(Math.max(patience / 12, 2 * averageNanos), patience / 3) / LOOKS;
        long left = look;
        long looksLeft = look == 0 ? 0 : patience / look;
        long looksUntilShort = look == 0 ? 0 : Math.min(LOOKS, Math.max(patience / 60, 2 * averageNanos) / look);
        int silentLooks = 0;
        long seen = answers;
        waiting++;
        try {
            while (!isOpen() && inFlight >= limit) {
                if (silence == Silence.LONG || (silence == Silence.SHORT && waiting > limit) || looksLeft == 0) {
                    return false;
                }
                left = clock.await(changed, left);
                if (left <= 0) {
                    left = look;
                    looksLeft--;
                    silentLooks = answers == seen ? silentLooks + 1 : 0;
                    seen = answers;
                    if (silentLooks == LOOKS) {
                        becomes(Silence.LONG);
                    } else if (silentLooks == looksUntilShort && silence == Silence.NONE) {
                        becomes(Silence.SHORT);
                    }
                }
            }
            return true;
        } finally {
            waiting--;
        }
    }

    private void becomes(Silence silence) {
        this.silence = silence;
        changed.signalAll();
    }

    private boolean leave(long begun, boolean isAnswered) {
        lock.lock();
        try {
            boolean wasOpen = isOpen();
            inFlight--;
            if (isAnswered) {
                failures = 0;
                answers++;
                silence = Silence.NONE;
                averageNanos += (clock.nanoTime() - begun - averageNanos) / 8;
            } else if (++failures == MAX_FAILURES) {
                nextTrial = clock.nanoTime() + TRIAL_INTERVAL.toNanos();
            }
            if (wasOpen == isOpen()) {
                changed.signal();
                return false;
            }
            changed.signalAll();
            return true;
        } finally {
            lock.unlock();
        }
    }

    boolean isOpen() {
        lock.lock();
        try {
            return failures >= MAX_FAILURES;
        } finally {
            lock.unlock();
        }
    }
}
