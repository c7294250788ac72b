"""A worker with nothing but generated stubs: sends three orders, then consumes on a stream until SIGTERM.

What the client library does besides: a new stream when this one breaks, with what is held, and handlers beside each other.
"""

import os
import queue
import signal
import uuid

import grpc

from ackwell.v1.message_pb2 import Message
from ackwell.v1.queues_pb2 import Ack, ConsumeRequest, Drain, Nack, Open, SendRequest, SettleFrame, Settlement, Window
from ackwell.v1.queues_pb2_grpc import QueuesStub

queues = QueuesStub(grpc.insecure_channel(os.environ.get("ACKWELL_ADDRESS", "127.0.0.1:7400")))

messages = [Message(body=text.encode()) for text in ("two discs", "a poster", "nothing")]
# The id makes it safe to make the call again when its answer is lost.
sent = queues.Send(SendRequest(queue="orders", messages=messages, request_id=str(uuid.uuid4())))
for result in sent.results:
    print("on disk as", result.id, flush=True)

outbox = queue.SimpleQueue()
outbox.put(ConsumeRequest(open=Open(queue="orders", window=Window(max_messages=8))))
signal.signal(signal.SIGTERM, lambda *_: outbox.put(ConsumeRequest(drain=Drain())))


def settlement(delivery):
    if delivery.message.body == b"nothing":
        return Settlement(receipt=delivery.receipt, nack=Nack(reason="there is nothing to do"))
    print("received", delivery.message.body.decode(), flush=True)
    return Settlement(receipt=delivery.receipt, ack=Ack())


def requests():
    """What is said on the stream. After Drain, our side of it is closed: what is unsettled goes back, free of charge."""
    while True:
        request = outbox.get()
        yield request
        if request.HasField("drain"):
            return


for number, response in enumerate(queues.Consume(requests()), start=1):
    if response.HasField("deliveries"):
        settlements = [settlement(delivery) for delivery in response.deliveries.deliveries]
        outbox.put(ConsumeRequest(settle=SettleFrame(seq=number, settlements=settlements)))
