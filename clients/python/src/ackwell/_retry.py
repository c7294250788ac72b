"""When a call is made again."""

from __future__ import annotations

import random
import time

from ackwell.errors import CallError, Error, Reason, Refused, Unreachable

DEFAULT_LIMIT_SECONDS = 30.0
"""How long a call is repeated while the broker is unavailable. Well below the two minutes for which brokers remember request
ids, so that a repeated call has no second effect."""

# First pause; doubled up to the last, each between half and all of it, so that clients do not come back as one.
_MIN_PAUSE = 0.05
_MAX_PAUSE = 2.0

_PERMANENT = {
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
    "UNIMPLEMENTED",
    "FAILED_PRECONDITION",
    "OUT_OF_RANGE",
}


class Pauses:
    """Growing, jittered pauses."""

    def __init__(self) -> None:
        self._next = _MIN_PAUSE

    def next(self) -> float:
        pause = self._next * random.uniform(0.5, 1)
        self._next = min(2 * self._next, _MAX_PAUSE)
        return pause

    def reset(self) -> None:
        self._next = _MIN_PAUSE


class Attempts:
    """The attempts of one call, within a limit."""

    def __init__(self, limit_seconds: float, *, repeatable: bool = True) -> None:
        self._limit = limit_seconds
        self._until = time.monotonic() + limit_seconds
        self._repeatable = repeatable
        self._pauses = Pauses()
        self._last: CallError | None = None

    def remaining(self) -> float:
        """What the next attempt may take."""
        return max(self._until - time.monotonic(), 0.001)

    def pause_after(self, error: CallError) -> float:
        """How long to wait before the next attempt; raises where there is none."""
        if not self._repeatable or not is_temporary(error):
            raise self._end(error)
        self._last = error
        pause = max(error.retry_after or 0, self._pauses.next())
        if pause >= self._until - time.monotonic():
            raise error
        return pause

    def _end(self, error: CallError) -> Error:
        # When time runs out in an attempt, the caller learns why the earlier ones failed.
        return self._last if error.code == "DEADLINE_EXCEEDED" and self._last else error


def is_temporary(error: CallError) -> bool:
    """Whether the same call can succeed later, without anything else being done."""
    if isinstance(error, Refused):
        return error.code == "UNAVAILABLE" or error.reason == Reason.BUSY
    return isinstance(error, Unreachable) and error.code == "UNAVAILABLE"


def is_permanent(error: CallError) -> bool:
    """Whether opening a stream again does not help."""
    return error.code in _PERMANENT
