package dev.ackwell.client;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import dev.ackwell.v1.ItemError;
import io.grpc.Status;
import io.grpc.Status.Code;
import io.grpc.protobuf.StatusProto;
import java.nio.channels.ClosedChannelException;
import java.time.Duration;
import java.util.Optional;
import java.util.Set;

/** Why a call, or one item of it, failed. */
public final class AckwellException extends RuntimeException {
    /** That of every refusal by Ackwell. */
    private static final String DOMAIN = "ackwell.dev";
    /** What opening the same stream again does not change. */
    private static final Set<Code> PERMANENT = Set.of(
            Code.INVALID_ARGUMENT,
            Code.NOT_FOUND,
            Code.PERMISSION_DENIED,
            Code.UNAUTHENTICATED,
            Code.UNIMPLEMENTED,
            Code.DATA_LOSS);

    private final String reason;
    private final Code code;
    private final Duration retryAfter;

    AckwellException(String reason, Code code, String message, Duration retryAfter, Throwable cause) {
        super(reason.isEmpty() ? "%s [%s]".formatted(message, code) : "%s [%s]".formatted(message, reason), cause);
        this.reason = reason;
        this.code = code;
        this.retryAfter = retryAfter;
    }

    /** The stable word; empty when it is not a refusal by Ackwell: no connection, no answer in time. */
    public String reason() {
        return reason;
    }

    /** Whether it was refused for this reason. */
    public boolean is(Reason other) {
        return reason.equals(other.name());
    }

    /** That of gRPC. */
    public Code code() {
        return code;
    }

    /** Present where trying again later can help. */
    public Optional<Duration> retryAfter() {
        return Optional.ofNullable(retryAfter);
    }

    static AckwellException closed(String what) {
        return new AckwellException("", Code.CANCELLED, what + " is closed", null, null);
    }

    static AckwellException interrupted(Throwable cause) {
        return new AckwellException("", Code.CANCELLED, "the thread was interrupted", null, cause);
    }

    static AckwellException mismatch(int expected, int got) {
        String message = "the answer has %d results for %d items: client and broker do not match".formatted(got, expected);
        return new AckwellException("", Code.INTERNAL, message, null, null);
    }

    /** Reads what gRPC answered. */
    static AckwellException of(Throwable failure) {
        if (failure instanceof AckwellException known) {
            return known;
        }
        Status status = Status.fromThrowable(failure);
        com.google.rpc.Status details = StatusProto.fromThrowable(failure);
        String reason = "";
        Duration retryAfter = null;
        for (Any detail : details == null ? java.util.List.<Any>of() : details.getDetailsList()) {
            try {
                if (detail.is(ErrorInfo.class) && detail.unpack(ErrorInfo.class).getDomain().equals(DOMAIN)) {
                    reason = detail.unpack(ErrorInfo.class).getReason();
                } else if (detail.is(RetryInfo.class)) {
                    retryAfter = Wire.duration(detail.unpack(RetryInfo.class).getRetryDelay());
                }
            } catch (InvalidProtocolBufferException unreadable) {
                // The code and the message still say what happened.
                continue;
            }
        }
        String message = status.getDescription() == null ? "the call failed" : status.getDescription();
        return new AckwellException(reason, status.getCode(), message, retryAfter, failure);
    }

    /** Reads the error of one item. */
    static AckwellException of(ItemError item) {
        Duration retryAfter = item.hasRetryAfter() ? Wire.duration(item.getRetryAfter()) : null;
        return new AckwellException(item.getReason(), Reason.codeOf(item.getReason()), item.getMessage(), retryAfter, null);
    }

    /** Whether the same call can succeed a little later, without anybody doing anything. */
    boolean isTemporary() {
        return code == Code.UNAVAILABLE || is(Reason.BUSY) || isBrokenConnection();
    }

    /** What gRPC says of a call whose connection was reset; an answer of the broker has a reason. */
    private boolean isBrokenConnection() {
        if (!reason.isEmpty() || getCause() == null) {
            return false;
        }
        // A connection that closes in the moment in which a call begins on it has no code of its own.
        boolean isClosed = code == Code.UNKNOWN && getCause().getCause() instanceof ClosedChannelException;
        return isClosed || code == Code.CANCELLED && !(getCause() instanceof InterruptedException);
    }

    /** Whether opening the same stream again is of no use. */
    boolean isPermanent() {
        return PERMANENT.contains(code);
    }
}
