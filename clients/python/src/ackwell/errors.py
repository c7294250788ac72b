"""Why a call, or one item of it, failed."""

from __future__ import annotations

import enum
from collections.abc import Iterable

import grpc
from google.protobuf.message import DecodeError

from ackwell import _status_pb2 as status
from ackwell.v1 import message_pb2 as wire

_DOMAIN = "ackwell.dev"
_DETAILS = "grpc-status-details-bin"


class Reason(enum.StrEnum):
    """The stable reasons of `docs/reference/errors.md`. Each equals its word: `error.reason == "QUEUE_FULL"`."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    MESSAGE_TOO_LARGE = "MESSAGE_TOO_LARGE"
    BATCH_TOO_LARGE = "BATCH_TOO_LARGE"
    INVALID_RECEIPT = "INVALID_RECEIPT"
    BATCH_REFUSED = "BATCH_REFUSED"
    CROSS_SHARD = "CROSS_SHARD"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    QUEUE_NOT_FOUND = "QUEUE_NOT_FOUND"
    MESSAGE_NOT_FOUND = "MESSAGE_NOT_FOUND"
    MESSAGE_IN_FLIGHT = "MESSAGE_IN_FLIGHT"
    RECEIPT_EXPIRED = "RECEIPT_EXPIRED"
    SETTLED_OTHERWISE = "SETTLED_OTHERWISE"
    ALREADY_SETTLED = "ALREADY_SETTLED"
    QUEUE_FULL = "QUEUE_FULL"
    BUSY = "BUSY"
    DISK_FULL = "DISK_FULL"
    STORAGE_UNAVAILABLE = "STORAGE_UNAVAILABLE"
    TOKEN_EXPIRED = "TOKEN_EXPIRED"
    SHARD_MOVED = "SHARD_MOVED"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    BROKER_UNAVAILABLE = "BROKER_UNAVAILABLE"
    CORRUPT = "CORRUPT"


UNAVAILABLE = frozenset(
    (Reason.STORAGE_UNAVAILABLE, Reason.SHARD_MOVED, Reason.SHUTTING_DOWN, Reason.BROKER_UNAVAILABLE, Reason.BUSY)
)
"""Reasons of an item that may well succeed when it is tried again."""


class Error(Exception):
    """The base of everything that this package raises."""


class Closed(Error):
    """The client, consumer or producer was closed."""


class Cancelled(Error):
    """The call was cancelled by the caller."""


class CallError(Error):
    """A call, or one item of it, failed."""

    def __init__(self, message: str, *, code: str = "", reason: str = "", retry_after: float | None = None) -> None:
        super().__init__(f"{message} [{reason or code}]")
        self.message = message
        """For people: what was wrong and what to do."""
        self.code = code
        """The gRPC code's name, like `NOT_FOUND`; empty for an item of a batch."""
        self.reason = reason
        """Stable, for programs; may be one that `Reason` does not list. Empty where the call failed without one."""
        self.retry_after = retry_after
        """Seconds; where trying again later can help."""


class Refused(CallError):
    """Broker or sidecar refused, and said why in `reason`."""


class Unreachable(CallError):
    """No answer: no connection, none in time, or something else answered."""


def from_rpc_error(error: grpc.RpcError) -> CallError:
    """What a failed call says."""
    code, details = error.code().name, error.details() or ""
    metadata = error.trailing_metadata() or ()
    reason, retry_after = _reason(metadata)
    if reason:
        return Refused(details, code=code, reason=reason, retry_after=retry_after)
    return Unreachable(details, code=code, retry_after=retry_after)


def from_item(error: wire.ItemError) -> CallError:
    """What one item of an answer says."""
    retry_after = error.retry_after.ToTimedelta().total_seconds() if error.HasField("retry_after") else None
    return Refused(error.message, reason=error.reason, retry_after=retry_after)


def _reason(metadata: Iterable[tuple[str, str | bytes]]) -> tuple[str, float | None]:
    encoded = next((value for key, value in metadata if key == _DETAILS), b"")
    details = status.Status()
    try:
        details.ParseFromString(encoded if isinstance(encoded, bytes) else encoded.encode("latin-1"))
        return _read(details)
    except DecodeError:
        # Whatever answered, it was not Ackwell.
        return "", None


def _read(details: status.Status) -> tuple[str, float | None]:
    reason, retry_after = "", None
    for detail in details.details:
        kind = detail.type_url.rpartition("/")[2]
        if kind == "google.rpc.ErrorInfo":
            info = status.ErrorInfo.FromString(detail.value)
            reason = info.reason if info.domain == _DOMAIN else ""
        elif kind == "google.rpc.RetryInfo":
            retry_after = status.RetryInfo.FromString(detail.value).retry_delay.ToTimedelta().total_seconds()
    return reason, retry_after
