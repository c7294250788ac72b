package dev.ackwell.client;

import java.time.Duration;
import java.time.Instant;
import java.util.List;

/**
 * A message in this program's hands. Of those from {@link AckwellClient#receive} each has to be settled, or extended, before its
 * {@link #ackDeadline}; a consumer does both by itself.
 */
public final class Delivery {
    private final AckwellClient client;
    private final String queue;
    private final dev.ackwell.v1.Delivery wire;
    private final Message message;
    private volatile boolean settled;
    private volatile Runnable whenSettled = () -> { };

    Delivery(AckwellClient client, String queue, dev.ackwell.v1.Delivery wire) {
        this.client = client;
        this.queue = queue;
        this.wire = wire;
        this.message = Message.received(wire.getMessage());
    }

    /** What the sender set. */
    public Message message() {
        return message;
    }

    public String queue() {
        return queue;
    }

    /** A UUIDv7, sortable by the time the message was stored. */
    public String id() {
        return wire.getMessage().getId();
    }

    public Instant storedAt() {
        return Wire.instant(wire.getMessage().getStoredAt());
    }

    /** How often processing failed. */
    public int attempts() {
        return wire.getMessage().getAttempts();
    }

    /** How often it was handed out. */
    public int deliveries() {
        return wire.getMessage().getDeliveries();
    }

    /** The newest 16 failed attempts, newest first. */
    public List<Attempt> history() {
        return wire.getMessage().getHistoryList().stream().map(Attempt::of).toList();
    }

    public Receipt receipt() {
        return new Receipt(wire.getReceipt());
    }

    /** When the broker takes the message back. */
    public Instant ackDeadline() {
        return Wire.instant(wire.getAckDeadline());
    }

    /** Grows with every delivery: lets a store refuse writes of an earlier holder. */
    public long fencingToken() {
        return wire.getFencingToken();
    }

    /** Done: the message is gone. */
    public void ack() {
        settle(Settlement.ack(receipt()));
    }

    /** Failed: comes back after the queue's backoff. */
    public void nack(String reason) {
        settle(Settlement.nack(receipt(), reason));
    }

    /** Failed: comes back after {@code delay}. */
    public void nack(String reason, Duration delay) {
        settle(Settlement.nack(receipt(), reason, delay));
    }

    /** Not processed: back to its place, free of charge. */
    public void release() {
        settle(Settlement.release(receipt()));
    }

    /** Never again: Dead at once. */
    public void reject(String reason) {
        settle(Settlement.reject(receipt(), reason));
    }

    /** Holds it for {@code ackTimeout} from now, and says until when. */
    public Instant extend(Duration ackTimeout) {
        ExtendResult result = client.extend(queue, List.of(receipt()), ackTimeout).get(0);
        return result.ackDeadline().orElseThrow(result.error()::get);
    }

    /** Whether this program settled it by the methods here. */
    boolean isSettled() {
        return settled;
    }

    private void settle(Settlement settlement) {
        client.settle(queue, List.of(settlement)).get(0).error().ifPresent(error -> {
            throw error;
        });
        settled = true;
        whenSettled.run();
    }

    /** What to do when this program has settled it by the methods here. */
    void whenSettled(Runnable action) {
        whenSettled = action;
    }
}
