package dev.ackwell.client;

import java.time.Duration;
import java.util.concurrent.Executor;

/**
 * How a consumer works. Immutable: each {@code with} gives another one.
 *
 * @param concurrency so many handlers run at once
 * @param prefetch so many messages more are taken, so that the next one is there when a handler ends; what waits here could be
 *     processed elsewhere
 * @param windowBytes no more bytes of bodies at once than these; 0: 16 MiB. A single larger message comes alone
 * @param grace how long {@link Consumer#close} lets handlers run
 * @param name of the consumer in the histories of messages; null: the client's
 * @param executor runs the handlers; null: virtual threads, where Java has them, else threads of the consumer's own
 */
public record ConsumerOptions(
        int concurrency, int prefetch, long windowBytes, Duration grace, String name, Executor executor) {
    /** 16 handlers, nothing prefetched, 25 s to stop: within the 30 s that a pod has. */
    public static final ConsumerOptions DEFAULT = new ConsumerOptions(16, 0, 0, Duration.ofSeconds(25), null, null);

    public ConsumerOptions {
        if (concurrency < 1 || prefetch < 0) {
            throw new IllegalArgumentException("a consumer needs a concurrency of at least 1 and a prefetch of at least 0");
        }
    }

    public ConsumerOptions withConcurrency(int handlers) {
        return new ConsumerOptions(handlers, prefetch, windowBytes, grace, name, executor);
    }

    public ConsumerOptions withPrefetch(int messages) {
        return new ConsumerOptions(concurrency, messages, windowBytes, grace, name, executor);
    }

    public ConsumerOptions withWindowBytes(long bytes) {
        return new ConsumerOptions(concurrency, prefetch, bytes, grace, name, executor);
    }

    public ConsumerOptions withGrace(Duration duration) {
        return new ConsumerOptions(concurrency, prefetch, windowBytes, duration, name, executor);
    }

    public ConsumerOptions withName(String consumer) {
        return new ConsumerOptions(concurrency, prefetch, windowBytes, grace, consumer, executor);
    }

    public ConsumerOptions withExecutor(Executor handlers) {
        return new ConsumerOptions(concurrency, prefetch, windowBytes, grace, name, handlers);
    }
}
