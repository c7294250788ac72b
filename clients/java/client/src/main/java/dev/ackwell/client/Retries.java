package dev.ackwell.client;

import io.grpc.Status.Code;
import java.time.Duration;
import java.util.concurrent.ThreadLocalRandom;
import java.util.function.Function;

/** Repeats calls while the broker is away. */
final class Retries {
    /** First wait; doubled up to the longest, so that a broker that is back is noticed within that. */
    private static final Duration SHORTEST_PAUSE = Duration.ofMillis(50);
    private static final Duration LONGEST_PAUSE = Duration.ofSeconds(2);

    private Retries() { }

    /** Waits that grow. */
    static final class Pauses {
        private Duration next = SHORTEST_PAUSE;

        /** Between half and all of the next wait, so that clients do not come back as one. */
        Duration take() {
            long full = next.toNanos();
            next = min(next.multipliedBy(2), LONGEST_PAUSE);
            return Duration.ofNanos(full / 2 + ThreadLocalRandom.current().nextLong(full / 2));
        }

        void reset() {
            next = SHORTEST_PAUSE;
        }
    }

    /**
     * Calls until there is an answer other than "not now", for at most {@code limit}. The call is given the time that is left, and
     * must have no second effect when it is repeated.
     */
    static <T> T repeat(Duration limit, Function<Duration, T> call, Runnable beforeRepetition) {
        long end = System.nanoTime() + limit.toNanos();
        Pauses pauses = new Pauses();
        AckwellException last = null;
        while (true) {
            AckwellException failure;
            try {
                return call.apply(Duration.ofNanos(Math.max(end - System.nanoTime(), 1)));
            } catch (RuntimeException thrown) {
                failure = AckwellException.of(thrown);
            }
            if (Thread.currentThread().isInterrupted() && failure.code() == Code.CANCELLED) {
                throw AckwellException.interrupted(failure);
            }
            boolean isOver = failure.code() == Code.DEADLINE_EXCEEDED && failure.reason().isEmpty();
            if (isOver && last != null) {
                // Why there was no answer says more than that there was none.
                throw last;
            }
            if (isOver || !failure.isTemporary()) {
                throw failure;
            }
            last = failure;
            Duration pause = max(failure.retryAfter().orElse(Duration.ZERO), pauses.take());
            if (pause.toNanos() >= end - System.nanoTime()) {
                throw failure;
            }
            sleep(pause);
            beforeRepetition.run();
        }
    }

    static void sleep(Duration pause) {
        try {
            Thread.sleep(pause.toMillis(), pause.toNanosPart() % 1_000_000);
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
            throw AckwellException.interrupted(interrupted);
        }
    }

    static Duration min(Duration a, Duration b) {
        return a.compareTo(b) < 0 ? a : b;
    }

    static Duration max(Duration a, Duration b) {
        return a.compareTo(b) > 0 ? a : b;
    }
}
