package dev.ackwell.client;

import java.util.Map;

/**
 * Carries trace context between threads and the headers of messages. With OpenTelemetry, on which the client does not depend:
 *
 * <pre>{@code
 * public void inject(Map<String, String> headers) {
 *     propagator.inject(Context.current(), headers, Map::put);
 * }
 *
 * public Scope extract(Map<String, String> headers) {
 *     return propagator.extract(Context.current(), headers, getter).makeCurrent()::close;
 * }
 * }</pre>
 */
public interface TracePropagator {
    /** Writes the trace of this thread, if there is one. */
    void inject(Map<String, String> headers);

    /** Makes the trace of the headers, if there is one, that of this thread until the scope is closed. */
    Scope extract(Map<String, String> headers);

    /** What to undo. */
    @FunctionalInterface
    interface Scope extends AutoCloseable {
        @Override
        void close();
    }
}
