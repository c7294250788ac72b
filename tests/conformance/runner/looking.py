"""Looks at the queue itself, on the brokers, with nothing but the generated stubs."""

import base64

import grpc

from ackwell.v1 import admin_pb2, admin_pb2_grpc, message_pb2

from .settings import NAMESPACE, QUEUE

COUNTS = ("ready", "delayed", "in_flight", "dead", "consumers")
CALL_SECONDS = 10


class Looking:
    """Stubs of all shards."""

    def __init__(self, addresses):
        self.channels = [grpc.insecure_channel(address, options=[("grpc.enable_retries", 0)]) for address in addresses]
        self.stubs = [admin_pb2_grpc.QueueAdminStub(channel) for channel in self.channels]

    def counts(self):
        """Of all shards together; None while one does not answer."""
        request = admin_pb2.StatsRequest(queue=f"{NAMESPACE}/{QUEUE}")
        try:
            stats = [stub.Stats(request, timeout=CALL_SECONDS) for stub in self.stubs]
        except grpc.RpcError:
            return None
        return {name: sum(getattr(one, name) for one in stats) for name in COUNTS}

    def messages(self):
        """In stored order, shard by shard."""
        request = admin_pb2.PeekRequest(queue=f"{NAMESPACE}/{QUEUE}", limit=1000, body_bytes=1 << 20)
        answers = [stub.Peek(request, timeout=CALL_SECONDS, wait_for_ready=True) for stub in self.stubs]
        return [as_json(message) for answer in answers for message in answer.messages]

    def close(self):
        for channel in self.channels:
            channel.close()


def as_json(message):
    """As drivers show a message."""
    shown = {
        "id": message.id,
        "body": base64.b64encode(message.body).decode(),
        "headers": dict(message.headers),
        "state": message_pb2.State.Name(message.state).removeprefix("STATE_"),
        "attempts": message.attempts,
        "deliveries": message.deliveries,
        "history": [
            {"outcome": attempt.outcome, "reason": attempt.reason, "consumer": attempt.consumer} for attempt in message.history
        ],
    }
    texts = ("content_type", "ordering_key", "fairness_key", "dedup_id", "dead_reason")
    return shown | {name: getattr(message, name) for name in texts if getattr(message, name)}
