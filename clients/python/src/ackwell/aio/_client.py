"""The client for asyncio."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

import grpc

from ackwell import _calls as calls
from ackwell._channel import find_address, options
from ackwell._retry import DEFAULT_LIMIT_SECONDS, Attempts
from ackwell.aio._consumer import Consumer, Handler
from ackwell.aio._producer import Producer
from ackwell.errors import CallError, Closed, Refused, from_rpc_error
from ackwell.message import Delivery, Message, Seconds, State, seconds
from ackwell.outcome import Settled, ack, nack, reject, release
from ackwell.v1 import queues_pb2 as wire

T = TypeVar("T")


class Client:
    """A connection to a sidecar or broker, for one event loop; close it, or use `async with`. To be made while the loop runs.

    Without an address it is `ACKWELL_ADDRESS`, or 127.0.0.1:7400. It connects with the first call. Calls that can be repeated
    without a second effect are repeated while the broker is unavailable, for at most `retry_limit` seconds.
    Every call takes `timeout`, in seconds, for all of it, and may be cancelled, as tasks are.
    """

    def __init__(self, address: str | None = None, *, retry_limit: Seconds = DEFAULT_LIMIT_SECONDS) -> None:
        self.address = find_address(address)
        self._retry_limit = seconds(retry_limit)
        self._channel = grpc.aio.insecure_channel(self.address, options=options(self.address))
        self._closed = asyncio.Event()
        self._parts: list[Consumer | Producer] = []

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Drains what was made with this client, and closes the connection."""
        self._closed.set()
        parts, self._parts = self._parts, []
        for part in parts:
            part._end()
        for part in parts:
            await part.close()
        await self._channel.close()

    # Sending

    async def send(
        self,
        queue: str,
        message: Message | bytes | str,
        *,
        timeout: Seconds | None = None,
    ) -> calls.Sent:
        """Stores one message. Returns once it is on disk."""
        return await self._call(calls.send(queue, message), timeout)

    async def send_many(
        self,
        queue: str,
        messages: Iterable[Message | bytes | str],
        *,
        atomic: bool = False,
        timeout: Seconds | None = None,
    ) -> list[calls.Sent]:
        """Stores any number of messages, in order; one result for each.

        They go in calls of at most 1000 messages, one after the other. What is refused has an `error`; the others are stored.
        After a call that failed as a whole nothing more is sent, and the rest fails as it did. `atomic`: all or none, in one
        call, so at most 1000.
        """
        if atomic:
            batch = [calls.outgoing(message) for message in messages]
            return await self._batch(queue, batch, True, timeout)
        results: list[calls.Sent] = []
        failure: CallError | None = None
        for batch in calls.batches(messages):
            if failure is None:
                try:
                    results += await self._batch(queue, batch, False, timeout)
                    continue
                except CallError as error:
                    failure = error
            results += [calls.failed(failure)] * len(batch)
        return results

    async def _batch(self, queue: str, batch: Any, atomic: bool, timeout: Seconds | None) -> list[calls.Sent]:
        call = calls.send_batch(queue, batch, atomic)
        return await self._items(len(batch), lambda: self._call(call, timeout), calls.failed)

    def producer(self, queue: str, *, max_outstanding: int = 1000, max_outstanding_bytes: int = 16 << 20) -> Producer:
        """Sends many messages without waiting for each: see `Producer`."""
        producer = Producer(self._channel, queue, max_outstanding, max_outstanding_bytes, self._retry_limit)
        self._adopt(producer)
        return producer

    # Receiving

    async def receive(
        self,
        queue: str,
        max_messages: int = 1,
        *,
        wait: Seconds | None = None,
        ack_timeout: Seconds | None = None,
        consumer: str = "",
        timeout: Seconds | None = None,
    ) -> list[Delivery]:
        """Takes up to `max_messages` as soon as there is one; empty when none came within `wait` (20 s).

        Settle, or extend, each before its `ack_deadline`.
        """
        call = calls.receive(queue, max_messages, wait, ack_timeout, consumer)
        return await self._call(call, timeout)

    async def settle(
        self,
        queue: str,
        settlements: Sequence[wire.Settlement],
        *,
        timeout: Seconds | None = None,
    ) -> list[Settled]:
        """Settles up to 1000 deliveries (`ackwell.ack(delivery)` and its siblings); one result for each, in order."""
        call = calls.settle(queue, settlements)
        item = lambda error: Settled(State.UNSPECIFIED, None, error)  # noqa: E731
        return await self._items(len(settlements), lambda: self._call(call, timeout), item)

    async def ack(self, delivery: Delivery) -> None:
        """Done: the message is gone."""
        await self._call(calls.settle_one(delivery.queue, ack(delivery)))

    async def nack(self, delivery: Delivery, reason: str = "", delay: Seconds | None = None) -> Settled:
        """Failed: counts an attempt; comes again after `delay`, or after the queue's backoff."""
        return await self._call(calls.settle_one(delivery.queue, nack(delivery, reason, delay)))

    async def release(self, delivery: Delivery) -> None:
        """Not processed: back to its place, free of charge."""
        await self._call(calls.settle_one(delivery.queue, release(delivery)))

    async def reject(self, delivery: Delivery, reason: str = "") -> None:
        """Never again: Dead at once."""
        await self._call(calls.settle_one(delivery.queue, reject(delivery, reason)))

    async def extend(
        self,
        queue: str,
        deliveries: Iterable[Delivery | bytes],
        ack_timeout: Seconds | None = None,
        *,
        timeout: Seconds | None = None,
    ) -> list[datetime.datetime | CallError]:
        """Holds up to 1000 deliveries longer, counted from now; the new deadline of each, or why not."""
        deliveries = list(deliveries)
        call = calls.extend(queue, deliveries, ack_timeout)
        return await self._items(len(deliveries), lambda: self._call(call, timeout), lambda error: error)

    def consumer(
        self,
        queue: str,
        handler: Handler,
        *,
        concurrency: int = 1,
        prefetch: int = 0,
        name: str | None = None,
        grace: Seconds = 25.0,
    ) -> Consumer:
        """Runs `handler` for each message of the queue, up to `concurrency` at a time: see `Consumer`."""
        consumer = Consumer(self._channel, queue, handler, concurrency, prefetch, name, seconds(grace))
        self._adopt(consumer)
        return consumer

    async def consume(self, queue: str, handler: Handler, **options: Any) -> None:
        """Runs `handler` for each message of the queue until SIGTERM or SIGINT, then drains. Options as of `consumer`.

        To be called in the main thread's loop, as all that a worker does. Elsewhere use `consumer`.
        """
        await self.consumer(queue, handler, **options).run_until_signal()

    # Both at once

    async def commit(
        self,
        *,
        settle: Sequence[tuple[str, Sequence[wire.Settlement]]] = (),
        send: Sequence[tuple[str, Sequence[Message | bytes | str]]] = (),
        request_id: str = "",
        timeout: Seconds | None = None,
    ) -> calls.Committed:
        """Settles and sends in one step, on one shard: all of it is done, or nothing."""
        return await self._call(calls.commit(settle, send, request_id), timeout)

    # Looking

    async def stats(self, queue: str, *, timeout: Seconds | None = None) -> calls.Stats:
        """Counts of a queue."""
        return await self._call(calls.stats(queue), timeout)

    async def peek(
        self,
        queue: str,
        limit: int = 20,
        *,
        cursor: bytes = b"",
        body_bytes: int = 0,
        states: Sequence[State] = (),
        timeout: Seconds | None = None,
    ) -> tuple[list[Message], bytes]:
        """Shows messages without holding them: one page, and the cursor of the next one, empty at the end."""
        return await self._call(calls.peek(queue, limit, cursor, body_bytes, states), timeout)

    async def get(self, queue: str, message_id: str, *, timeout: Seconds | None = None) -> Message:
        """One message, whole, whatever its state."""
        return await self._call(calls.get(queue, message_id), timeout)

    async def cancel(
        self,
        queue: str,
        message_ids: Sequence[str],
        *,
        timeout: Seconds | None = None,
    ) -> list[CallError | None]:
        """Removes messages that nobody holds, for good; one result for each: None, or why not."""
        call = calls.cancel(queue, message_ids)
        return await self._items(len(message_ids), lambda: self._call(call, timeout), lambda error: error)

    # How calls are made

    async def _call(self, call: calls.Call[T], timeout: Seconds | None = None) -> T:
        limit = self._retry_limit + call.extra_seconds if timeout is None else seconds(timeout)
        attempts = Attempts(limit, repeatable=call.repeatable)
        while True:
            self._check()
            try:
                return call.parse(await self._attempt(call, attempts.remaining()))
            except grpc.RpcError as error:
                self._check()
                pause = attempts.pause_after(from_rpc_error(error))
            await asyncio.sleep(pause)

    async def _attempt(self, call: calls.Call[Any], timeout: float) -> Any:
        serialize = type(call.request).SerializeToString
        stub = self._channel.unary_unary(call.method, serialize, call.response.FromString)
        return await stub(call.request, timeout=timeout)

    async def _items(self, count: int, call: Callable[[], Awaitable[list[T]]], failed: Callable[[CallError], T]) -> list[T]:
        """A call with a single item fails as a whole with it; here it is that item's result, as in a larger batch."""
        try:
            return await call()
        except Refused as error:
            if count == 1 and error.code != "UNAVAILABLE":
                return [failed(error)]
            raise

    def _check(self) -> None:
        if self._closed.is_set():
            raise Closed("the client is closed")

    def _adopt(self, part: Consumer | Producer) -> None:
        self._check()
        self._parts = [other for other in self._parts if not other.closed]
        self._parts.append(part)
