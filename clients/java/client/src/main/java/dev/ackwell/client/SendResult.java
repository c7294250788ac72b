package dev.ackwell.client;

import java.util.Optional;

/**
 * What became of one message of several.
 *
 * @param sent present when it is on disk
 * @param error present when it is not
 */
public record SendResult(Optional<Sent> sent, Optional<AckwellException> error) {
    /** The message that is on disk, or the error. */
    public Sent get() {
        return sent.orElseThrow(error::get);
    }

    static SendResult of(dev.ackwell.v1.SendResult wire) {
        return wire.hasError()
                ? failed(AckwellException.of(wire.getError()))
                : new SendResult(Optional.of(new Sent(wire.getId(), wire.getDuplicate())), Optional.empty());
    }

    static SendResult failed(AckwellException error) {
        return new SendResult(Optional.empty(), Optional.of(error));
    }
}
