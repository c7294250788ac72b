package dev.ackwell.client;

/**
 * How a producer works. Immutable.
 *
 * @param maxOutstanding so many messages may be unconfirmed; then {@link Producer#send} waits
 * @param maxOutstandingBytes and so many encoded bytes
 */
public record ProducerOptions(int maxOutstanding, long maxOutstandingBytes) {
    /** 10 000 messages and 16 MiB. */
    public static final ProducerOptions DEFAULT = new ProducerOptions(10_000, 16 << 20);

    public ProducerOptions withMaxOutstanding(int messages) {
        return new ProducerOptions(messages, maxOutstandingBytes);
    }

    public ProducerOptions withMaxOutstandingBytes(long bytes) {
        return new ProducerOptions(maxOutstanding, bytes);
    }
}
