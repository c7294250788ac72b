"""Indexes the log lines of the queue "logs" in SQLite and prints one line of JSON for each.

Settings, all optional: ACKWELL_ADDRESS, INDEX (the database's file; in memory by default), WORK_MS (time per batch).
"""

import asyncio
import hashlib
import json
import os
import sqlite3

import ackwell.aio

INDEX = os.environ.get("INDEX", ":memory:")
WORK_SECONDS = int(os.environ.get("WORK_MS", 0)) / 1000
# How many lines are worked on at once: the most that a batch can have.
CONCURRENCY = 200


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


class Indexer:
    """Writes in batches: lines that come while one is being written are the next one, and are acked together."""

    def __init__(self, index):
        self.index = index
        self.waiting = []
        self.writing = None

    async def handle(self, delivery):
        """Returns when the line is in the index."""
        if not is_line(delivery.body):
            raise ackwell.Reject("not a line of dpkg's log: date, time, action and more are expected")
        written = asyncio.get_running_loop().create_future()
        self.waiting.append((delivery.message, written))
        if self.writing is None:
            self.writing = asyncio.create_task(self.write())
        await written

    async def write(self):
        try:
            while self.waiting:
                await asyncio.sleep(WORK_SECONDS)
                batch, self.waiting = self.waiting, []
                self.write_batch([(line, written) for line, written in batch if not written.done()])
        finally:
            self.writing = None

    def write_batch(self, batch):
        try:
            self.index.add([line for line, _ in batch])
            for line, written in batch:
                report(line)
                written.set_result(None)
        except Exception as error:
            # Each handler fails with it, and its line comes again.
            for _, written in batch:
                if not written.done():
                    written.set_exception(error)


def is_line(body):
    return body.isascii() and body.count(b" ") >= 3


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
    async with ackwell.aio.Client() as client:
        # Until SIGTERM; then what is held is finished.
        await client.consume("logs", Indexer(index).handle, concurrency=CONCURRENCY)
    print(json.dumps({"indexed": index.size()}), flush=True)


asyncio.run(main())
