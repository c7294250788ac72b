package dev.ackwell.client;

import dev.ackwell.v1.QueueAdminGrpc;
import dev.ackwell.v1.QueueAdminGrpc.QueueAdminBlockingStub;
import dev.ackwell.v1.QueuesGrpc;
import dev.ackwell.v1.QueuesGrpc.QueuesBlockingStub;
import dev.ackwell.v1.QueuesGrpc.QueuesStub;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import java.time.Duration;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.ThreadFactory;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/** A gRPC channel, and the threads of a client. All of them end with it. */
final class Connection {
    /** 16 MiB of bodies, and as much again for each of headers and histories. */
    private static final int MAX_ANSWER_BYTES = 64 << 20;
    /** A peer that vanished without a word is noticed within the sum. */
    private static final Duration KEEPALIVE_INTERVAL = Duration.ofSeconds(10);
    private static final Duration KEEPALIVE_TIMEOUT = Duration.ofSeconds(5);
    /** Calls that were cut need no longer to notice. */
    private static final Duration CLOSE_LIMIT = Duration.ofSeconds(5);

    private final ManagedChannel channel;
    /** For what streams bring; it never waits. Its threads end when they have nothing to do. */
    private final ExecutorService executor = Executors.newCachedThreadPool(threads("ackwell"));
    private final ScheduledExecutorService timers = Executors.newSingleThreadScheduledExecutor(threads("ackwell-timer"));

    Connection(String target) {
        ManagedChannelBuilder<?> builder = Grpc.newChannelBuilder(target, InsecureChannelCredentials.create())
                .keepAliveTime(KEEPALIVE_INTERVAL.toSeconds(), TimeUnit.SECONDS)
                .keepAliveTimeout(KEEPALIVE_TIMEOUT.toSeconds(), TimeUnit.SECONDS)
                .maxInboundMessageSize(MAX_ANSWER_BYTES)
                .disableServiceConfigLookUp()
                .proxyDetector(server -> null)
                .executor(executor)
                .offloadExecutor(executor);
        if (Address.isSocket(target)) {
            // What gRPC makes of a path is no authority, and is refused by servers that look.
            builder.overrideAuthority("localhost");
        }
        channel = builder.build();
    }

    QueuesBlockingStub queues(Duration left) {
        return QueuesGrpc.newBlockingStub(channel).withDeadlineAfter(left.toNanos(), TimeUnit.NANOSECONDS);
    }

    QueueAdminBlockingStub admin(Duration left) {
        return QueueAdminGrpc.newBlockingStub(channel).withDeadlineAfter(left.toNanos(), TimeUnit.NANOSECONDS);
    }

    QueuesStub streams() {
        return QueuesGrpc.newStub(channel);
    }

    ExecutorService executor() {
        return executor;
    }

    ScheduledExecutorService timers() {
        return timers;
    }

    /** gRPC's own waits between connection attempts grow to two minutes; who tries again wants to know now. */
    void reconnectNow() {
        channel.resetConnectBackoff();
    }

    boolean isClosed() {
        return channel.isShutdown();
    }

    void close() {
        timers.shutdownNow();
        channel.shutdownNow();
        try {
            channel.awaitTermination(CLOSE_LIMIT.toMillis(), TimeUnit.MILLISECONDS);
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        }
        executor.shutdown();
    }

    static ThreadFactory threads(String name) {
        AtomicInteger number = new AtomicInteger();
        return task -> {
            Thread thread = new Thread(task, name + "-" + number.incrementAndGet());
            thread.setDaemon(true);
            return thread;
        };
    }
}
