package dev.scopeward.keycloak;

import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
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

    private void fill() {
        for (int i = 0; i < CircuitBreaker.MAX_IN_FLIGHT; i++) {
            assertTrue(breaker.enter());
        }
    }

    @Test
    void no_more_than_a_few_are_asked_at_once() {
        fill();
        assertFalse(breaker.enter());
        breaker.leave(true);
        assertTrue(breaker.enter());
    }

    @Test
    void many_at_once_take_turns_where_answers_come() throws Exception {
        fill();
        ExecutorService pool = Executors.newFixedThreadPool(1);
        try {
            Future<Boolean> further = pool.submit(breaker::enter);
            breaker.leave(true);
            assertTrue(further.get());
        } finally {
            pool.shutdownNow();
        }
    }

    @Test
    void nobody_waits_for_a_place_once_it_is_open() {
        fill();
        for (int i = 0; i < CircuitBreaker.MAX_FAILURES; i++) {
            breaker.leave(false);
        }
        assertTrue(breaker.isOpen());
        assertFalse(breaker.enter());
    }
}
