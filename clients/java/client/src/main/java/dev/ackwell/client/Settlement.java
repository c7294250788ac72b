package dev.ackwell.client;

import dev.ackwell.v1.Ack;
import dev.ackwell.v1.Nack;
import dev.ackwell.v1.Reject;
import dev.ackwell.v1.Release;
import java.time.Duration;

/** How the processing of a delivery ended. */
public final class Settlement {
    private final dev.ackwell.v1.Settlement wire;

    private Settlement(dev.ackwell.v1.Settlement.Builder wire) {
        this.wire = wire.build();
    }

    /** Done: the message is gone. */
    public static Settlement ack(Receipt receipt) {
        return new Settlement(begin(receipt).setAck(Ack.getDefaultInstance()));
    }

    /** Failed: counts an attempt and comes back after the queue's backoff. */
    public static Settlement nack(Receipt receipt, String reason) {
        return new Settlement(begin(receipt).setNack(Nack.newBuilder().setReason(reason)));
    }

    /** Failed: counts an attempt and comes back after {@code delay}. */
    public static Settlement nack(Receipt receipt, String reason, Duration delay) {
        return new Settlement(begin(receipt).setNack(Nack.newBuilder().setReason(reason).setDelay(Wire.duration(delay))));
    }

    /** Not processed: back to its place, free of charge. */
    public static Settlement release(Receipt receipt) {
        return new Settlement(begin(receipt).setRelease(Release.getDefaultInstance()));
    }

    /** Never again: Dead at once. */
    public static Settlement reject(Receipt receipt, String reason) {
        return new Settlement(begin(receipt).setReject(Reject.newBuilder().setReason(reason)));
    }

    private static dev.ackwell.v1.Settlement.Builder begin(Receipt receipt) {
        return dev.ackwell.v1.Settlement.newBuilder().setReceipt(receipt.bytes());
    }

    dev.ackwell.v1.Settlement wire() {
        return wire;
    }
}
