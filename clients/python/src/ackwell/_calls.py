"""Calls of the API as data: what is asked, how the answer is read, and whether it may be repeated.

Shared by the client for threads and the one for asyncio, which only make them.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message as WireMessage

from ackwell import trace
from ackwell.errors import CallError, Error, from_item
from ackwell.message import (
    Delivery,
    Message,
    Seconds,
    State,
    datetime_of,
    delivery_from_wire,
    duration,
    from_wire,
    seconds,
    to_wire,
)
from ackwell.outcome import Settled, settled_from_wire
from ackwell.v1 import admin_pb2 as admin
from ackwell.v1 import message_pb2
from ackwell.v1 import queues_pb2 as wire

MAX_BATCH_MESSAGES = 1000
MAX_BATCH_BYTES = 3 << 20
"""Below the 4 MiB that gRPC servers accept by default; a single larger message goes alone."""
DEFAULT_WAIT_SECONDS = 20.0

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class Sent:
    """A message that is on disk, or of a batch, one that is not."""

    id: str
    """Of the message, or of the first one with its `dedup_id`."""
    duplicate: bool = False
    """The `dedup_id` was known: nothing new was stored."""
    error: CallError | None = None
    """Why this one of a batch was not stored."""


@dataclasses.dataclass(frozen=True, slots=True)
class Stats:
    """Counts of a queue."""

    ready: int
    delayed: int
    in_flight: int
    dead: int
    bytes: int
    consumers: int
    paused: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Committed:
    """What a commit did: results per settlement and per message, in order."""

    settled: list[list[Settled]]
    sent: list[list[Sent]]


@dataclasses.dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One call."""

    method: str
    request: WireMessage
    response: type[WireMessage]
    parse: Callable[[Any], T]
    extra_seconds: float = 0.0
    """How long the other side may wait before it answers."""
    repeatable: bool = True
    """Whether making it twice has no second effect."""


def send(queue: str, message: Message | bytes | str) -> Call[Sent]:
    """Stores one message."""
    request = wire.SendRequest(queue=queue, messages=[outgoing(message)], request_id=_request_id())
    return _queues("Send", request, wire.SendResponse, lambda answer: _only(answer.results, sent_from_wire))


def send_batch(queue: str, messages: Sequence[message_pb2.Message], atomic: bool) -> Call[list[Sent]]:
    """Stores the messages of one call."""
    request = wire.SendRequest(queue=queue, messages=messages, atomic=atomic, request_id=_request_id())
    expected = len(messages)
    return _queues("Send", request, wire.SendResponse, lambda answer: _each(expected, answer.results, sent_from_wire))


def receive(
    queue: str, max_messages: int, wait: Seconds | None, ack_timeout: Seconds | None, consumer: str
) -> Call[list[Delivery]]:
    """Takes up to `max_messages` as soon as there is one."""
    wait = DEFAULT_WAIT_SECONDS if wait is None else wait
    request = wire.ReceiveRequest(
        queue=queue,
        max_messages=max_messages,
        wait=duration(wait),
        ack_timeout=None if ack_timeout is None else duration(ack_timeout),
        request_id=_request_id(),
        consumer=consumer,
    )

    def parse(answer: wire.ReceiveResponse) -> list[Delivery]:
        return [delivery_from_wire(queue, delivery) for delivery in answer.deliveries]

    return _queues("Receive", request, wire.ReceiveResponse, parse, extra_seconds=seconds(wait))


def settle(queue: str, settlements: Sequence[wire.Settlement]) -> Call[list[Settled]]:
    """Settles deliveries."""
    request = wire.SettleRequest(queue=queue, settlements=settlements)
    expected = len(settlements)
    return _queues("Settle", request, wire.SettleResponse, lambda answer: _each(expected, answer.results, settled_from_wire))


def settle_one(queue: str, settlement: wire.Settlement) -> Call[Settled]:
    """Settles one delivery; refused, it fails as a whole."""
    request = wire.SettleRequest(queue=queue, settlements=[settlement])
    return _queues("Settle", request, wire.SettleResponse, lambda answer: _only(answer.results, settled_from_wire))


def extend(queue: str, deliveries: Iterable[Delivery | bytes], ack_timeout: Seconds | None) -> Call[list[Any]]:
    """Holds deliveries longer."""
    receipts = [delivery if isinstance(delivery, bytes) else delivery.receipt for delivery in deliveries]
    timeout = None if ack_timeout is None else duration(ack_timeout)
    request = wire.ExtendRequest(queue=queue, receipts=receipts, ack_timeout=timeout)

    def item(result: wire.ExtendResult) -> Any:
        return from_item(result.error) if result.HasField("error") else datetime_of(result.ack_deadline)

    return _queues("Extend", request, wire.ExtendResponse, lambda answer: _each(len(receipts), answer.results, item))


