"""Indexes the log lines of the queue "logs" in SQLite and prints one line of JSON for each.

Settings, all optional: ACKWELL_ADDRESS, INDEX (the database's file; in memory by default), WORK_MS (time per batch).
"""

import asyncio
import hashlib
import json
import logging
import os
import signal
import socket
import sqlite3

import grpc

from ackwell.v1 import queues_pb2, queues_pb2_grpc

ADDRESS = os.environ.get("ACKWELL_ADDRESS", "127.0.0.1:7400")
INDEX = os.environ.get("INDEX", ":memory:")
WORK_SECONDS = int(os.environ.get("WORK_MS", 0)) / 1000

QUEUE = "logs"
WINDOW = queues_pb2.Window(max_messages=200)
SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 5.0
# Failures that trying again does not change.
PERMANENT = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED,
}


class Index:
    """The lines, each once, however often it is delivered."""

    def __init__(self, path):
        self.database = sqlite3.connect(path)
        self.database.execute("CREATE TABLE IF NOT EXISTS lines (id PRIMARY KEY, day, time, action, rest)")

    def add(self, messages):
        """Adds a batch in one transaction."""
        with self.database:
            rows = ((message.id, *message.body.decode().split(" ", 3)) for message in messages)
            self.database.executemany("INSERT OR IGNORE INTO lines VALUES (?, ?, ?, ?, ?)", rows)

    def size(self):
        return self.database.execute("SELECT count(*) FROM lines").fetchone()[0]


class Consumer:
    """Feeds the index from the queue, over as many streams as that takes."""

    def __init__(self, queues, index):
        self.queues = queues
        self.index = index
        self.stopping = False
        # Settlements that are not confirmed yet, by sequence number. They outlive a stream that breaks.
        self.unconfirmed = {}
        self.sequence = 0
        self.outbox = asyncio.Queue()
        self.leaving = self.closed = False
        self.pause = SHORTEST_PAUSE_SECONDS

    async def run(self):
        """Consumes until `stop`, and until everything is settled."""
        while not self.stopping or self.unconfirmed:
            try:
                await self.consume()
            except grpc.aio.AioRpcError as error:
                if error.code() in PERMANENT:
                    raise
                logging.warning("stream ended, opening it again in %.1f s: %s", self.pause, error.details())
                await asyncio.sleep(self.pause)
                self.pause = min(2 * self.pause, LONGEST_PAUSE_SECONDS)

    def stop(self):
        """Takes no more lines, and ends once those taken are settled."""
        self.stopping = True
        self.drain()

    async def consume(self):
        """Lives as long as one stream."""
        self.open()
        async for response in self.queues.Consume(self.requests()):
            await self.handle(response)
            self.close_when_done()

    def open(self):
        """Starts a stream, takes along what an earlier one left behind, and repeats what got no answer."""
        self.outbox = asyncio.Queue()
        self.leaving = self.closed = False
        held = [settlement.receipt for batch in self.unconfirmed.values() for settlement in batch]
        opening = queues_pb2.Open(queue=QUEUE, consumer=socket.gethostname(), window=WINDOW, held=held)
        self.outbox.put_nowait(queues_pb2.ConsumeRequest(open=opening))
        for sequence, settlements in self.unconfirmed.items():
            self.send_settlements(sequence, settlements)
        if self.stopping:
            self.drain()

    async def requests(self):
        while (request := await self.outbox.get()) is not None:
            yield request

    async def handle(self, response):
        match response.WhichOneof("frame"):
            case "opened":
                self.pause = SHORTEST_PAUSE_SECONDS
            case "deliveries" if not self.closed:
                await self.process(response.deliveries.deliveries)
            case "settled":
                self.confirm(response.settled)
            case "revoked":
                logging.warning("%d lines will come again: %s", len(response.revoked.receipts), response.revoked.reason)
            case "go_away":
                self.leaving = True

    async def process(self, deliveries):
        self.sequence += 1
        self.unconfirmed[self.sequence] = [settlement(delivery) for delivery in deliveries]
        await asyncio.sleep(WORK_SECONDS)
        lines = [delivery.message for delivery in deliveries if is_line(delivery.message.body)]
        self.index.add(lines)
        for line in lines:
            report(line)
        self.send_settlements(self.sequence, self.unconfirmed[self.sequence])

    def send_settlements(self, sequence, settlements):
        frame = queues_pb2.SettleFrame(seq=sequence, settlements=settlements)
        self.outbox.put_nowait(queues_pb2.ConsumeRequest(settle=frame))

    def confirm(self, settled):
        self.unconfirmed.pop(settled.seq, None)
        for result in settled.results:
            if result.HasField("error"):
                logging.warning("not settled: %s: %s", result.error.reason, result.error.message)

    def drain(self):
        self.leaving = True
        self.outbox.put_nowait(queues_pb2.ConsumeRequest(drain=queues_pb2.Drain()))
        self.close_when_done()

    def close_when_done(self):
        """Ends our side of the stream. What is delivered from then on goes back to the queue, free of charge."""
        if self.leaving and not self.unconfirmed and not self.closed:
            self.closed = True
            self.outbox.put_nowait(None)


def is_line(body):
    return body.isascii() and body.count(b" ") >= 3


def settlement(delivery):
    if is_line(delivery.message.body):
        return queues_pb2.Settlement(receipt=delivery.receipt, ack=queues_pb2.Ack())
    reject = queues_pb2.Reject(reason="not a line of dpkg's log: date, time, action and more are expected")
    return queues_pb2.Settlement(receipt=delivery.receipt, reject=reject)


def report(message):
    line = {
        "processed": message.id,
        "sha256": hashlib.sha256(message.body).hexdigest(),
        "attempts": message.attempts,
        "deliveries": message.deliveries,
    }
    print(json.dumps(line), flush=True)


async def main():
    index = Index(INDEX)
    async with grpc.aio.insecure_channel(ADDRESS) as channel:
        consumer = Consumer(queues_pb2_grpc.QueuesStub(channel), index)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, consumer.stop)
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, consumer.stop)
        await consumer.run()
    print(json.dumps({"indexed": index.size()}), flush=True)


asyncio.run(main())
