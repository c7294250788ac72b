"""Client for Ackwell queues, for asyncio. Everything that it shares with `ackwell` is in there.

import ackwell.aio

async with ackwell.aio.Client() as client:
    await client.send("orders", "two discs")
    await client.consume("orders", handle, concurrency=8)
"""

from ackwell.aio._client import Client
from ackwell.aio._consumer import Consumer
from ackwell.aio._producer import Producer

__all__ = ["Client", "Consumer", "Producer"]
