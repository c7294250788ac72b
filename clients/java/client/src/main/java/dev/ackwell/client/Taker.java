package dev.ackwell.client;

/** Who processes the messages of a consumer. Its methods are for tasks of the consumer's mailbox, and do not wait. */
interface Taker {
    /** Whether there is room for one more; so many are with it now. */
    boolean hasRoom(int running);

    /** Takes a message, to call {@link Job#end} some time. */
    Job.Taken take(Job job);

    /** The consumer has ended; with null when that was asked for. */
    void close(AckwellException failure);
}
