package dev.ackwell.client;

import java.time.Instant;
import java.util.Optional;

/**
 * What became of one extension.
 *
 * @param ackDeadline until when the delivery is held
 * @param error present when it is not
 */
public record ExtendResult(Optional<Instant> ackDeadline, Optional<AckwellException> error) {
    static ExtendResult of(dev.ackwell.v1.ExtendResult wire) {
        return wire.hasError()
                ? new ExtendResult(Optional.empty(), Optional.of(AckwellException.of(wire.getError())))
                : new ExtendResult(Optional.of(Wire.instant(wire.getAckDeadline())), Optional.empty());
    }
}
