package dev.scopeward.keycloak;

import java.time.Duration;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.LongSupplier;

/**
 * Keeps a service that hangs from holding the threads of Keycloak.
 *
 * <p>At most {@link #MAX_IN_FLIGHT} questions are asked at once. Others wait for that while answers come: once there was none for a
 * third of what a question may take, nobody waits until there is one. After {@link #MAX_FAILURES} failures in a row nothing is asked
 * either, but for one question at a time, {@link #TRIAL_INTERVAL} after the one before at the earliest; the first that is answered ends
 * that.
 */
final class CircuitBreaker {
    static final int MAX_IN_FLIGHT = 16;
    static final int MAX_FAILURES = 5;
    static final Duration TRIAL_INTERVAL = Duration.ofMillis(500);

    // Who waits looks that often whether there was an answer. A pause of the whole process counts as one look, and not as silence.
    private static final int LOOKS = 12;
    private static final int SILENT_LOOKS = 4;

    private final LongSupplier nanoTime;
    private final ReentrantLock lock = new ReentrantLock();
    private final Condition changed = lock.newCondition();
    private int inFlight;
    private int failures;
    private long nextTrial;
    private long answers;
    private boolean isSilent;

    CircuitBreaker(LongSupplier nanoTime) {
        this.nanoTime = nanoTime;
    }

    /**
     * Returns {@code true} if a question may be asked now. If so, {@link #leave} has to follow.
     *
     * @param patience how long to wait for others that ask
     */
    boolean enter(Duration patience) {
        lock.lock();
        try {
            if (!hasPlace(patience.toNanos() / LOOKS)) {
                return false;
            }
            if (isOpen()) {
                long now = nanoTime.getAsLong();
                if (inFlight > 0 || now - nextTrial < 0) {
                    return false;
                }
                nextTrial = now + TRIAL_INTERVAL.toNanos();
            }
            inFlight++;
            return true;
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
            return false;
        } finally {
            lock.unlock();
        }
    }

    /** Waits until fewer are asked, or the breaker is open. Returns {@code false} if it waited in vain. */
    private boolean hasPlace(long nanosOfLook) throws InterruptedException {
        int looks = 0;
        int silent = 0;
        long seen = answers;
        long left = nanosOfLook;
        while (!isOpen() && inFlight >= MAX_IN_FLIGHT) {
            if (isSilent || nanosOfLook == 0 || looks == LOOKS) {
                return false;
            }
            left = changed.awaitNanos(left);
            if (left <= 0) {
                left = nanosOfLook;
                looks++;
                silent = answers == seen ? silent + 1 : 0;
                seen = answers;
                if (silent == SILENT_LOOKS) {
                    isSilent = true;
                    changed.signalAll();
                }
            }
        }
        return true;
    }

    /** Says how the question ended. Returns true if that opened or closed the breaker. */
    boolean leave(boolean isAnswered) {
        lock.lock();
        try {
            boolean wasOpen = isOpen();
            inFlight--;
            if (isAnswered) {
                failures = 0;
                answers++;
                isSilent = false;
            } else if (++failures == MAX_FAILURES) {
                nextTrial = nanoTime.getAsLong() + TRIAL_INTERVAL.toNanos();
            }
            changed.signalAll();
            return wasOpen != isOpen();
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
