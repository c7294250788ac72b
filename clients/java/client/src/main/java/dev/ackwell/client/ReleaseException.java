package dev.ackwell.client;

/** Thrown by a handler: the message goes back unprocessed, free of charge. */
public final class ReleaseException extends RuntimeException {
    public ReleaseException() {
        super("released");
    }
}
