"""What a consumer holds and says, over as many streams as that takes. No I/O, no threads: both clients drive it.

Rules, the same in every language's client:

- A delivery is *held* from its arrival until its settlement is confirmed. A new stream is opened with everything held, and
  settlements without an answer are said again.
- Drain: what no handler has begun is released; the others are settled as they end.
- Revoked: a handler that runs is told to stop, and nothing is said about its delivery any more.
- Go away: nothing new comes on this stream; when nothing is held any more it is closed, and another one opened.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import socket
from collections.abc import Iterable

from ackwell.errors import UNAVAILABLE, from_item
from ackwell.message import Delivery, delivery_from_wire
from ackwell.outcome import release
from ackwell.v1 import message_pb2 as message_wire
from ackwell.v1 import queues_pb2 as wire

log = logging.getLogger("ackwell")

# As in the API.
_MAX_SETTLEMENTS = 1000
# Where the refusal has no hint of its own.
_SAY_AGAIN_SECONDS = 0.5


@dataclasses.dataclass(slots=True, eq=False)
class Job:
    """A delivery that is held."""

    delivery: Delivery
    begun: bool = False
    settlement: wire.Settlement | None = None


@dataclasses.dataclass(slots=True)
class Effects:
    """What a frame asks the driver of the session to do."""

    arrived: list[Job] = dataclasses.field(default_factory=list)
    revoked: list[Job] = dataclasses.field(default_factory=list)
    again: list[Job] = dataclasses.field(default_factory=list)
    """To be given to `say_again` after `again_after` seconds."""
    again_after: float = 0.0


class Session:
    """One consumer of one queue."""

    def __init__(self, queue: str, consumer: str, window: int) -> None:
        self._opening = wire.Open(queue=queue, consumer=consumer, window=wire.Window(max_messages=window))
        self._jobs: dict[bytes, Job] = {}
        # Not said yet on this stream; said and not answered, by the number of their frame.
        self._unsaid: collections.deque[Job] = collections.deque()
        self._unanswered: dict[int, list[Job]] = {}
        self._seq = 0
        self._drain_unsaid = False
        self.draining = False
        self.leaving = False
        """The other side goes away, or we do: this stream ends when nothing is held."""

    @classmethod
    def of_consumer(cls, queue: str, name: str | None, concurrency: int, prefetch: int) -> Session:
        """With room for what is worked on and what waits for it. Without a name it has that of the machine."""
        if concurrency < 1 or prefetch < 0:
            raise ValueError("a consumer needs a concurrency of at least 1 and a prefetch of at least 0")
        return cls(queue, socket.gethostname() if name is None else name, concurrency + prefetch)

    @property
    def queue(self) -> str:
        return self._opening.queue

    @property
    def idle(self) -> bool:
        """Nothing is held."""
        return not self._jobs

    @property
    def over(self) -> bool:
        """Nothing more will be said on this stream."""
        return self.leaving and self.idle

    def open(self) -> wire.ConsumeRequest:
        """The first frame of a new stream."""
        self._unanswered.clear()
        self._unsaid = collections.deque(job for job in self._jobs.values() if job.settlement is not None)
        self._drain_unsaid = self.leaving = self.draining
        opening = wire.Open(held=list(self._jobs))
        opening.MergeFrom(self._opening)
        return wire.ConsumeRequest(open=opening)

    def next_frame(self) -> wire.ConsumeRequest | None:
        """What is to be said next, if anything is."""
        if self._drain_unsaid:
            self._drain_unsaid = False
            return wire.ConsumeRequest(drain=wire.Drain())
        if not self._unsaid:
            return None
        jobs = [self._unsaid.popleft() for _ in range(min(len(self._unsaid), _MAX_SETTLEMENTS))]
        self._seq += 1
        self._unanswered[self._seq] = jobs
        settlements = [job.settlement for job in jobs if job.settlement is not None]
        return wire.ConsumeRequest(settle=wire.SettleFrame(seq=self._seq, settlements=settlements))

    def begin(self, job: Job) -> bool:
        """Whether a handler may begin: not when it was released or revoked meanwhile."""
        if job.settlement is not None or job.delivery.receipt not in self._jobs:
            return False
        job.begun = True
        return True

    def settle(self, job: Job, settlement: wire.Settlement) -> None:
        """The handler has ended. Does nothing for what is settled or no longer held."""
        if job.settlement is None and job.delivery.receipt in self._jobs:
            job.settlement = settlement
            self._unsaid.append(job)

    def drain(self) -> None:
        """Takes nothing more, and releases what no handler has begun."""
        if self.draining:
            return
        self.draining = self.leaving = self._drain_unsaid = True
        self._release(job for job in self._jobs.values() if not job.begun)

    def give_up(self) -> list[Job]:
        """Releases what handlers still run for; the jobs whose handlers are to be stopped."""
        running = [job for job in self._jobs.values() if job.settlement is None]
        self._release(running)
        return running

    def take(self, response: wire.ConsumeResponse) -> Effects:
        """Reads one frame of the other side."""
        effects = Effects()
        match response.WhichOneof("frame"):
            case "deliveries":
                for delivery in response.deliveries.deliveries:
                    self._arrive(delivery, effects)
            case "settled":
                self._confirm(response.settled, effects)
            case "revoked":
                self._revoke(response.revoked, effects)
            case "go_away":
                self.leaving = True
        return effects

    def _arrive(self, delivery: message_wire.Delivery, effects: Effects) -> None:
        if delivery.receipt in self._jobs:
            return
        job = Job(delivery_from_wire(self.queue, delivery))
        self._jobs[delivery.receipt] = job
        if self.draining:
            self._release([job])
        else:
            effects.arrived.append(job)

    def _confirm(self, settled: wire.SettledFrame, effects: Effects) -> None:
        jobs = self._unanswered.pop(settled.seq, [])
        for job, result in zip(jobs, settled.results, strict=False):
            error = from_item(result.error) if result.HasField("error") else None
            if error is not None and error.reason in UNAVAILABLE:
                effects.again.append(job)
                effects.again_after = max(effects.again_after, error.retry_after or _SAY_AGAIN_SECONDS)
                continue
            if error is not None:
                log.warning("message %s is not settled: %s", job.delivery.id, error)
            self._jobs.pop(job.delivery.receipt, None)

    def say_again(self, jobs: Iterable[Job]) -> None:
        """Settlements that could not be carried out are said once more, unless a new stream did it meanwhile."""
        said = {id(job) for job in self._unsaid} | {id(job) for each in self._unanswered.values() for job in each}
        held = (job for job in jobs if job.delivery.receipt in self._jobs)
        self._unsaid.extend(job for job in held if id(job) not in said)

    def _revoke(self, revoked: wire.Revoked, effects: Effects) -> None:
        for receipt in revoked.receipts:
            job = self._jobs.get(receipt)
            # What is settled already is answered by itself.
            if job is not None and job.settlement is None:
                log.warning("message %s will come again: %s", job.delivery.id, revoked.reason)
                del self._jobs[receipt]
                effects.revoked.append(job)

    def _release(self, jobs: Iterable[Job]) -> None:
        for job in list(jobs):
            self.settle(job, release(job.delivery))
