package dev.ackwell.client;

import java.util.Map;
import java.util.Optional;

/**
 * W3C trace context, as it stands in headers.
 *
 * @param traceparent trace and span
 * @param tracestate what vendors add; may be empty
 */
public record TraceContext(String traceparent, String tracestate) {
    private static final ThreadLocal<TraceContext> CURRENT = new ThreadLocal<>();

    /** Hands headers through: the trace of a message that is handled goes on in what its handler sends. */
    static final TracePropagator PASS_ON = new TracePropagator() {
        @Override
        public void inject(Map<String, String> headers) {
            current().ifPresent(trace -> {
                headers.put("traceparent", trace.traceparent);
                if (!trace.tracestate.isEmpty()) {
                    headers.put("tracestate", trace.tracestate);
                }
            });
        }

        @Override
        public Scope extract(Map<String, String> headers) {
            String parent = headers.get("traceparent");
            return parent == null ? () -> { } : new TraceContext(parent, headers.getOrDefault("tracestate", "")).makeCurrent();
        }
    };

    /** That of this thread: of a handler, or made by {@link #makeCurrent}. */
    public static Optional<TraceContext> current() {
        return Optional.ofNullable(CURRENT.get());
    }

    /** What this thread sends carries it until the scope is closed, unless the client has another propagator. */
    public TracePropagator.Scope makeCurrent() {
        TraceContext before = CURRENT.get();
        CURRENT.set(this);
        return () -> {
            if (before == null) {
                CURRENT.remove();
            } else {
                CURRENT.set(before);
            }
        };
    }
}
