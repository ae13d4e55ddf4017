package dev.scopeward.keycloak;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.time.Duration;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.Condition;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;

class CircuitBreakerTest {
    private static final int LIMIT = 16;
    private static final Duration DEADLINE = Duration.ofMillis(300);
    private static final Duration SHORT_SILENCE = Duration.ofMillis(5);
    private static final Duration SILENCE = Duration.ofMillis(25);

    private final FakeClock clock = new FakeClock();
    private final CircuitBreaker breaker = new CircuitBreaker(LIMIT, clock);
    private final Deque<CircuitBreaker.Pass> asked = new ArrayDeque<>();

    /** Goes on when somebody waits, who then sees what others did meanwhile. */
    private static final class FakeClock implements CircuitBreaker.Clock {
        long now = Long.MAX_VALUE - 10;
        Runnable meanwhile = () -> { };

        @Override
        public long nanoTime() {
            return now;
        }

        @Override
        public long await(Condition condition, long nanos) {
            now += nanos;
            meanwhile.run();
            return 0;
        }

        void pass(Duration duration) {
            now += duration.toNanos();
        }
    }

    private boolean ask() {
        return breaker.enter(DEADLINE).map(asked::add).isPresent();
    }

    /** Ends the question that was asked first. Returns {@code true} if that opened or closed the breaker. */
    private boolean end(boolean isAnswered) {
        return asked.remove().end(isAnswered);
    }

    private void fail(int times) {
        for (int i = 0; i < times; i++) {
            assertTrue(ask());
            end(false);
        }
    }

    private void fill() {
        for (int i = 0; i < LIMIT; i++) {
            assertTrue(ask());
        }
    }

    /** How long one waits who is then asked or refused. */
    private Duration wait(boolean isAsked) {
        long before = clock.now;
        assertEquals(isAsked, ask());
        return Duration.ofNanos(clock.now - before);
    }

    @Test
    void it_opens_after_failures_in_a_row_only() {
        fail(CircuitBreaker.MAX_FAILURES - 1);
        assertTrue(ask());
        assertFalse(end(true));
        fail(CircuitBreaker.MAX_FAILURES - 1);
        assertFalse(breaker.isOpen());
        assertTrue(ask());
        assertTrue(end(false), "that opened it");
        assertFalse(ask());
    }

    @Test
    void one_question_in_an_interval_is_asked_while_it_is_open_and_an_answer_closes_it() {
        fail(CircuitBreaker.MAX_FAILURES);
        clock.pass(CircuitBreaker.TRIAL_INTERVAL.minusNanos(1));
        assertFalse(ask());
        clock.pass(Duration.ofNanos(1));
        assertTrue(ask());
        clock.pass(CircuitBreaker.TRIAL_INTERVAL);
        assertFalse(ask(), "one at a time");
        assertFalse(end(false), "it stays open");
        clock.pass(CircuitBreaker.TRIAL_INTERVAL);
        assertTrue(ask());
        assertTrue(end(true), "that closed it");
        assertTrue(ask());
    }

    @Test
    void callers_within_the_limit_are_asked_however_slow_the_service_is() {
        for (int i = 0; i < LIMIT; i++) {
            clock.pass(Duration.ofMillis(40));
            assertEquals(Duration.ZERO, wait(true));
        }
        while (!asked.isEmpty()) {
            clock.pass(Duration.ofMillis(40));
            assertFalse(end(true));
            assertEquals(Duration.ZERO, wait(true));
            asked.removeLast().end(true);
        }
    }

    @Test
    void nobody_waits_after_a_silence_and_all_do_again_after_an_answer() {
        fill();
        assertEquals(SILENCE, wait(false));
        for (int i = 0; i < 200; i++) {
            assertEquals(Duration.ZERO, wait(false));
        }
        assertFalse(breaker.isOpen(), "nothing failed yet");

        end(true);
        assertEquals(Duration.ZERO, wait(true));
        assertTrue(wait(false).compareTo(SILENCE) >= 0);
    }

    /** Does something while so many wait, all in vain. */
    private void whileOthersWait(int others, Runnable then) {
        clock.meanwhile = () -> {
            clock.meanwhile = () -> { };
            if (others == 1) {
                then.run();
            } else {
                whileOthersWait(others - 1, then);
            }
        };
        assertFalse(ask());
    }

