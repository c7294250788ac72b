"""The consumer for threads."""

from __future__ import annotations

import logging
import queue as queues
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc

from ackwell import trace
from ackwell._duplex import Duplex, daemon_timer
from ackwell._retry import Pauses, is_permanent
from ackwell._session import Job, Session
from ackwell.errors import CallError, Closed, from_rpc_error
from ackwell.message import Delivery, Seconds, seconds
from ackwell.outcome import Outcome, settlement_after
from ackwell.v1 import queues_pb2 as wire

log = logging.getLogger("ackwell")

Handler = Callable[[Delivery], Any]

METHOD = "/ackwell.v1.Queues/Consume"
# How long handlers that were told to stop are waited for.
_STOPPING_SECONDS = 1.0


class Consumer:
    """Runs a handler for each message of a queue, in up to `concurrency` threads.

    A handler that returns acks; one that raises nacks, with the error's text; `Retry`, `Reject` and `Release` say otherwise.
    While a handler runs its message is extended, up to the queue's maxProcessing; `delivery.revoked` is set when it lost the
    message. A broken connection is opened again; handlers do not notice.

    `start` and `stop`, or `with`, run it beside other work; `run` runs it here. Stopping takes no more messages, releases
    those that no handler has begun, and waits for the running ones up to `grace`; what they hold then is released.
    """

    def __init__(
        self,
        channel: grpc.Channel,
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
        # Guards the session and all below.
        self._changed = self._duplex.changed
        self._grace_timer: threading.Timer | None = None
        self._gave_up = False
        self._jobs: queues.SimpleQueue[Job | None] = queues.SimpleQueue()
        self._workers: list[threading.Thread] = []
        self._idle_workers = 0
        self._runner: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._ended = threading.Event()
        self._started = False

    # What a user calls

    def start(self) -> Consumer:
        """Begins to consume, in threads of its own."""
        self._claim()
        self._runner = threading.Thread(target=self._run_and_keep_failure, name="ackwell-consumer", daemon=True)
        self._runner.start()
        return self

    def run(self) -> None:
        """Consumes in this thread until `stop` is called elsewhere. Raises when the queue cannot be consumed."""
        self._claim()
        self._run()

    def run_until_signal(self) -> None:
        """Consumes until SIGTERM or SIGINT."""
        self.start()
        stop = lambda *_: self._end()  # noqa: E731
        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            while not self._ended.wait(1):
                pass
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        self.stop()

    def stop(self, grace: Seconds | None = None) -> None:
        """Drains, and returns when everything is settled or given back. Raises what ended the consumer before."""
        if grace is not None:
            self._grace = seconds(grace)
        self._end()
        self.wait()

    def wait(self) -> None:
        """Waits until it has ended by itself, or was stopped. Raises what ended it."""
        if self._started:
            self._ended.wait()
        if self._runner is not None:
            self._runner.join()
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """As `stop`, but says nothing about what ended it before."""
        self._end()
        if self._started:
            self._ended.wait()

    @property
    def closed(self) -> bool:
        return self._ended.is_set()

    def __enter__(self) -> Consumer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # The thread that reads

    def _claim(self) -> None:
        with self._changed:
            if self._started or self._session.draining:
                raise Closed("a consumer runs once")
            self._started = True

    def _run_and_keep_failure(self) -> None:
        try:
            self._run()
        except BaseException as failure:
            self._failure = failure

    def _run(self) -> None:
        try:
            self._consume_until_drained()
        finally:
            if self._grace_timer is not None:
                self._grace_timer.cancel()
            self._end_workers()
            self._ended.set()

    def _consume_until_drained(self) -> None:
        pauses = Pauses()
        while not self._is_done():
            try:
                self._duplex.live(lambda response: self._take(response, pauses))
                error = None
            except grpc.RpcError as broken:
                error = from_rpc_error(broken)
                if is_permanent(error) and not self._gave_up:
                    self._stop_handlers()
                    raise error from None
            if not self._is_done():
                self._wait_before_reopening(pauses, error)

    def _is_done(self) -> bool:
        with self._changed:
            return (self._gave_up and not self._duplex.lives) or (self._session.draining and self._session.idle)

    def _wait_before_reopening(self, pauses: Pauses, error: CallError | None) -> None:
        pause = pauses.next()
        if error is not None:
            log.warning("the stream of queue %s broke, opening it again: %s", self._session.queue, error)
        with self._changed:
            self._changed.wait_for(self._is_done, pause)

    def _take(self, response: wire.ConsumeResponse, pauses: Pauses) -> None:
        if response.WhichOneof("frame") == "opened":
            pauses.reset()
        with self._changed:
            effects = self._session.take(response)
            self._changed.notify_all()
        for job in effects.revoked:
            job.delivery.revoked.set()
        for job in effects.arrived:
            self._hand_over(job)
        if effects.again:
            daemon_timer(effects.again_after, lambda: self._say_again(effects.again))

    def _say_again(self, jobs: list[Job]) -> None:
        with self._changed:
            self._session.say_again(jobs)
            self._changed.notify_all()

    # The threads that work

    def _hand_over(self, job: Job) -> None:
        with self._changed:
            if self._idle_workers > 0:
                self._idle_workers -= 1
            elif len(self._workers) < self._concurrency:
                worker = threading.Thread(target=self._work, name="ackwell-handler", daemon=True)
                self._workers.append(worker)
                worker.start()
        self._jobs.put(job)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            with self._changed:
                begun = self._session.begin(job)
            if begun:
                self._handle(job)
            with self._changed:
                self._idle_workers += 1

    def _handle(self, job: Job) -> None:
        raised: BaseException | None = None
        try:
            with trace.of_message(job.delivery.headers):
                self._handler(job.delivery)
        except BaseException as error:
            raised = error
            if not isinstance(error, Outcome):
                log.warning("the handler failed for message %s", job.delivery.id, exc_info=error)
        with self._changed:
            self._session.settle(job, settlement_after(job.delivery, raised))
            self._changed.notify_all()

    # The end

    def _end(self) -> None:
        """Begins to drain; safe in a signal handler's thread."""
        with self._changed:
            if self._session.draining:
                return
            self._session.drain()
            self._changed.notify_all()
            if not self._started:
                self._ended.set()
                return
            self._grace_timer = daemon_timer(self._grace, self._stop_handlers)

    def _stop_handlers(self) -> None:
        """Handlers are told to stop, and what they hold is given back."""
        with self._changed:
            running = self._session.give_up()
            self._gave_up = True
            self._duplex.end_soon()
            self._changed.notify_all()
        for job in running:
            job.delivery.revoked.set()

    def _end_workers(self) -> None:
        for _ in self._workers:
            self._jobs.put(None)
        until = time.monotonic() + _STOPPING_SECONDS
        for worker in self._workers:
            # One whose handler ignores `revoked` is left behind: a thread cannot be ended from outside.
            worker.join(max(0.0, until - time.monotonic()) if self._gave_up else None)
