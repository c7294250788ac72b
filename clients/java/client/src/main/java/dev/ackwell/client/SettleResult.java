package dev.ackwell.client;

import dev.ackwell.v1.State;
import java.time.Instant;
import java.util.Optional;

/**
 * What became of one delivery.
 *
 * @param state where the message is now; empty when it is gone, or there is an error
 * @param nextAttemptAt present where it is delayed
 * @param error present when it was not settled
 */
public record SettleResult(Optional<State> state, Optional<Instant> nextAttemptAt, Optional<AckwellException> error) {
    static SettleResult of(dev.ackwell.v1.SettleResult wire) {
        boolean isThere = !wire.hasError() && wire.getState() != State.STATE_UNSPECIFIED;
        return new SettleResult(
                isThere ? Optional.of(wire.getState()) : Optional.empty(),
                wire.hasNextAttemptAt() ? Optional.of(Wire.instant(wire.getNextAttemptAt())) : Optional.empty(),
                wire.hasError() ? Optional.of(AckwellException.of(wire.getError())) : Optional.empty());
    }
}