    @Test
    void no_more_wait_than_are_asked_after_a_short_silence() {
        fill();
        whileOthersWait(LIMIT - 1, () -> assertEquals(SILENCE, wait(false)));
    }

    @Test
    void one_too_many_waits_for_a_short_silence_and_the_next_one_not_at_all() {
        fill();
        whileOthersWait(LIMIT, () -> {
            assertEquals(SHORT_SILENCE, wait(false));
            assertEquals(Duration.ZERO, wait(false));
        });
    }

    @Test
    void however_many_wait_while_answers_come() {
        fill();
        whileOthersWait(3 * LIMIT, () -> {
            clock.meanwhile = () -> {
                end(true);
                assertTrue(ask());
            };
            assertEquals(DEADLINE, wait(false));
            clock.meanwhile = () -> { };
        });
    }

    @Test
    void whoever_waits_is_patient_while_answers_come_but_not_longer_than_a_question_may_take() {
        fill();
        // Each place is taken by another one.
        clock.meanwhile = () -> {
            end(true);
            assertTrue(ask());
        };
        assertEquals(DEADLINE, wait(false));
        clock.meanwhile = () -> end(true);
        assertTrue(wait(true).compareTo(SILENCE) < 0);
    }

    private void answer(int times, Duration each) {
        for (int i = 0; i < times; i++) {
            assertTrue(ask());
            clock.pass(each);
            end(true);
        }
    }

    @Test
    void a_slow_service_is_given_twice_the_time_of_its_answers() {
        answer(100, Duration.ofMillis(2));
        answer(1, Duration.ofMillis(90));
        fill();
        assertTrue(wait(false).compareTo(SILENCE.plusMillis(2)) < 0, "one of them says little");
        asked.forEach(pass -> pass.end(true));
        asked.clear();
        answer(100, Duration.ofMillis(40));
        fill();
        assertEquals(80, wait(false).toMillis(), 1);
    }

    @Test
    void but_at_most_a_third_of_what_a_question_may_take() {
        answer(100, Duration.ofMillis(200));
        fill();
        assertEquals(DEADLINE.dividedBy(3), wait(false));
    }

    @Test
    void a_pause_of_the_whole_process_is_not_a_silence() {
        fill();
        int[] looks = {0};
        clock.meanwhile = () -> {
            clock.pass(Duration.ofSeconds(10));
            if (++looks[0] == 3) {
                end(true);
            }
        };
        assertTrue(ask());
        assertEquals(3, looks[0]);
    }

    /** Waits for signals alone. */
    private static final CircuitBreaker.Clock SIGNALS = new CircuitBreaker.Clock() {
        @Override
        public long nanoTime() {
            return System.nanoTime();
        }

        @Override
        public long await(Condition condition, long nanos) throws InterruptedException {
            condition.await();
            return nanos;
        }
    };

    @Test
    void whoever_waits_is_woken_by_an_answer() throws Exception {
        CircuitBreaker real = new CircuitBreaker(1, SIGNALS);
        CircuitBreaker.Pass first = real.enter(DEADLINE).orElseThrow();
        CompletableFuture<Boolean> next = CompletableFuture.supplyAsync(() -> real.enter(DEADLINE).isPresent());
        first.end(true);
        assertTrue(next.get(1, TimeUnit.MINUTES));
    }

    @Test
    void whoever_waits_is_woken_when_it_opens() throws Exception {
        CircuitBreaker real = new CircuitBreaker(CircuitBreaker.MAX_FAILURES, SIGNALS);
        List<CircuitBreaker.Pass> passes =
                Stream.generate(() -> real.enter(DEADLINE).orElseThrow()).limit(CircuitBreaker.MAX_FAILURES).toList();
        List<CompletableFuture<Boolean>> waiting =
                Stream.generate(() -> CompletableFuture.supplyAsync(() -> real.enter(DEADLINE).isPresent())).limit(2).toList();
        passes.forEach(pass -> pass.end(false));
        // Some were asked before it opened.
        for (CompletableFuture<Boolean> one : waiting) {
            assertNotNull(one.get(1, TimeUnit.MINUTES));
        }
        assertTrue(real.isOpen());
        assertTrue(real.enter(DEADLINE).isEmpty());
    }
}
