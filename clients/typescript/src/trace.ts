// Trace context (W3C): out with every message that is sent, in around every handler.
//
// Where @opentelemetry/api is installed its current context is used both ways, and nothing need be done. Without it, `withTrace`
// makes a traceparent current, and `currentTrace` tells which one is.

import { AsyncLocalStorage } from "node:async_hooks";

/** The headers of a trace context. */
export interface TraceContext {
  traceparent?: string;
  tracestate?: string;
}

const storage = new AsyncLocalStorage<TraceContext>();
const otel = await import("@opentelemetry/api").catch(() => undefined);

/** The headers that a message sent now gets. */
export function currentTrace(): TraceContext {
  const carrier: Record<string, string> = {};
  otel?.propagation.inject(otel.context.active(), carrier);
  return carrier.traceparent ? traceOf(carrier) : (storage.getStore() ?? {});
}

/** Runs a function with a trace context. */
export function withTrace<T>(trace: TraceContext, run: () => T): T {
  const carried = traceOf({ ...trace });
  const inStorage = () => storage.run(carried, run);
  return otel ? otel.context.with(otel.propagation.extract(otel.ROOT_CONTEXT, carried), inStorage) : inStorage();
}

/** The trace context that a message carries. */
export function traceOf(headers: Record<string, string | undefined>): TraceContext {
  const { traceparent, tracestate } = headers;
  return { ...(traceparent && { traceparent }), ...(tracestate && { tracestate }) };
}
