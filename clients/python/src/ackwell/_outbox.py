"""What a producer has taken and not seen confirmed, over as many streams as that takes. No I/O, no threads.

Rules, the same in every language's client:

- The other side names the producer, and the name stays; batches keep their `seq`. After a broken stream what is not confirmed is said again
  under the same `seq`, so that nothing is stored twice.
- Nothing is said beyond the window of the other side.
- A message that was refused for the moment only is said again as part of a later batch, until its time is over.
"""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Iterable
from typing import Any

from ackwell._calls import MAX_BATCH_BYTES, MAX_BATCH_MESSAGES, Sent, failed, sent_from_wire
from ackwell.errors import UNAVAILABLE, CallError
from ackwell.v1 import message_pb2
from ackwell.v1 import queues_pb2 as wire


@dataclasses.dataclass(slots=True, eq=False)
class Entry:
    """A message that was taken; `waiter` is whatever waits for its confirm."""

    message: message_pb2.Message
    waiter: Any
    size: int
    taken_at: float = dataclasses.field(default_factory=time.monotonic)


@dataclasses.dataclass(slots=True)
class Confirms:
    """What a frame tells: results, and what is to be given to `say_again` after a while."""

    results: list[tuple[Entry, Sent]] = dataclasses.field(default_factory=list)
    again: list[Entry] = dataclasses.field(default_factory=list)
    again_after: float = 0.0


# Where a refusal has no hint of its own.
_SAY_AGAIN_SECONDS = 0.5


class Outbox:
    """One producer of one queue."""

    def __init__(self, queue: str, max_messages: int, max_bytes: int, limit_seconds: float) -> None:
        self.queue = queue
        # Empty until the other side gave one: it knows then that nothing was sent under it.
        self._name = ""
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._limit = limit_seconds
        self._window: wire.ProduceWindow | None = None
        self._waiting: collections.deque[Entry] = collections.deque()
        self._batches: dict[int, list[Entry]] = {}
        self._unsaid: collections.deque[int] = collections.deque()
        # Refused for the moment, until `say_again`.
        self._refused: dict[int, Entry] = {}
        self._seq = 0
        # All that was taken and not confirmed; and of these, what is in batches that were said.
        self._messages = self._bytes = 0
        self._said_messages = self._said_bytes = 0
        self.closed = False
        self.leaving = False

    @property
    def idle(self) -> bool:
        """Everything that was taken is confirmed or refused."""
        return self._messages == 0

    @property
    def over(self) -> bool:
        """Nothing more will be said on this stream."""
        return (self.closed and self.idle) or (self.leaving and not self._batches)

    def has_room(self, size: int) -> bool:
        """Whether a message of that size may be taken now. A larger one than all room is taken alone."""
        return self.idle or (self._messages < self._max_messages and self._bytes + size <= self._max_bytes)

    def take_in(self, entry: Entry) -> None:
        """Takes a message."""
        self._messages += 1
        self._bytes += entry.size
        self._waiting.append(entry)

    def open(self) -> wire.ProduceRequest:
        """The first frame of a new stream."""
        self._window = None
        self.leaving = False
        self._said_messages = self._said_bytes = 0
        self._unsaid = collections.deque(self._batches)
        opening = wire.ProduceOpen(queue=self.queue, producer=self._name, want_ids=True)
        return wire.ProduceRequest(open=opening)

    def next_frame(self) -> wire.ProduceRequest | None:
        """What is to be said next, if anything is and there is room for it."""
        if self._window is None or self.leaving:
            return None
        seq = self._next_batch()
        if seq is None:
            return None
        batch = self._batches[seq]
        self._said_messages += len(batch)
        self._said_bytes += sum(entry.size for entry in batch)
        messages = [entry.message for entry in batch]
        return wire.ProduceRequest(batch=wire.ProduceBatch(seq=seq, messages=messages))

    def _next_batch(self) -> int | None:
        """The number of the batch to say next, if there is room for it."""
        if self._unsaid:
            batch = self._batches[self._unsaid[0]]
            # A window that got smaller than a batch still takes it alone.
            fits = self._said_messages == 0 or self._fits(len(batch), sum(entry.size for entry in batch))
            return self._unsaid.popleft() if fits else None
        batch = self._cut()
        if not batch:
            return None
        self._seq += 1
        self._batches[self._seq] = batch
        return self._seq

    def _cut(self) -> list[Entry]:
        batch: list[Entry] = []
        size = 0
        while self._waiting and len(batch) < MAX_BATCH_MESSAGES:
            entry = self._waiting[0]
            too_large = bool(batch) and size + entry.size > MAX_BATCH_BYTES
            if too_large or not self._fits(len(batch) + 1, size + entry.size):
                break
            batch.append(self._waiting.popleft())
            size += entry.size
        return batch

    def _fits(self, messages: int, size: int) -> bool:
        """Whether that many more may be on their way; one may always go alone."""
        if self._said_messages == 0 and messages <= 1:
            return True
        window = self._window
        assert window is not None
        room = self._said_messages + messages <= window.max_messages
        return room and (not window.max_bytes or self._said_bytes + size <= window.max_bytes)

    def take(self, response: wire.ProduceResponse) -> Confirms:
        """Reads one frame of the other side."""
        confirms = Confirms()
        match response.WhichOneof("frame"):
            case "opened":
                self._name, self._window = response.opened.producer, response.opened.window
            case "window":
                self._window = response.window
            case "confirm":
                self._confirm(response.confirm, confirms)
            case "go_away":
                self.leaving = True
        return confirms

    def _confirm(self, confirm: wire.ProduceConfirm, confirms: Confirms) -> None:
        results = {(result.seq, result.index): result.result for result in confirm.results}
        for seq in [seq for seq in self._batches if seq <= confirm.through_seq]:
            for index, entry in enumerate(self._batches.pop(seq)):
                self._said_messages -= 1
                self._said_bytes -= entry.size
                self._judge(entry, results.get((seq, index)), confirms)

    def _judge(self, entry: Entry, result: wire.SendResult | None, confirms: Confirms) -> None:
        sent = sent_from_wire(result) if result is not None else Sent("")
        error = sent.error
        if error is not None and error.reason in UNAVAILABLE and not self._is_late(entry):
            self._refused[id(entry)] = entry
            confirms.again.append(entry)
            confirms.again_after = max(confirms.again_after, error.retry_after or _SAY_AGAIN_SECONDS)
            return
        self._forget(entry)
        confirms.results.append((entry, sent))

    def say_again(self, entries: Iterable[Entry]) -> None:
        """Messages that could not be stored are said once more, before younger ones."""
        known = [entry for entry in entries if self._refused.pop(id(entry), None) is not None]
        self._waiting.extendleft(reversed(known))

    def fail(self, error: CallError, *, everything: bool) -> list[tuple[Entry, Sent]]:
        """Gives up: on what is late after a broken stream, or on everything."""
        said = [entry for batch in self._batches.values() for entry in batch]
        entries = [*said, *self._refused.values(), *self._waiting]
        if not everything and not any(self._is_late(entry) for entry in entries):
            return []
        # All: what was taken later cannot be confirmed before the oldest is.
        self._batches.clear()
        self._unsaid.clear()
        self._refused.clear()
        self._waiting.clear()
        for entry in entries:
            self._forget(entry)
        return [(entry, failed(error)) for entry in entries]

    def _is_late(self, entry: Entry) -> bool:
        return time.monotonic() - entry.taken_at > self._limit

    def _forget(self, entry: Entry) -> None:
        self._messages -= 1
        self._bytes -= entry.size
