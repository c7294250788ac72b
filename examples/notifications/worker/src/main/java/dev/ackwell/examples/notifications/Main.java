package dev.ackwell.examples.notifications;

import dev.ackwell.v1.QueuesGrpc;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import java.util.Map;

/**
 * Hands on the notifications of the queue "notifications" and prints one line of JSON for each.
 *
 * <p>Settings, all optional: ACKWELL_ADDRESS, WORK_MS (time per notification).
 */
public final class Main {
    public static void main(String[] args) throws InterruptedException {
        Map<String, String> env = System.getenv();
        String address = env.getOrDefault("ACKWELL_ADDRESS", "127.0.0.1:7400");
        Notifier notifier = new Notifier(Long.parseLong(env.getOrDefault("WORK_MS", "0")));
        ManagedChannel channel = Grpc.newChannelBuilder(address, InsecureChannelCredentials.create()).build();
        Consumer consumer = new Consumer(QueuesGrpc.newStub(channel), notifier);
        stopOnSignal(consumer);
        try {
            consumer.run();
        } finally {
            channel.shutdownNow();
        }
    }

    /** Lets the consumer finish what it holds when the process is asked to end, and makes that a success. */
    private static void stopOnSignal(Consumer consumer) {
        Thread main = Thread.currentThread();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            consumer.stop();
            try {
                main.join();
            } catch (InterruptedException interrupted) {
                Thread.currentThread().interrupt();
            }
            Runtime.getRuntime().halt(consumer.isFinished() ? 0 : 1);
        }));
    }

    private Main() {}
}
