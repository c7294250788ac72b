"""Outcomes of deliveries: as settlements, and as what a handler raises."""

from __future__ import annotations

import dataclasses
import datetime

from ackwell.errors import CallError, from_item
from ackwell.message import Delivery, Seconds, State, datetime_of, duration
from ackwell.v1 import queues_pb2 as wire

# Brokers keep the first KiB.
_MAX_REASON = 1024


class Outcome(Exception):
    """What a handler raises when neither "done" nor "failed" is meant."""


class Retry(Outcome):
    """Failed: counts an attempt, and comes again after `after` seconds; without it, after the queue's backoff."""

    def __init__(self, after: Seconds | None = None, reason: str = "") -> None:
        super().__init__(reason or "retry")
        self.after = after
        self.reason = reason


class Reject(Outcome):
    """Never again: Dead at once, with the reason."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason or "reject")
        self.reason = reason


class Release(Outcome):
    """Not processed: back to its place, free of charge."""


@dataclasses.dataclass(frozen=True, slots=True)
class Settled:
    """What became of a message."""

    state: State
    """`UNSPECIFIED` when it is gone."""
    next_attempt_at: datetime.datetime | None = None
    error: CallError | None = None
    """Why it was not settled."""


def ack(delivery: Delivery | bytes) -> wire.Settlement:
    """Done: the message is gone."""
    return wire.Settlement(receipt=_receipt(delivery), ack=wire.Ack())


def nack(delivery: Delivery | bytes, reason: str = "", delay: Seconds | None = None) -> wire.Settlement:
    """Failed: counts an attempt; comes again after `delay`, or after the queue's backoff."""
    outcome = wire.Nack(reason=_cut(reason), delay=None if delay is None else duration(delay))
    return wire.Settlement(receipt=_receipt(delivery), nack=outcome)


def release(delivery: Delivery | bytes) -> wire.Settlement:
    """Not processed: back to its place, free of charge."""
    return wire.Settlement(receipt=_receipt(delivery), release=wire.Release())


def reject(delivery: Delivery | bytes, reason: str = "") -> wire.Settlement:
    """Never again: Dead at once."""
    return wire.Settlement(receipt=_receipt(delivery), reject=wire.Reject(reason=_cut(reason)))


def settlement_after(delivery: Delivery, raised: BaseException | None) -> wire.Settlement:
    """The outcome of a handler that returned, or raised this."""
    match raised:
        case None:
            return ack(delivery)
        case Retry():
            return nack(delivery, raised.reason, raised.after)
        case Reject():
            return reject(delivery, raised.reason)
        case Release():
            return release(delivery)
        case Exception():
            return nack(delivery, f"{type(raised).__name__}: {raised}")
        case _:
            # The process is being stopped in the middle of the work: that is not the message's fault.
            return release(delivery)


def settled_from_wire(result: wire.SettleResult) -> Settled:
    """One item of an answer."""
    error = from_item(result.error) if result.HasField("error") else None
    again = datetime_of(result.next_attempt_at) if result.HasField("next_attempt_at") else None
    return Settled(State(result.state), again, error)


def _receipt(delivery: Delivery | bytes) -> bytes:
    return delivery if isinstance(delivery, bytes) else delivery.receipt


def _cut(reason: str) -> str:
    return reason.encode(errors="replace")[:_MAX_REASON].decode(errors="ignore")
