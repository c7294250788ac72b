"""One gRPC stream after the other, for asyncio: says what a session has to say, and hands it what comes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import grpc

from ackwell._duplex import CLOSING_SECONDS, Talk


class Changed:
    """Lets tasks wait until something holds. All within one loop, so that no lock is needed."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def notify(self) -> None:
        """Something changed: whoever waits looks again."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    async def wait_for(self, holds: Callable[[], Any], limit_seconds: float | None = None) -> bool:
        """Whether it came to hold within the limit."""
        try:
            async with asyncio.timeout(limit_seconds):
                while not holds():
                    await self._next()
        except TimeoutError:
            return bool(holds())
        return True

    async def _next(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)


class Duplex:
    """Whoever changes the talk notifies `changed`."""

    def __init__(self, stub: Any, talk: Talk) -> None:
        self._stub = stub
        self._talk = talk
        self.changed = Changed()
        self._call: Any = None
        self._closing: asyncio.TimerHandle | None = None

    @property
    def lives(self) -> bool:
        """Whether there is a stream now."""
        return self._call is not None

    async def live(self, take: Callable[[Any], None]) -> None:
        """Lives as long as one stream: returns when both sides ended it, raises `grpc.RpcError` when it broke."""
        self._call = call = self._stub()
        writer = asyncio.create_task(self._write(call))
        try:
            # Not `async for`: mixed with `write`, gRPC asks for `read`.
            while (response := await call.read()) is not grpc.aio.EOF:
                take(response)
            await _raise_unless_ok(call)
        finally:
            self._call = None
            if self._closing is not None:
                self._closing.cancel()
                self._closing = None
            writer.cancel()
            call.cancel()
            with contextlib.suppress(asyncio.CancelledError, grpc.RpcError):
                await writer
            self.changed.notify()

    def end_soon(self) -> None:
        """The other side has a few seconds to end the stream."""
        if self._call is not None and self._closing is None:
            self._closing = asyncio.get_running_loop().call_later(CLOSING_SECONDS, self._call.cancel)

    async def _write(self, call: Any) -> None:
        # Why a write failed is told to whoever reads.
        with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
            await call.write(self._talk.open())
            while (frame := await self._next_frame()) is not None:
                await call.write(frame)
            self.end_soon()
            await call.done_writing()

    async def _next_frame(self) -> Any | None:
        """Waits for something to say. None: nothing more, our side of the stream is closed."""
        while True:
            if (frame := self._talk.next_frame()) is not None:
                return frame
            if self._talk.over:
                return None
            await self.changed._next()


async def _raise_unless_ok(call: Any) -> None:
    code = await call.code()
    if code is not grpc.StatusCode.OK:
        raise grpc.aio.AioRpcError(code, await call.initial_metadata(), await call.trailing_metadata(), await call.details())
