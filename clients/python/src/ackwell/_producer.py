"""The producer for threads."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from concurrent.futures import Future

import grpc

from ackwell import _calls as calls
from ackwell._duplex import Duplex, daemon_timer
from ackwell._outbox import Entry, Outbox
from ackwell._retry import Pauses, is_permanent
from ackwell.errors import CallError, Closed, from_rpc_error
from ackwell.message import Message, Seconds, seconds
from ackwell.v1 import queues_pb2 as wire

log = logging.getLogger("ackwell")

METHOD = "/ackwell.v1.Queues/Produce"


class Producer:
    """Sends many messages without waiting for each.

    `send` returns a future at once, and blocks only while `max_outstanding` messages, or `max_outstanding_bytes` of them, are not
    confirmed. A future has its result when the message is on disk, and raises a `CallError` when it was refused. Messages are
    stored in the order of `send`, but for those that were refused for the moment and stored later.
    Broken connections are opened again; nothing is stored twice. `close`, or `with`, waits for what is outstanding.
    """

    def __init__(
        self,
        channel: grpc.Channel,
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
        self._runner: threading.Thread | None = None

    def send(self, message: Message | bytes | str) -> Future[calls.Sent]:
        """Takes a message, as soon as there is room for it."""
        sent = calls.outgoing(message)
        entry = Entry(sent, Future(), sent.ByteSize())
        # Otherwise a caller's `cancel` would keep the result from being set.
        entry.waiter.set_running_or_notify_cancel()
        with self._changed:
            self._check()
            self._changed.wait_for(lambda: self._outbox.closed or self._outbox.has_room(entry.size))
            self._check()
            self._outbox.take_in(entry)
            self._start()
            self._changed.notify_all()
        waiter: Future[calls.Sent] = entry.waiter
        return waiter

    def flush(self, timeout: Seconds | None = None) -> None:
        """Waits until everything that was taken is confirmed or refused."""
        with self._changed:
            limit = None if timeout is None else seconds(timeout)
            if not self._changed.wait_for(lambda: self._outbox.idle, limit):
                raise TimeoutError("not everything was confirmed in time")

    def close(self) -> None:
        """Takes no more, and waits until everything that was taken is confirmed or refused."""
        self._end()
        if self._runner is not None:
            self._runner.join()

    @property
    def closed(self) -> bool:
        return self._outbox.closed

    def __enter__(self) -> Producer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self) -> None:
        if self._outbox.closed:
            raise Closed("the producer is closed")

    def _end(self) -> None:
        with self._changed:
            self._outbox.closed = True
            self._changed.notify_all()

    def _start(self) -> None:
        if self._runner is None:
            self._runner = threading.Thread(target=self._run, name="ackwell-producer", daemon=True)
            self._runner.start()

    def _run(self) -> None:
        pauses = Pauses()
        while self._wait_for_work():
            error = self._produce(pauses)
            if error is not None:
                self._give_up(error)
            with self._changed:
                self._changed.wait_for(lambda: self._outbox.closed and self._outbox.idle, pauses.next())

    def _wait_for_work(self) -> bool:
        """False: closed, and everything is confirmed."""
        with self._changed:
            self._changed.wait_for(lambda: self._outbox.closed or not self._outbox.idle)
            return not self._outbox.idle

    def _produce(self, pauses: Pauses) -> CallError | None:
        """Lives as long as one stream; why it broke."""
        try:
            self._duplex.live(lambda response: self._take(response, pauses))
        except grpc.RpcError as broken:
            return from_rpc_error(broken)
        return None

    def _take(self, response: wire.ProduceResponse, pauses: Pauses) -> None:
        if response.WhichOneof("frame") == "opened":
            pauses.reset()
        with self._changed:
            confirms = self._outbox.take(response)
            self._changed.notify_all()
        tell(confirms.results)
        if confirms.again:
            daemon_timer(confirms.again_after, lambda: self._say_again(confirms.again))

    def _say_again(self, entries: list[Entry]) -> None:
        with self._changed:
            self._outbox.say_again(entries)
            self._changed.notify_all()

    def _give_up(self, error: CallError) -> None:
        with self._changed:
            results = self._outbox.fail(error, everything=is_permanent(error))
            self._changed.notify_all()
        if not results:
            log.warning("the stream to queue %s broke, opening it again: %s", self._outbox.queue, error)
        tell(results)


def tell(results: Iterable[tuple[Entry, calls.Sent]]) -> None:
    """Gives results to those who wait for them."""
    for entry, sent in results:
        if sent.error is None:
            entry.waiter.set_result(sent)
        else:
            entry.waiter.set_exception(sent.error)
