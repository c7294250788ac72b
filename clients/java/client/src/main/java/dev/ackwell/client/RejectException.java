package dev.ackwell.client;

/** Thrown by a handler: no attempt will ever succeed, the message is set aside as Dead. */
public final class RejectException extends RuntimeException {
    public RejectException(String reason) {
        super(reason);
    }

    public RejectException(String reason, Throwable cause) {
        super(reason, cause);
    }
}
