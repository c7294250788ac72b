"""Client for Ackwell queues. `ackwell.Client` is for threads, `ackwell.aio.Client` for asyncio; both do the same.

import ackwell

with ackwell.Client() as client:
    client.send("orders", "two discs")
    client.consume("orders", lambda delivery: print(delivery.text), concurrency=8)
"""

from ackwell._calls import Committed, Sent, Stats
from ackwell._channel import DEFAULT_ADDRESS
from ackwell._client import Cancel, Client
from ackwell._consumer import Consumer
from ackwell._producer import Producer
from ackwell.errors import CallError, Cancelled, Closed, Error, Reason, Refused, Unreachable
from ackwell.message import Attempt, Delivery, Message, State
from ackwell.outcome import Reject, Release, Retry, Settled, ack, nack, reject, release

__version__ = "0.1.0"

__all__ = [
    "DEFAULT_ADDRESS",
    "Attempt",
    "CallError",
    "Cancel",
    "Cancelled",
    "Client",
    "Closed",
    "Committed",
    "Consumer",
    "Delivery",
    "Error",
    "Message",
    "Producer",
    "Reason",
    "Refused",
    "Reject",
    "Release",
    "Retry",
    "Sent",
    "Settled",
    "State",
    "Stats",
    "Unreachable",
    "ack",
    "nack",
    "reject",
    "release",
]
