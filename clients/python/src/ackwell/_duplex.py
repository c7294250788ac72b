"""One gRPC stream after the other, for threads: says what a session has to say, and hands it what comes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

# How long the other side may take to end a stream that we ended.
CLOSING_SECONDS = 5.0


class Talk(Protocol):
    """What is said on streams; guarded by the lock of the duplex."""

    def open(self) -> Any:
        """The first frame of a new stream."""

    def next_frame(self) -> Any | None:
        """What is to be said next, if anything is."""

    @property
    def over(self) -> bool:
        """Nothing more will be said on this stream."""


class Duplex:
    """Whoever changes the talk holds `changed` and notifies it."""

    def __init__(self, stub: Any, talk: Talk) -> None:
        self._stub = stub
        self._talk = talk
        self.changed = threading.Condition()
        self._current: object | None = None
        self._call: Any = None
        self._closing: threading.Timer | None = None

    def live(self, take: Callable[[Any], None]) -> None:
        """Lives as long as one stream: returns when both sides ended it, raises `grpc.RpcError` when it broke."""
        with self.changed:
            self._current = stream = object()
            opening = self._talk.open()
        self._call = self._stub(self._requests(stream, opening))
        try:
            for response in self._call:
                take(response)
        finally:
            with self.changed:
                self._current = None
                self.changed.notify_all()
                closing, self._closing = self._closing, None
            if closing is not None:
                closing.cancel()
            self._call.cancel()

    @property
    def lives(self) -> bool:
        """Whether there is a stream now."""
        return self._current is not None

    def end_soon(self) -> None:
        """The other side has a few seconds to end the stream. To be called with `changed` held."""
        if self._current is not None and self._closing is None:
            self._closing = daemon_timer(CLOSING_SECONDS, self._cancel)

    def _cancel(self) -> None:
        if self._call is not None:
            self._call.cancel()

    def _requests(self, stream: object, opening: Any) -> Iterator[Any]:
        # gRPC asks for these in a thread of its own.
        yield opening
        while (frame := self._next_frame(stream)) is not None:
            yield frame

    def _next_frame(self, stream: object) -> Any | None:
        """Waits for something to say. None: nothing more, our side of the stream is closed."""
        with self.changed:
            while self._current is stream:
                if (frame := self._talk.next_frame()) is not None:
                    return frame
                if self._talk.over:
                    self.end_soon()
                    return None
                self.changed.wait()
            return None


def daemon_timer(seconds: float, function: Callable[[], Any]) -> threading.Timer:
    """A timer that keeps no process alive, started."""
    timer = threading.Timer(seconds, function)
    timer.daemon = True
    timer.start()
    return timer
