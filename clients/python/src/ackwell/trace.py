"""Trace context (W3C): out with every message that is sent, in around every handler.

With `opentelemetry-api` installed its current context is used both ways, and nothing need be done. Without it, `use` makes a
traceparent current, and `current` tells which one is.
"""

from __future__ import annotations

import contextlib
import contextvars
import importlib
from collections.abc import Iterator, Mapping
from typing import Any

otel_context: Any
otel_propagate: Any
try:
    otel_context = importlib.import_module("opentelemetry.context")
    otel_propagate = importlib.import_module("opentelemetry.propagate")
except ImportError:
    otel_context = otel_propagate = None

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"

_current: contextvars.ContextVar[Mapping[str, str] | None] = contextvars.ContextVar("ackwell_trace", default=None)


def current() -> Mapping[str, str]:
    """The headers that a message sent now gets: `traceparent` and `tracestate`, or none."""
    headers: dict[str, str] = {}
    if otel_propagate is not None:
        otel_propagate.inject(headers)
        headers = _trace_headers(headers)
    return headers or _current.get() or {}


@contextlib.contextmanager
def use(traceparent: str, tracestate: str = "") -> Iterator[None]:
    """Makes a trace context current."""
    with of_message({TRACEPARENT: traceparent, TRACESTATE: tracestate}):
        yield


@contextlib.contextmanager
def of_message(headers: Mapping[str, str]) -> Iterator[None]:
    """Makes the context current that a message carries; of one without, none."""
    carried = _trace_headers(headers)
    token = _current.set(carried or None)
    attached: Any = None
    if otel_context is not None:
        attached = otel_context.attach(otel_propagate.extract(carried, context=otel_context.Context()))
    try:
        yield
    finally:
        if attached is not None:
            otel_context.detach(attached)
        _current.reset(token)


def _trace_headers(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: headers[name] for name in (TRACEPARENT, TRACESTATE) if headers.get(name)}
