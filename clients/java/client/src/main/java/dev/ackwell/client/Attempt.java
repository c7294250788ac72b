package dev.ackwell.client;

import java.time.Instant;

/**
 * One failed attempt to process a message.
 *
 * @param started when it was handed out
 * @param ended when it failed
 * @param outcome nack, ack-timeout, consumer-lost or reject
 * @param reason what the application said
 * @param consumer the name the consumer gave itself
 */
public record Attempt(Instant started, Instant ended, String outcome, String reason, String consumer) {
    static Attempt of(dev.ackwell.v1.Attempt wire) {
        return new Attempt(
                Wire.instant(wire.getStarted()),
                Wire.instant(wire.getEnded()),
                wire.getOutcome(),
                wire.getReason(),
                wire.getConsumer());
    }
}
