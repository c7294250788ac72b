"""The producer for asyncio."""

from __future__ import annotations

import asyncio
import logging

import grpc

from ackwell import _calls as calls
from ackwell._outbox import Entry, Outbox
from ackwell._producer import METHOD
from ackwell._retry import Pauses, is_permanent
from ackwell.aio._duplex import Duplex
from ackwell.errors import CallError, Closed, from_rpc_error
from ackwell.message import Message, Seconds, seconds
from ackwell.v1 import queues_pb2 as wire

log = logging.getLogger("ackwell")


class Producer:
    """Sends many messages without waiting for each.

    `await send(...)` returns a future as soon as there is room: it waits only while `max_outstanding` messages, or
    `max_outstanding_bytes` of them, are not confirmed. The future has its result when the message is on disk, and raises a
    `CallError` when it was refused. Messages are stored in the order of `send`, but for those that were refused for the moment
    and stored later. Broken connections are opened again; nothing is stored twice. `close`, or `async with`, waits for what is
    outstanding.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        queue: str,
        max_outstanding: int,
        max_outstanding_bytes: int,
        limit_seconds: float,
    ) -> None:
        if max_outstanding < 1 or max_outstanding_bytes < 1:
            raise ValueError("a producer needs room for at least one message")
        self._outbox = Outbox(queue, max_outstanding, max_outstanding_bytes, limit_seconds)
        stub = channel.stream_stream(METHOD, wire.ProduceRequest.SerializeToString, wire.ProduceResponse.FromString)
        self._duplex = Duplex(stub, self._outbox)
        self._changed = self._duplex.changed
        # Those who wait for room, in their order.
        self._line = asyncio.Lock()
        self._runner: asyncio.Task[None] | None = None
        self._timers: set[asyncio.TimerHandle] = set()

    async def send(self, message: Message | bytes | str) -> asyncio.Future[calls.Sent]:
        """Takes a message, as soon as there is room for it."""
        sent = calls.outgoing(message)
        entry = Entry(sent, asyncio.get_running_loop().create_future(), sent.ByteSize())
        # A refusal that nobody asks about is no error of the program.
        entry.waiter.add_done_callback(lambda done: done.cancelled() or done.exception())
        async with self._line:
            await self._changed.wait_for(lambda: self._outbox.closed or self._outbox.has_room(entry.size))
            if self._outbox.closed:
                raise Closed("the producer is closed")
            self._outbox.take_in(entry)
        if self._runner is None:
            self._runner = asyncio.create_task(self._run(), name="ackwell-producer")
        self._changed.notify()
        waiter: asyncio.Future[calls.Sent] = entry.waiter
        return waiter

    async def flush(self, timeout: Seconds | None = None) -> None:
        """Waits until everything that was taken is confirmed or refused."""
        limit = None if timeout is None else seconds(timeout)
        if not await self._changed.wait_for(lambda: self._outbox.idle, limit):
            raise TimeoutError("not everything was confirmed in time")

    async def close(self) -> None:
        """Takes no more, and waits until everything that was taken is confirmed or refused."""
        self._end()
        if self._runner is not None:
            await asyncio.shield(self._runner)

    @property
    def closed(self) -> bool:
        return self._outbox.closed

    async def __aenter__(self) -> Producer:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _end(self) -> None:
        self._outbox.closed = True
        self._changed.notify()

    async def _run(self) -> None:
        pauses = Pauses()
        while await self._wait_for_work():
            error = await self._produce(pauses)
            if error is not None:
                self._give_up(error)
            await self._changed.wait_for(lambda: self._outbox.closed and self._outbox.idle, pauses.next())

    async def _wait_for_work(self) -> bool:
        """False: closed, and everything is confirmed."""
        await self._changed.wait_for(lambda: self._outbox.closed or not self._outbox.idle)
        return not self._outbox.idle

    async def _produce(self, pauses: Pauses) -> CallError | None:
        """Lives as long as one stream; why it broke."""
        try:
            await self._duplex.live(lambda response: self._take(response, pauses))
        except grpc.RpcError as broken:
            return from_rpc_error(broken)
        return None

    def _take(self, response: wire.ProduceResponse, pauses: Pauses) -> None:
        if response.WhichOneof("frame") == "opened":
            pauses.reset()
        confirms = self._outbox.take(response)
        tell(confirms.results)
        if confirms.again:
            self._later(confirms.again_after, confirms.again)
        self._changed.notify()

    def _later(self, delay: float, entries: list[Entry]) -> None:
        def call() -> None:
            self._timers.discard(timer)
            self._outbox.say_again(entries)
            self._changed.notify()

        timer = asyncio.get_running_loop().call_later(delay, call)
        self._timers.add(timer)

    def _give_up(self, error: CallError) -> None:
        results = self._outbox.fail(error, everything=is_permanent(error))
        if not results:
            log.warning("the stream to queue %s broke, opening it again: %s", self._outbox.queue, error)
        tell(results)
        self._changed.notify()


def tell(results: list[tuple[Entry, calls.Sent]]) -> None:
    """Gives results to those who wait for them."""
    for entry, sent in results:
        if entry.waiter.done():
            continue
        if sent.error is None:
            entry.waiter.set_result(sent)
        else:
            entry.waiter.set_exception(sent.error)
