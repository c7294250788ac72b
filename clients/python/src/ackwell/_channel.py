"""Where the sidecar or broker is, and how the connection to it behaves."""

from __future__ import annotations

import os

DEFAULT_ADDRESS = "127.0.0.1:7400"
"""Where a sidecar, or `ackwell dev`, listens."""

# 16 MiB of bodies, and as much again for each of headers and histories.
_MAX_ANSWER_BYTES = 64 << 20

OPTIONS = [
    ("grpc.max_receive_message_length", _MAX_ANSWER_BYTES),
    ("grpc.max_send_message_length", -1),
    # A peer that vanished without a word is noticed within the sum of the two.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    # A broken stream has 5 s to come back: gRPC's own first pause of a second, up to two minutes, is far too long.
    ("grpc.initial_reconnect_backoff_ms", 50),
    # In spite of its name the time that one attempt to connect may take.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Repeating is ours: it knows which calls may be repeated, and their deadline.
    ("grpc.enable_retries", 0),
    # Two clients in a process have two connections, and closing one leaves the other alone.
    ("grpc.use_local_subchannel_pool", 1),
]


def options(address: str) -> list[tuple[str, int | str]]:
    """How a channel to this address behaves."""
    if not address.startswith("unix:"):
        return [*OPTIONS]
    # What gRPC makes of a path is no authority, and is refused by servers that look.
    return [*OPTIONS, ("grpc.default_authority", "localhost")]


def find_address(address: str | None) -> str:
    """The address that was given, or that of the environment, or the default one."""
    found = address or os.environ.get("ACKWELL_ADDRESS") or DEFAULT_ADDRESS
    found = found.removeprefix("http://").rstrip("/")
    if found.startswith("unix:"):
        return found
    host, _, port = found.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"address {found!r} is not valid: use host:port, like {DEFAULT_ADDRESS}, or unix:PATH")
    return found
