package dev.ackwell.client;

import java.time.Duration;

/** Thrown by a handler: the message is nacked, and comes back after the given time instead of the queue's backoff. */
public final class RetryException extends RuntimeException {
    private final Duration after;

    public RetryException(Duration after, String reason) {
        super(reason);
        this.after = after;
    }

    public RetryException(Duration after, Throwable cause) {
        super(cause.toString(), cause);
        this.after = after;
    }

    public Duration after() {
        return after;
    }
}
