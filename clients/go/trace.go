package ackwell

import (
	"context"
	"maps"
)

// Tracing carries trace context between a context and the headers of messages. With OpenTelemetry:
//
//	p := otel.GetTextMapPropagator()
//	ackwell.WithTracing(ackwell.Tracing{
//		Inject:  func(ctx context.Context, h map[string]string) { p.Inject(ctx, propagation.MapCarrier(h)) },
//		Extract: func(ctx context.Context, h map[string]string) context.Context { return p.Extract(ctx, propagation.MapCarrier(h)) },
//	})
//
// Without it the trace of a message that is handled goes on in the messages that its handler sends.
type Tracing struct {
	// Inject writes the trace of ctx, if there is one, into headers.
	Inject func(ctx context.Context, headers map[string]string)
	// Extract gives a context with the trace of headers, if there is one.
	Extract func(ctx context.Context, headers map[string]string) context.Context
}

const (
	traceparent = "traceparent"
	tracestate  = "tracestate"
)

// Trace is W3C trace context, as it stands in headers.
type Trace struct {
	Parent string
	State  string
}

type traceKey struct{}

// ContextWithTrace gives a context whose trace goes into what is sent with it, unless [WithTracing] says otherwise.
func ContextWithTrace(ctx context.Context, trace Trace) context.Context {
	return context.WithValue(ctx, traceKey{}, trace)
}

// TraceOf is the trace of a handler's context, or of [ContextWithTrace].
func TraceOf(ctx context.Context) (Trace, bool) {
	trace, ok := ctx.Value(traceKey{}).(Trace)
	return trace, ok
}

// passOn needs no library: it hands the headers through.
var passOn = Tracing{
	Inject: func(ctx context.Context, headers map[string]string) {
		trace, ok := TraceOf(ctx)
		if !ok {
			return
		}
		headers[traceparent] = trace.Parent
		if trace.State != "" {
			headers[tracestate] = trace.State
		}
	},
	Extract: func(ctx context.Context, headers map[string]string) context.Context {
		if headers[traceparent] == "" {
			return ctx
		}
		return ContextWithTrace(ctx, Trace{Parent: headers[traceparent], State: headers[tracestate]})
	},
}

// outgoing are the headers of a message that is sent with ctx. A traceparent that the message has already stays.
func (t Tracing) outgoing(ctx context.Context, headers map[string]string) map[string]string {
	if _, ok := headers[traceparent]; ok || t.Inject == nil {
		return headers
	}
	injected := map[string]string{}
	t.Inject(ctx, injected)
	if len(injected) == 0 {
		return headers
	}
	maps.Copy(injected, headers)
	return injected
}

func (t Tracing) incoming(ctx context.Context, headers map[string]string) context.Context {
	if t.Extract == nil {
		return ctx
	}
	return t.Extract(ctx, headers)
}
