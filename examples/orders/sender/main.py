"""Sends orders to the queue "orders", one message each, and prints one line of JSON for each that is stored.

Settings, all optional: ACKWELL_ADDRESS, ORDERS (the file), FIRST and COUNT (which of its lines), RATE (orders a second).
"""

import hashlib
import json
import logging
import os
import time
from itertools import islice
from pathlib import Path

import ackwell

ORDERS = Path(os.environ.get("ORDERS", Path(__file__).parent.parent / "data" / "cdnow.txt"))
FIRST = int(os.environ.get("FIRST", 0))
COUNT = int(os.environ["COUNT"]) if "COUNT" in os.environ else None
RATE = float(os.environ.get("RATE", "inf"))

PAUSE_SECONDS = 1


def main():
    sent = 0
    with ackwell.Client() as client, ORDERS.open() as lines:
        started = time.monotonic()
        for order in islice(read_orders(lines), FIRST, None if COUNT is None else FIRST + COUNT):
            message = to_message(order)
            result = send(client, message)
            report({"sent": result.id, "sha256": hashlib.sha256(message.body).hexdigest(), "duplicate": result.duplicate})
            sent += 1
            time.sleep(max(0.0, started + sent / RATE - time.monotonic()))
    report({"done": sent})


def read_orders(lines):
    for number, line in enumerate(lines, start=1):
        customer, _, date, discs, dollars = line.split()
        yield {"order": f"CDNOW-{number:06}", "customer": customer, "date": date, "discs": int(discs), "dollars": dollars}


def to_message(order):
    return ackwell.Message(
        body=json.dumps(order).encode(),
        content_type="application/json",
        headers={"customer": order["customer"]},
        # The same order sent twice is stored once.
        dedup_id=order["order"],
    )


def send(client, message):
    """Stores one message, however long that takes: longer than the client waits by itself, and until the queue has room."""
    while True:
        try:
            return client.send("orders", message)
        except ackwell.CallError as error:
            if error.retry_after is None and not isinstance(error, ackwell.Unreachable):
                raise
            pause = error.retry_after or PAUSE_SECONDS
            logging.warning("sending again in %.1f s: %s", pause, error)
        time.sleep(pause)


def report(line):
    print(json.dumps(line), flush=True)


main()
