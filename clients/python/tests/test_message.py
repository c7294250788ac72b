"""Messages, errors, addresses, trace context and events: what needs no connection."""

import datetime

import pytest
from google.protobuf import any_pb2, duration_pb2

import ackwell
from ackwell import _status_pb2, cloudevents, trace
from ackwell._calls import batches
from ackwell._channel import find_address
from ackwell._retry import Attempts
from ackwell.errors import _reason
from ackwell.message import from_wire, to_wire


def test_message_through_the_wire_is_unchanged():
    """Promise: what is sent is what is received."""
    message = ackwell.Message(
        body="größe",
        headers={"a": "ß"},
        content_type="text/plain",
        ordering_key="k",
        fairness_key="f",
        priority=0,
        dedup_id="d",
        delay=datetime.timedelta(seconds=1.5),
        ttl=2,
        max_attempts=3,
    )
    received = from_wire(to_wire(message))
    assert received.text == "größe"
    assert (received.priority, received.max_attempts, received.headers) == (0, 3, {"a": "ß"})
    assert (received.delay, received.ttl) == (datetime.timedelta(seconds=1.5), datetime.timedelta(seconds=2))
    assert from_wire(to_wire("x")).priority is None


def test_delay_and_time_exclude_each_other():
    """Promise: a message that contradicts itself is refused before it is sent."""
    with pytest.raises(ValueError, match="not both"):
        to_wire(ackwell.Message(delay=1, deliver_at=datetime.datetime.now()))


def test_batches_stay_within_the_limits_of_a_call():
    """Promise: no call of send_many is refused for its size."""
    assert [len(batch) for batch in batches(["x"] * 2500)] == [1000, 1000, 500]
    mib = b"x" * (1 << 20)
    assert [len(batch) for batch in batches([mib, mib, mib, mib * 5, "x"])] == [2, 1, 1, 1]


@pytest.mark.parametrize("good", ["127.0.0.1:7400", "http://localhost:7400/", "[::1]:7400", "unix:/run/ackwell"])
def test_address_is_taken(good):
    """Promise: an address may be written as people write them."""
    assert find_address(good)


@pytest.mark.parametrize("bad", ["localhost", ":7400", "localhost:", "localhost:0", "localhost:70000", "https://a:1/b"])
def test_bad_address_is_named(bad):
    """Promise: a wrong address is found at once, not by a call that never ends."""
    with pytest.raises(ValueError, match="not valid"):
        find_address(bad)


def test_address_comes_from_the_environment(monkeypatch):
    """Promise: a pod's sidecar is found without configuration."""
    monkeypatch.setenv("ACKWELL_ADDRESS", "127.0.0.1:1")
    assert find_address(None) == "127.0.0.1:1"
    monkeypatch.delenv("ACKWELL_ADDRESS")
    assert find_address(None) == ackwell.DEFAULT_ADDRESS


def status(*details):
    packed = []
    for name, detail in details:
        packed.append(any_pb2.Any(type_url=f"type.googleapis.com/google.rpc.{name}", value=detail.SerializeToString()))
    encoded = _status_pb2.Status(code=8, details=packed).SerializeToString()
    return [("grpc-status-details-bin", encoded)]


def test_reason_and_hint_are_read_from_the_details():
    """Promise: programs see why a call failed, and when to try again."""
    info = _status_pb2.ErrorInfo(reason="QUEUE_FULL", domain="ackwell.dev")
    retry = _status_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=1, nanos=500_000_000))
    assert _reason(status(("ErrorInfo", info), ("RetryInfo", retry))) == ("QUEUE_FULL", 1.5)
    other = _status_pb2.ErrorInfo(reason="QUEUE_FULL", domain="example.com")
    assert _reason(status(("ErrorInfo", other))) == ("", None)
    assert _reason([("grpc-status-details-bin", b"\xff\xff")]) == ("", None)


def test_attempts_end_with_the_last_reason():
    """Promise: when time runs out the caller learns why, not only that it did."""
    away = ackwell.Refused("away", code="UNAVAILABLE", reason="BROKER_UNAVAILABLE")
    attempts = Attempts(10)
    assert 0 < attempts.pause_after(away) <= 0.05
    with pytest.raises(ackwell.Refused) as raised:
        attempts.pause_after(ackwell.Unreachable("late", code="DEADLINE_EXCEEDED"))
    assert raised.value is away
    with pytest.raises(ackwell.Refused, match="bad"):
        Attempts(10).pause_after(ackwell.Refused("bad", code="INVALID_ARGUMENT", reason="INVALID_ARGUMENT"))
    with pytest.raises(ackwell.Refused):
        Attempts(10, repeatable=False).pause_after(away)


def test_current_trace_goes_into_messages_that_have_none():
    """Promise: a trace goes on through a queue, and a header set by hand stays."""
    with trace.use("00-a-b-01"):
        headers = trace.current()
        assert from_wire(to_wire("x", headers)).headers == {"traceparent": "00-a-b-01"}
        own = ackwell.Message(headers={"traceparent": "own"})
        assert from_wire(to_wire(own, headers)).headers == {"traceparent": "own"}
        with trace.of_message({}):
            assert trace.current() == {}
    assert trace.current() == {}


def test_opentelemetry_context_goes_out_and_comes_in():
    """Promise: with OpenTelemetry a trace goes on through a queue, and nothing need be done for it."""
    otel = pytest.importorskip("opentelemetry.trace")
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    with trace.of_message({"traceparent": traceparent}):
        assert otel.get_current_span().get_span_context().trace_id == 0x4BF92F3577B34DA6A3CE929D0E0E4736
        assert trace.current() == {"traceparent": traceparent}
        with trace.of_message({}):
            assert not otel.get_current_span().get_span_context().is_valid
            assert trace.current() == {}
    span = otel.NonRecordingSpan(otel.SpanContext(1, 2, is_remote=False, trace_flags=otel.TraceFlags(1)))
    with otel.use_span(span):
        assert trace.current()["traceparent"] == f"00-{1:032x}-{2:016x}-01"


def test_event_through_a_message_is_unchanged():
    """Promise: a CloudEvent comes out as it went in, and what is none is told apart."""
    event = cloudevents.CloudEvent("/shop", "order.placed", b"{}", subject="größe", extensions={"tenant": "n"})
    message = cloudevents.to_message(event, ordering_key="k")
    assert message.ordering_key == "k"
    assert message.headers["ce-specversion"] == "1.0"
    assert cloudevents.from_message(message) == event
    with pytest.raises(ValueError, match="no CloudEvent"):
        cloudevents.from_message(ackwell.Message())
