"""A collector of OpenTelemetry, which processes tell their spans."""

import concurrent.futures
import threading

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from .ports import free_address


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps what it is told, as scenarios compare it."""

    def __init__(self):
        self.address = free_address()
        self.lock = threading.Lock()
        self.seen = []
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self.server)
        self.server.add_insecure_port(self.address)
        self.server.start()

    def arguments(self):
        """With which a process tells it everything, soon."""
        return ["--otel-exporter-otlp-endpoint", f"http://{self.address}", "--otel-bsp-schedule-delay", "50"]

    def Export(self, request, context):
        with self.lock:
            for resource in request.resource_spans:
                service = texts(resource.resource.attributes)["service.name"]
                self.seen += [as_expected(service, span) for scope in resource.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def spans(self):
        """So far, by service and name; a parent that is among them by its own."""
        with self.lock:
            spans = sorted(self.seen, key=full_name)
        names = {span["id"]: full_name(span) for span in spans}
        return [span | {"parent": names.get(span["parent"], span["parent"])} for span in spans]

    def close(self):
        self.server.stop(None)


def as_expected(service, span):
    """As scenarios name it: ids in hex, and attributes by their names."""
    return {
        "service": service,
        "name": span.name,
        "id": span.span_id.hex(),
        "trace": span.trace_id.hex(),
        "parent": span.parent_span_id.hex(),
        "links": [link.span_id.hex() for link in span.links],
        **texts(span.attributes),
    }


def full_name(span):
    return f"{span['service']}: {span['name']}"


def texts(attributes):
    return {one.key: one.value.string_value for one in attributes if one.value.HasField("string_value")}
