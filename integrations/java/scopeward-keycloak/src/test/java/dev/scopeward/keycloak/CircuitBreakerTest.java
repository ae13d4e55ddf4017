package dev.scopeward.keycloak;

import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.Test;

class CircuitBreakerTest {
    private final AtomicLong now = new AtomicLong(Long.MAX_VALUE - 10);
    private final CircuitBreaker breaker = new CircuitBreaker(now::get);

    private void fail(int times) {
        for (int i = 0; i < times; i++) {
            assertTrue(breaker.enter());
            breaker.leave(false);
        }
    }

    @Test
    void it_opens_after_failures_in_a_row_only() {
        fail(CircuitBreaker.MAX_FAILURES - 1);
        assertTrue(breaker.enter());
        assertFalse(breaker.leave(true));
        fail(CircuitBreaker.MAX_FAILURES - 1);
        assertFalse(breaker.isOpen());
        assertTrue(breaker.enter());
        assertTrue(breaker.leave(false), "that opened it");
        assertFalse(breaker.enter());
    }

    @Test
    void one_question_in_an_interval_is_asked_while_it_is_open_and_an_answer_closes_it() {
        fail(CircuitBreaker.MAX_FAILURES);
        now.addAndGet(CircuitBreaker.TRIAL_INTERVAL.toNanos() - 1);
        assertFalse(breaker.enter());
        now.addAndGet(1);
        assertTrue(breaker.enter());
        assertFalse(breaker.enter(), "one at a time");
        assertFalse(breaker.leave(false), "it stays open");
        now.addAndGet(CircuitBreaker.TRIAL_INTERVAL.toNanos());
        assertTrue(breaker.enter());
        assertTrue(breaker.leave(true), "that closed it");
        assertTrue(breaker.enter());
    }

    @Test
    void no_more_than_a_few_wait_at_once() {
        for (int i = 0; i < CircuitBreaker.MAX_IN_FLIGHT; i++) {
            assertTrue(breaker.enter());
        }
        assertFalse(breaker.enter());
        breaker.leave(true);
        assertTrue(breaker.enter());
    }
}
