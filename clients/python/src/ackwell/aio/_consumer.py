"""The consumer for asyncio."""

from __future__ import annotations

import asyncio
import collections
import logging
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from ackwell import trace
from ackwell._consumer import METHOD
from ackwell._retry import Pauses, is_permanent
from ackwell._session import Job, Session
from ackwell.aio._duplex import Duplex
from ackwell.errors import CallError, Closed, from_rpc_error
from ackwell.message import Delivery, Seconds, seconds
from ackwell.outcome import Outcome, settlement_after
from ackwell.v1 import queues_pb2 as wire

log = logging.getLogger("ackwell")

Handler = Callable[[Delivery], Awaitable[Any]]


class Consumer:
    """Runs a coroutine for each message of a queue, up to `concurrency` at a time.

    A handler that returns acks; one that raises nacks, with the error's text; `Retry`, `Reject` and `Release` say otherwise.
    While a handler runs its message is extended, up to the queue's maxProcessing; its task is cancelled when it lost the message.
    A broken connection is opened again; handlers do not notice.

    `start` and `stop`, or `async with`, run it beside other work; `run` runs it here. Stopping takes no more messages, releases
    those that no handler has begun, and waits for the running ones up to `grace`; then they are cancelled, and what they hold is
    released.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        queue: str,
        handler: Handler,
        concurrency: int,
        prefetch: int,
        name: str | None,
        grace: float,
    ) -> None:
        self._handler = handler
        self._concurrency = concurrency
        self._grace = grace
        self._session = Session.of_consumer(queue, name, concurrency, prefetch)
        stub = channel.stream_stream(METHOD, wire.ConsumeRequest.SerializeToString, wire.ConsumeResponse.FromString)
        self._duplex = Duplex(stub, self._session)
        self._changed = self._duplex.changed
        self._waiting: collections.deque[Job] = collections.deque()
        self._running: dict[Job, asyncio.Task[None]] = {}
        self._timers: set[asyncio.TimerHandle] = set()
        self._gave_up = False
        self._runner: asyncio.Task[None] | None = None
        self._started = False
        self._ended = False

    # What a user calls

    def start(self) -> Consumer:
        """Begins to consume, in a task of its own."""
        self._claim()
        self._runner = asyncio.create_task(self._run(), name="ackwell-consumer")
        return self

    async def run(self) -> None:
        """Consumes here until `stop` is called elsewhere. Raises when the queue cannot be consumed."""
        self._claim()
        await self._run()

    async def run_until_signal(self) -> None:
        """Consumes until SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for number in signals:
            loop.add_signal_handler(number, self._end)
        try:
            await self.run()
        finally:
            for number in signals:
                loop.remove_signal_handler(number)

    async def stop(self, grace: Seconds | None = None) -> None:
        """Drains, and returns when everything is settled or given back. Raises what ended the consumer before."""
        if grace is not None:
            self._grace = seconds(grace)
        self._end()
        await self.wait()

    async def wait(self) -> None:
        """Waits until it has ended by itself, or was stopped. Raises what ended it."""
        if self._runner is not None:
            await asyncio.shield(self._runner)
        elif self._started:
            await self._changed.wait_for(lambda: self._ended)

    async def close(self) -> None:
        """As `stop`, but says nothing about what ended it before."""
        self._end()
        if self._started:
            await self._changed.wait_for(lambda: self._ended)

    @property
    def closed(self) -> bool:
        return self._ended

    async def __aenter__(self) -> Consumer:
        return self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # The task that reads

    def _claim(self) -> None:
        if self._started or self._session.draining:
            raise Closed("a consumer runs once")
        self._started = True

    async def _run(self) -> None:
        try:
            await self._consume_until_drained()
        except asyncio.CancelledError:
            # Whoever runs us is cancelled: nothing is waited for, what is held comes back by itself.
            self._stop_handlers()
            raise
        finally:
            for timer in self._timers:
                timer.cancel()
            await self._end_handlers()
            self._ended = True
            self._changed.notify()

    async def _consume_until_drained(self) -> None:
        pauses = Pauses()
        while not self._is_done():
            error = None
            try:
                await self._duplex.live(lambda response: self._take(response, pauses))
            except grpc.RpcError as broken:
                error = from_rpc_error(broken)
                if is_permanent(error) and not self._gave_up:
                    self._stop_handlers()
                    raise error from None
            if not self._is_done():
                await self._wait_before_reopening(pauses, error)

    def _is_done(self) -> bool:
        return (self._gave_up and not self._duplex.lives) or (self._session.draining and self._session.idle)

    async def _wait_before_reopening(self, pauses: Pauses, error: CallError | None) -> None:
        if error is not None:
            log.warning("the stream of queue %s broke, opening it again: %s", self._session.queue, error)
        await self._changed.wait_for(self._is_done, pauses.next())

    def _take(self, response: wire.ConsumeResponse, pauses: Pauses) -> None:
        if response.WhichOneof("frame") == "opened":
            pauses.reset()
        effects = self._session.take(response)
        for job in effects.revoked:
            self._stop_handler(job)
        self._waiting.extend(effects.arrived)
        self._begin_waiting()
        if effects.again:
            self._later(effects.again_after, lambda: self._session.say_again(effects.again))
        self._changed.notify()

    def _later(self, delay: float, function: Callable[[], Any]) -> None:
        def call() -> None:
            self._timers.discard(timer)
            function()
            self._changed.notify()

        timer = asyncio.get_running_loop().call_later(delay, call)
        self._timers.add(timer)

    # The tasks that work

    def _begin_waiting(self) -> None:
        while self._waiting and len(self._running) < self._concurrency:
            job = self._waiting.popleft()
            if self._session.begin(job):
                task = asyncio.create_task(self._handle(job), name="ackwell-handler")
                self._running[job] = task

    async def _handle(self, job: Job) -> None:
        raised: BaseException | None = None
        try:
            with trace.of_message(job.delivery.headers):
                await self._handler(job.delivery)
        except BaseException as error:
            raised = error
            if isinstance(error, Exception) and not isinstance(error, Outcome):
                log.warning("the handler failed for message %s", job.delivery.id, exc_info=error)
        self._running.pop(job, None)
        self._session.settle(job, settlement_after(job.delivery, raised))
        self._begin_waiting()
        self._changed.notify()

    def _stop_handler(self, job: Job) -> None:
        job.delivery.revoked.set()
        task = self._running.get(job)
        if task is not None:
            task.cancel()

    # The end

    def _end(self) -> None:
        """Begins to drain."""
        if self._session.draining:
            return
        self._session.drain()
        if self._started:
            self._later(self._grace, self._stop_handlers)
        else:
            self._ended = True
        self._changed.notify()

    def _stop_handlers(self) -> None:
        """Handlers are cancelled, and what they hold is given back."""
        running = self._session.give_up()
        self._gave_up = True
        self._duplex.end_soon()
        for job in running:
            self._stop_handler(job)
        self._changed.notify()

    async def _end_handlers(self) -> None:
        if self._running:
            await asyncio.wait(self._running.values(), timeout=1)
