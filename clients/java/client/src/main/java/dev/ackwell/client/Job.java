package dev.ackwell.client;

import java.util.function.BiConsumer;

/** A delivery in the hands of a consumer. Its fields are for tasks of the consumer's mailbox. */
final class Job {
    enum Cancellation { REVOKED, SHUTDOWN }

    /** Whoever processes it. */
    @FunctionalInterface
    interface Taken {
        /** The result is not wanted any more. */
        void cancel(Cancellation why);
    }

    final Delivery delivery;
    /** Null while nobody processes it. */
    Taken taken;
    /** Null while the message waits or is processed. */
    Settlement settlement;
    /** Whoever processed it has said how that ended. */
    boolean isEnded;
    /** The message is not ours any more. */
    boolean isGone;

    private final BiConsumer<Job, Settlement> onEnd;

    Job(Delivery delivery, BiConsumer<Job, Settlement> onEnd) {
        this.delivery = delivery;
        this.onEnd = onEnd;
    }

    /** Says, from any thread, how processing ended; null where the message is settled already. */
    void end(Settlement how) {
        onEnd.accept(this, how);
    }

    void cancel(Cancellation why) {
        if (taken != null) {
            taken.cancel(why);
        }
    }
}
