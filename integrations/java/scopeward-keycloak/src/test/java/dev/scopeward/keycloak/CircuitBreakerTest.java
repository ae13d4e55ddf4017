package dev.scopeward.keycloak;

import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.time.Duration;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;

class CircuitBreakerTest {
    private final AtomicLong now = new AtomicLong(Long.MAX_VALUE - 10);
    private final CircuitBreaker breaker = new CircuitBreaker(now::get);

    private void fail(int times) {
        for (int i = 0; i < times; i++) {
            assertTrue(breaker.enter(Duration.ZERO));
            breaker.leave(false);
        }
    }

    @Test
    void it_opens_after_failures_in_a_row_only() {
        fail(CircuitBreaker.MAX_FAILURES - 1);
        assertTrue(breaker.enter(Duration.ZERO));
        assertFalse(breaker.leave(true));
        fail(CircuitBreaker.MAX_FAILURES - 1);
        assertFalse(breaker.isOpen());
        assertTrue(breaker.enter(Duration.ZERO));
        assertTrue(breaker.leave(false), "that opened it");
        assertFalse(breaker.enter(Duration.ZERO));
    }

    @Test
    void one_question_in_an_interval_is_asked_while_it_is_open_and_an_answer_closes_it() {
        fail(CircuitBreaker.MAX_FAILURES);
        now.addAndGet(CircuitBreaker.TRIAL_INTERVAL.toNanos() - 1);
        assertFalse(breaker.enter(Duration.ZERO));
        now.addAndGet(1);
        assertTrue(breaker.enter(Duration.ZERO));
        now.addAndGet(CircuitBreaker.TRIAL_INTERVAL.toNanos());
        assertFalse(breaker.enter(Duration.ZERO), "one at a time");
        assertFalse(breaker.leave(false), "it stays open");
        now.addAndGet(CircuitBreaker.TRIAL_INTERVAL.toNanos());
        assertTrue(breaker.enter(Duration.ZERO));
        assertTrue(breaker.leave(true), "that closed it");
        assertTrue(breaker.enter(Duration.ZERO));
    }

    @Test
    void no_more_than_a_few_ask_at_once_and_others_wait_for_them() throws Exception {
        for (int i = 0; i < CircuitBreaker.MAX_IN_FLIGHT; i++) {
            assertTrue(breaker.enter(Duration.ZERO));
        }
        assertFalse(breaker.enter(Duration.ZERO));
        CompletableFuture<Boolean> next = CompletableFuture.supplyAsync(() -> breaker.enter(Duration.ofMinutes(1)));
        breaker.leave(true);
        assertTrue(next.get(1, TimeUnit.MINUTES));
    }

    @Test
    void nobody_waits_once_no_answer_came_and_all_do_again_after_one() throws Exception {
        for (int i = 0; i < CircuitBreaker.MAX_IN_FLIGHT; i++) {
            assertTrue(breaker.enter(Duration.ZERO));
        }
        // None of those that are asked fails or is answered; whoever waits is sent away all the same.
        List<CompletableFuture<Boolean>> waiting =
                Stream.generate(() -> CompletableFuture.supplyAsync(() -> breaker.enter(Duration.ofMillis(300)))).limit(4).toList();
        for (CompletableFuture<Boolean> one : waiting) {
            assertFalse(one.get(1, TimeUnit.MINUTES));
        }
        assertFalse(breaker.isOpen());
        assertFalse(breaker.enter(Duration.ofDays(1)), "and at once");

        breaker.leave(true);
        assertTrue(breaker.enter(Duration.ZERO));
        CompletableFuture<Boolean> next = CompletableFuture.supplyAsync(() -> breaker.enter(Duration.ofDays(1)));
        breaker.leave(true);
        assertTrue(next.get(1, TimeUnit.MINUTES));
    }

    @Test
    void whoever_waits_is_patient_while_answers_come() throws Exception {
        for (int i = 0; i < CircuitBreaker.MAX_IN_FLIGHT; i++) {
            assertTrue(breaker.enter(Duration.ZERO));
        }
        // Each answer makes a place that another one takes before the one that waits does.
        CompletableFuture<Boolean> next = CompletableFuture.supplyAsync(() -> breaker.enter(Duration.ofMinutes(1)));
        for (int i = 0; i < 1000 && !next.isDone(); i++) {
            breaker.leave(true);
            breaker.enter(Duration.ZERO);
        }
        breaker.leave(true);
        assertTrue(next.get(1, TimeUnit.MINUTES));
    }

    @Test
    void nobody_waits_for_a_service_that_hangs() throws Exception {
        for (int i = 0; i < CircuitBreaker.MAX_IN_FLIGHT; i++) {
            assertTrue(breaker.enter(Duration.ZERO));
        }
        List<CompletableFuture<Boolean>> waiting =
                Stream.generate(() -> CompletableFuture.supplyAsync(() -> breaker.enter(Duration.ofDays(1)))).limit(2).toList();
        // Whoever gets in before it opens fails as well.
        for (int i = 0; i < CircuitBreaker.MAX_FAILURES; i++) {
            breaker.leave(false);
        }
        for (CompletableFuture<Boolean> one : waiting) {
            assertNotNull(one.get(1, TimeUnit.MINUTES));
        }
        assertTrue(breaker.isOpen());
        assertFalse(breaker.enter(Duration.ofDays(1)));
    }
}
