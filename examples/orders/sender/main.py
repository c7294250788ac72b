"""Sends orders to the queue "orders", one message each, and prints one line of JSON for each that is stored.

Settings, all optional: ACKWELL_ADDRESS, ORDERS (the file), FIRST and COUNT (which of its lines), RATE (orders a second).
"""

import hashlib
import json
import logging
import os
import time
import uuid
from itertools import islice
from pathlib import Path

import grpc

from ackwell.v1 import message_pb2, queues_pb2, queues_pb2_grpc

ADDRESS = os.environ.get("ACKWELL_ADDRESS", "127.0.0.1:7400")
ORDERS = Path(os.environ.get("ORDERS", Path(__file__).parent.parent / "data" / "cdnow.txt"))
FIRST = int(os.environ.get("FIRST", 0))
COUNT = int(os.environ["COUNT"]) if "COUNT" in os.environ else None
RATE = float(os.environ.get("RATE", "inf"))

CALL_SECONDS = 15
LONGEST_PAUSE_SECONDS = 5
# Unreachable, or full for now. Where only the answer was lost, the request_id keeps a second try from storing twice.
PASSING = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}


def main():
    sent = 0
    with grpc.insecure_channel(ADDRESS) as channel, ORDERS.open() as lines:
        queues = queues_pb2_grpc.QueuesStub(channel)
        started = time.monotonic()
        for order in islice(read_orders(lines), FIRST, None if COUNT is None else FIRST + COUNT):
            message = to_message(order)
            result = send(queues, message)
            report({"sent": result.id, "sha256": hashlib.sha256(message.body).hexdigest(), "duplicate": result.duplicate})
            sent += 1
            time.sleep(max(0.0, started + sent / RATE - time.monotonic()))
    report({"done": sent})


def read_orders(lines):
    for number, line in enumerate(lines, start=1):
        customer, _, date, discs, dollars = line.split()
        yield {"order": f"CDNOW-{number:06}", "customer": customer, "date": date, "discs": int(discs), "dollars": dollars}


def to_message(order):
    return message_pb2.Message(
        body=json.dumps(order).encode(),
        content_type="application/json",
        headers={"customer": order["customer"]},
        # The same order sent twice is stored once.
        dedup_id=order["order"],
    )


def send(queues, message):
    """Stores one message, however long that takes."""
    request = queues_pb2.SendRequest(queue="orders", messages=[message], request_id=str(uuid.uuid4()))
    pause = 0.1
    while True:
        try:
            return queues.Send(request, timeout=CALL_SECONDS, wait_for_ready=True).results[0]
        except grpc.RpcError as error:
            if error.code() not in PASSING:
                raise
            logging.warning("sending again in %.1f s: %s", pause, error.details())
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def report(line):
    print(json.dumps(line), flush=True)


main()
