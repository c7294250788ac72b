package dev.ackwell.client;

import com.google.protobuf.ByteString;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;

/** What is sent. Only the body is usual. Immutable. */
public final class Message {
    private final dev.ackwell.v1.Message wire;

    Message(dev.ackwell.v1.Message wire) {
        this.wire = wire;
    }

    /** A message of nothing but a body. */
    public static Message of(byte[] body) {
        return builder().body(body).build();
    }

    /** A message of nothing but a text, in UTF-8. */
    public static Message of(String body) {
        return builder().body(body).build();
    }

    /** Begins a message. */
    public static Builder builder() {
        return new Builder(dev.ackwell.v1.Message.newBuilder());
    }

    /** Begins a message like this one. */
    public Builder toBuilder() {
        return new Builder(wire.toBuilder());
    }

    /** A copy of the body. */
    public byte[] body() {
        return wire.getBody().toByteArray();
    }

    /** The body as UTF-8. */
    public String text() {
        return wire.getBody().toStringUtf8();
    }

    /** The body without a copy, read-only. */
    public ByteBuffer bodyBuffer() {
        return wire.getBody().asReadOnlyByteBuffer();
    }

    public Map<String, String> headers() {
        return wire.getHeadersMap();
    }

    public Optional<String> header(String name) {
        return Optional.ofNullable(wire.getHeadersMap().get(name));
    }

    /** Empty where there is none, as are the keys and the dedup id. */
    public String contentType() {
        return wire.getContentType();
    }

    public String orderingKey() {
        return wire.getOrderingKey();
    }

    public String fairnessKey() {
        return wire.getFairnessKey();
    }

    public OptionalInt priority() {
        return wire.hasPriority() ? OptionalInt.of(wire.getPriority()) : OptionalInt.empty();
    }

    public String dedupId() {
        return wire.getDedupId();
    }

    public Optional<Duration> delay() {
        return wire.hasDelay() ? Optional.of(Wire.duration(wire.getDelay())) : Optional.empty();
    }

    public Optional<Instant> deliverAt() {
        return wire.hasDeliverAt() ? Optional.of(Wire.instant(wire.getDeliverAt())) : Optional.empty();
    }

    public Optional<Duration> ttl() {
        return wire.hasTtl() ? Optional.of(Wire.duration(wire.getTtl())) : Optional.empty();
    }

    public OptionalInt maxAttempts() {
        return wire.hasMaxAttempts() ? OptionalInt.of(wire.getMaxAttempts()) : OptionalInt.empty();
    }

    dev.ackwell.v1.Message wire() {
        return wire;
    }

    /** With headers that it does not have yet. */
    Message withHeaders(Map<String, String> more) {
        if (more.isEmpty()) {
            return this;
        }
        Map<String, String> headers = new LinkedHashMap<>(more);
        headers.putAll(wire.getHeadersMap());
        return new Message(wire.toBuilder().putAllHeaders(headers).build());
    }

    /** What only brokers set is no part of a message that is sent on. */
    static Message received(dev.ackwell.v1.Message wire) {
        return new Message(wire.toBuilder()
                .clearId()
                .clearStoredAt()
                .clearState()
                .clearAttempts()
                .clearDeliveries()
                .clearHistory()
                .clearDeadReason()
                .clearNextAttemptAt()
                .clearBodyBytes()
                .build());
    }

    /** Makes a message. */
    public static final class Builder {
        private final dev.ackwell.v1.Message.Builder wire;

        private Builder(dev.ackwell.v1.Message.Builder wire) {
            this.wire = wire;
        }

        /** At most the queue's maxMessageBytes (1 MiB by default); may be empty. */
        public Builder body(byte[] body) {
            wire.setBody(ByteString.copyFrom(body));
            return this;
        }

        /** A text, as UTF-8. */
        public Builder body(String body) {
            wire.setBody(ByteString.copyFrom(body, StandardCharsets.UTF_8));
            return this;
        }

        /** At most 64, with 32 KiB in all. */
        public Builder header(String name, String value) {
            wire.putHeaders(name, value);
            return this;
        }

        public Builder headers(Map<String, String> headers) {
            wire.putAllHeaders(headers);
            return this;
        }

        public Builder contentType(String contentType) {
            wire.setContentType(contentType);
            return this;
        }

        /** Messages with the same key come in the order in which they were stored, one at a time. */
        public Builder orderingKey(String key) {
            wire.setOrderingKey(key);
            return this;
        }

        /** The tenant: keys take turns. */
        public Builder fairnessKey(String key) {
            wire.setFairnessKey(key);
            return this;
        }

        /** 0 to 9, the highest first; without it 4. */
        public Builder priority(int priority) {
            wire.setPriority(priority);
            return this;
        }

        /** Within the queue's dedup window a second message with the same id stores nothing. */
        public Builder dedupId(String id) {
            wire.setDedupId(id);
            return this;
        }

        /** How long consumers have to wait for it; instead of {@link #deliverAt}. */
        public Builder delay(Duration delay) {
            wire.setDelay(Wire.duration(delay));
            return this;
        }

        /** When consumers get it; instead of {@link #delay}. */
        public Builder deliverAt(Instant time) {
            wire.setDeliverAt(Wire.timestamp(time));
            return this;
        }

        /** When it expires, from being stored. */
        public Builder ttl(Duration ttl) {
            wire.setTtl(Wire.duration(ttl));
            return this;
        }

        /** Can only lower the queue's own. */
        public Builder maxAttempts(int attempts) {
            wire.setMaxAttempts(attempts);
            return this;
        }

        public Message build() {
            return new Message(wire.build());
        }
    }
}
