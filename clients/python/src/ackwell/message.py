"""What a message is, and what a consumer gets to see of it."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import duration_pb2, timestamp_pb2

from ackwell.v1 import message_pb2 as wire

# Times are seconds, as everywhere in Python, or a timedelta.
Seconds = float | datetime.timedelta

UTC = datetime.UTC
# What fits a duration of the API.
_MAX_SECONDS = 315_576_000_000


class State(enum.IntEnum):
    """Where a stored message stands."""

    UNSPECIFIED = 0
    READY = 1
    DELAYED = 2
    IN_FLIGHT = 3
    DEAD = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Attempt:
    """One failed attempt."""

    started: datetime.datetime
    ended: datetime.datetime
    outcome: str
    """nack, ack-timeout, consumer-lost or reject."""
    reason: str
    consumer: str


@dataclasses.dataclass(slots=True)
class Message:
    """A message: the first fields are the sender's, the others the broker's.

    `proto/ackwell/v1/message.proto` says what each field means and its limits.
    """

    body: bytes | str = b""
    """Text is sent as UTF-8. Bytes in what is received."""
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    content_type: str = ""
    ordering_key: str = ""
    fairness_key: str = ""
    priority: int | None = None
    dedup_id: str = ""
    delay: Seconds | None = None
    deliver_at: datetime.datetime | None = None
    ttl: Seconds | None = None
    max_attempts: int | None = None

    id: str = ""
    stored_at: datetime.datetime | None = None
    state: State = State.UNSPECIFIED
    attempts: int = 0
    deliveries: int = 0
    history: Sequence[Attempt] = ()
    dead_reason: str = ""
    next_attempt_at: datetime.datetime | None = None
    body_bytes: int = 0

    @property
    def text(self) -> str:
        """The body as UTF-8 text."""
        return self.body if isinstance(self.body, str) else self.body.decode()

    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)

    @classmethod
    def of_json(cls, value: Any, **fields: Any) -> Message:
        """A message whose body is `value` as JSON."""
        fields.setdefault("content_type", "application/json")
        return cls(body=json.dumps(value, ensure_ascii=False), **fields)


@dataclasses.dataclass(slots=True, eq=False)
class Delivery:
    """A message in your hands, until it is settled or `ack_deadline` passes."""

    queue: str
    receipt: bytes
    message: Message
    ack_deadline: datetime.datetime
    fencing_token: int
    """Grows with every delivery: lets a store refuse writes of an earlier holder."""
    revoked: threading.Event = dataclasses.field(default_factory=threading.Event, repr=False)
    """Set when a consumer's handler should stop: somebody else has the message, or soon will."""

    @property
    def id(self) -> str:
        return self.message.id

    @property
    def body(self) -> bytes:
        body = self.message.body
        return body.encode() if isinstance(body, str) else body

    @property
    def text(self) -> str:
        """The body as UTF-8 text."""
        return self.message.text

    @property
    def headers(self) -> Mapping[str, str]:
        return self.message.headers

    def json(self) -> Any:
        """The body, read as JSON."""
        return self.message.json()


def to_wire(message: Message | bytes | str, extra_headers: Mapping[str, str] | None = None) -> wire.Message:
    """The message as it is sent; headers that it has itself come before `extra_headers`."""
    if not isinstance(message, Message):
        message = Message(body=message)
    sent = wire.Message(
        body=message.body.encode() if isinstance(message.body, str) else message.body,
        headers={**(extra_headers or {}), **message.headers},
        content_type=message.content_type,
        ordering_key=message.ordering_key,
        fairness_key=message.fairness_key,
        priority=message.priority,
        dedup_id=message.dedup_id,
        max_attempts=message.max_attempts,
    )
    _add_times(sent, message)
    return sent


def _add_times(sent: wire.Message, message: Message) -> None:
    if message.delay is not None and message.deliver_at is not None:
        raise ValueError("a message has a delay or deliver_at, not both")
    if message.delay is not None:
        sent.delay.CopyFrom(duration(message.delay))
    if message.deliver_at is not None:
        sent.deliver_at.CopyFrom(timestamp(message.deliver_at))
    if message.ttl is not None:
        sent.ttl.CopyFrom(duration(message.ttl))


def from_wire(message: wire.Message) -> Message:
    """The message as it came."""
    return Message(
        body=message.body,
        headers=dict(message.headers),
        content_type=message.content_type,
        ordering_key=message.ordering_key,
        fairness_key=message.fairness_key,
        priority=message.priority if message.HasField("priority") else None,
        dedup_id=message.dedup_id,
        delay=_timedelta(message, "delay"),
        deliver_at=_datetime(message, "deliver_at"),
        ttl=_timedelta(message, "ttl"),
        max_attempts=message.max_attempts if message.HasField("max_attempts") else None,
        id=message.id,
        stored_at=_datetime(message, "stored_at"),
        state=State(message.state),
        attempts=message.attempts,
        deliveries=message.deliveries,
        history=[_attempt(attempt) for attempt in message.history],
        dead_reason=message.dead_reason,
        next_attempt_at=_datetime(message, "next_attempt_at"),
        body_bytes=message.body_bytes,
    )


def delivery_from_wire(queue: str, delivery: wire.Delivery) -> Delivery:
    """The delivery as it came."""
    return Delivery(
        queue=queue,
        receipt=delivery.receipt,
        message=from_wire(delivery.message),
        ack_deadline=datetime_of(delivery.ack_deadline),
        fencing_token=delivery.fencing_token,
    )


def _attempt(attempt: wire.Attempt) -> Attempt:
    return Attempt(
        started=datetime_of(attempt.started),
        ended=datetime_of(attempt.ended),
        outcome=attempt.outcome,
        reason=attempt.reason,
        consumer=attempt.consumer,
    )


def seconds(value: Seconds) -> float:
    """A time span as a number."""
    return value.total_seconds() if isinstance(value, datetime.timedelta) else float(value)


def duration(value: Seconds) -> duration_pb2.Duration:
    """A time span on the wire."""
    span = seconds(value)
    if not abs(span) <= _MAX_SECONDS:
        raise ValueError(f"{value!r} is no time span: at most {_MAX_SECONDS} s")
    answer = duration_pb2.Duration()
    answer.FromNanoseconds(round(span * 1e9))
    return answer


def timestamp(value: datetime.datetime) -> timestamp_pb2.Timestamp:
    """A point in time on the wire; one without a zone is local, as in `datetime.timestamp()`."""
    answer = timestamp_pb2.Timestamp()
    answer.FromDatetime(value.astimezone(UTC))
    return answer


def datetime_of(value: timestamp_pb2.Timestamp) -> datetime.datetime:
    """A point in time, in UTC."""
    return value.ToDatetime(tzinfo=UTC)


def _datetime(message: wire.Message, field: str) -> datetime.datetime | None:
    return datetime_of(getattr(message, field)) if message.HasField(field) else None


def _timedelta(message: wire.Message, field: str) -> datetime.timedelta | None:
    return getattr(message, field).ToTimedelta() if message.HasField(field) else None
