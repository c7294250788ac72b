package dev.ackwell.client;

import java.time.Duration;

/**
 * What to receive. Immutable: each {@code with} gives another one.
 *
 * @param maxMessages at most 1000
 * @param maxBytes sum of the bodies; 0: 3 MiB. A single larger message comes alone
 * @param maxWait how long to wait for the first message, at most 60 s
 * @param ackTimeout how long the messages are held, 1 s to 12 h; null: as the queue says
 * @param consumer a name for the histories of messages; null: the client's
 */
public record ReceiveOptions(int maxMessages, long maxBytes, Duration maxWait, Duration ackTimeout, String consumer) {
    /** One message, waiting up to 20 s for it. */
    public static final ReceiveOptions DEFAULT = new ReceiveOptions(1, 0, Duration.ofSeconds(20), null, null);

    /** Up to so many messages, waiting up to 20 s for the first. */
    public static ReceiveOptions upTo(int maxMessages) {
        return new ReceiveOptions(maxMessages, 0, DEFAULT.maxWait, null, null);
    }

    public ReceiveOptions withMaxBytes(long bytes) {
        return new ReceiveOptions(maxMessages, bytes, maxWait, ackTimeout, consumer);
    }

    public ReceiveOptions withWait(Duration duration) {
        return new ReceiveOptions(maxMessages, maxBytes, duration, ackTimeout, consumer);
    }

    public ReceiveOptions withAckTimeout(Duration duration) {
        return new ReceiveOptions(maxMessages, maxBytes, maxWait, duration, consumer);
    }

    public ReceiveOptions withConsumer(String name) {
        return new ReceiveOptions(maxMessages, maxBytes, maxWait, ackTimeout, name);
    }
}
