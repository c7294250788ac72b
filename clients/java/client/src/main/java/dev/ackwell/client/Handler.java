package dev.ackwell.client;

/**
 * Processes one delivery. Returning acks; {@link RejectException}, {@link RetryException} and {@link ReleaseException} say what else
 * becomes of the message; any other exception nacks it, with the exception's text as the reason.
 *
 * <p>The thread is interrupted when the result is not wanted any more: another consumer has the message, or the grace of a stop is
 * over. A delivery that the handler settled itself, by its methods, is left alone.
 */
@FunctionalInterface
public interface Handler {
    void handle(Delivery delivery) throws Exception;
}
