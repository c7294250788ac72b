package dev.ackwell.client;

import io.grpc.Status.Code;

/**
 * The stable words for why something was refused. {@code docs/reference/errors.md} says for each what to do. New versions of the
 * broker may use others: {@link AckwellException#reason()} has the word itself.
 */
public enum Reason {
    INVALID_ARGUMENT(Code.INVALID_ARGUMENT),
    MESSAGE_TOO_LARGE(Code.INVALID_ARGUMENT),
    BATCH_TOO_LARGE(Code.INVALID_ARGUMENT),
    INVALID_RECEIPT(Code.INVALID_ARGUMENT),
    BATCH_REFUSED(Code.FAILED_PRECONDITION),
    CROSS_SHARD(Code.FAILED_PRECONDITION),
    UNAUTHENTICATED(Code.UNAUTHENTICATED),
    PERMISSION_DENIED(Code.PERMISSION_DENIED),
    QUEUE_NOT_FOUND(Code.NOT_FOUND),
    MESSAGE_NOT_FOUND(Code.NOT_FOUND),
    MESSAGE_IN_FLIGHT(Code.FAILED_PRECONDITION),
    RECEIPT_EXPIRED(Code.FAILED_PRECONDITION),
    SETTLED_OTHERWISE(Code.FAILED_PRECONDITION),
    ALREADY_SETTLED(Code.FAILED_PRECONDITION),
    QUEUE_FULL(Code.RESOURCE_EXHAUSTED),
    BUSY(Code.RESOURCE_EXHAUSTED),
    DISK_FULL(Code.RESOURCE_EXHAUSTED),
    STORAGE_UNAVAILABLE(Code.UNAVAILABLE),
    TOKEN_EXPIRED(Code.UNAVAILABLE),
    SHARD_MOVED(Code.UNAVAILABLE),
    SHUTTING_DOWN(Code.UNAVAILABLE),
    BROKER_UNAVAILABLE(Code.UNAVAILABLE),
    CORRUPT(Code.DATA_LOSS);

    private final Code code;

    Reason(Code code) {
        this.code = code;
    }

    /** The gRPC code of a call that fails for this reason. */
    public Code code() {
        return code;
    }

    /** The code that goes with a word, known or not. */
    static Code codeOf(String word) {
        for (Reason reason : values()) {
            if (reason.name().equals(word)) {
                return reason.code;
            }
        }
        return Code.UNKNOWN;
    }
}