def commit(
    settle: Sequence[tuple[str, Sequence[wire.Settlement]]],
    send: Sequence[tuple[str, Sequence[Message | bytes | str]]],
    request_id: str,
) -> Call[Committed]:
    """Settles and sends in one step."""
    request = wire.CommitRequest(
        request_id=request_id or _request_id(),
        settle=[wire.SettleRequest(queue=queue, settlements=items) for queue, items in settle],
        send=[wire.SendRequest(queue=queue, messages=[outgoing(item) for item in items]) for queue, items in send],
    )

    def parse(answer: wire.CommitResponse) -> Committed:
        settled = [[settled_from_wire(result) for result in one.results] for one in answer.settled]
        return Committed(settled, [[sent_from_wire(result) for result in one.results] for one in answer.sent])

    return _queues("Commit", request, wire.CommitResponse, parse)


def stats(queue: str) -> Call[Stats]:
    """Counts of a queue."""

    def parse(answer: admin.StatsResponse) -> Stats:
        names = [field.name for field in dataclasses.fields(Stats)]
        return Stats(**{name: getattr(answer, name) for name in names})

    return _admin("Stats", admin.StatsRequest(queue=queue), admin.StatsResponse, parse)


def peek(queue: str, limit: int, cursor: bytes, body_bytes: int, states: Sequence[State]) -> Call[tuple[list[Message], bytes]]:
    """One page of messages, and where the next one begins."""
    request = admin.PeekRequest(
        queue=queue,
        limit=limit,
        cursor=cursor,
        body_bytes=body_bytes,
        filter=admin.Filter(states=[int(state) for state in states]),  # type: ignore[misc]
    )
    return _admin(
        "Peek",
        request,
        admin.PeekResponse,
        lambda answer: ([from_wire(message) for message in answer.messages], answer.cursor),
    )


def get(queue: str, message_id: str) -> Call[Message]:
    """One message, whole."""
    request = admin.GetRequest(queue=queue, id=message_id)
    return _admin("Get", request, admin.GetResponse, lambda answer: from_wire(answer.message))


def cancel(queue: str, message_ids: Sequence[str]) -> Call[list[CallError | None]]:
    """Removes single messages."""
    request = admin.CancelRequest(queue=queue, ids=message_ids)

    def item(result: Any) -> CallError | None:
        return from_item(result.error) if result.HasField("error") else None

    # Not repeated: a second call would not find what the first one removed.
    parse = lambda answer: _each(len(message_ids), answer.results, item)  # noqa: E731
    return dataclasses.replace(_admin("Cancel", request, admin.CancelResponse, parse), repeatable=False)


def batches(messages: Iterable[Message | bytes | str]) -> Iterator[list[message_pb2.Message]]:
    """The messages, cut into calls."""
    batch: list[message_pb2.Message] = []
    size = 0
    for message in messages:
        sent = outgoing(message)
        bytes_ = sent.ByteSize()
        if batch and (len(batch) >= MAX_BATCH_MESSAGES or size + bytes_ > MAX_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(sent)
        size += bytes_
    if batch:
        yield batch


def outgoing(message: Message | bytes | str) -> message_pb2.Message:
    """As it is sent, with the current trace context."""
    return to_wire(message, trace.current())


def sent_from_wire(result: wire.SendResult) -> Sent:
    """One item of an answer."""
    return Sent(result.id, result.duplicate, from_item(result.error) if result.HasField("error") else None)


def failed(error: CallError) -> Sent:
    """A message that was not stored."""
    return Sent("", False, error)


def _queues(method: str, request: WireMessage, response: type[WireMessage], parse: Any, **more: Any) -> Call[Any]:
    return Call(f"/ackwell.v1.Queues/{method}", request, response, parse, **more)


def _admin(method: str, request: WireMessage, response: type[WireMessage], parse: Any) -> Call[Any]:
    return Call(f"/ackwell.v1.QueueAdmin/{method}", request, response, parse)


def _only(results: Sequence[Any], parse: Callable[[Any], T]) -> T:
    return _each(1, results, parse)[0]


def _each(expected: int, results: Sequence[Any], parse: Callable[[Any], T]) -> list[T]:
    if len(results) != expected:
        raise Error(f"the answer has {len(results)} results for {expected} items: client and broker do not match")
    return [parse(result) for result in results]


def _request_id() -> str:
    return str(uuid.uuid4())
