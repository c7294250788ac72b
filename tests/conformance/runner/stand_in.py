"""In the place of a sidecar: refuses each Send for the reason that the message itself asks for.

For the reasons that real processes have too seldom to be waited for, and for those that do not exist yet.
"""

from concurrent import futures

import grpc
from google.protobuf import any_pb2, duration_pb2

from ackwell import _status_pb2 as status
from ackwell.v1 import queues_pb2_grpc

DOMAIN = "ackwell.dev"
TYPES = "type.googleapis.com/google.rpc."
DETAILS = "grpc-status-details-bin"


class StandIn(queues_pb2_grpc.QueuesServicer):
    """Serves until it is closed."""

    def __init__(self):
        self.server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
        queues_pb2_grpc.add_QueuesServicer_to_server(self, self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def Send(self, request, context):  # noqa: N802, the name of the call
        asked = request.messages[0].headers
        code = grpc.StatusCode[asked["code"]]
        text = f"refused as {asked['reason']}"
        details = [("ErrorInfo", status.ErrorInfo(reason=asked["reason"], domain=DOMAIN))]
        if after_ms := int(asked.get("retry_after_ms", 0)):
            delay = duration_pb2.Duration(seconds=after_ms // 1000, nanos=after_ms % 1000 * 1_000_000)
            details.append(("RetryInfo", status.RetryInfo(retry_delay=delay)))
        packed = [any_pb2.Any(type_url=TYPES + name, value=detail.SerializeToString()) for name, detail in details]
        whole = status.Status(code=code.value[0], message=text, details=packed)
        context.set_trailing_metadata(((DETAILS, whole.SerializeToString()),))
        context.abort(code, text)

    def close(self):
        self.server.stop(None)
