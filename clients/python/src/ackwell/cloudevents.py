"""CloudEvents 1.0 in binary mode: attributes in headers `ce-*`, the data is the body."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping
from typing import Any

from ackwell.message import Message

_PREFIX = "ce-"
_VERSION = "1.0"
_OPTIONAL = ("subject", "time", "dataschema")
_REQUIRED = ("id", "source", "type")


@dataclasses.dataclass(slots=True)
class CloudEvent:
    """An event; attributes as in the specification, `time` in RFC 3339."""

    source: str
    type: str
    data: bytes = b""
    id: str = dataclasses.field(default_factory=lambda: str(uuid.uuid4()))
    subject: str = ""
    time: str = ""
    datacontenttype: str = ""
    dataschema: str = ""
    extensions: Mapping[str, str] = dataclasses.field(default_factory=dict)


def to_message(event: CloudEvent, **fields: Any) -> Message:
    """A message with the event in it; `fields` are further ones of the message."""
    attributes = {name: getattr(event, name) for name in (*_REQUIRED, *_OPTIONAL)}
    attributes = {name: value for name, value in attributes.items() if value}
    if missing := [name for name in _REQUIRED if name not in attributes]:
        raise ValueError(f"an event needs {', '.join(missing)}")
    attributes |= {"specversion": _VERSION, **event.extensions}
    headers = {_PREFIX + name: value for name, value in attributes.items()}
    headers |= fields.pop("headers", {})
    return Message(body=event.data, headers=headers, content_type=event.datacontenttype, **fields)


def is_event(message: Message) -> bool:
    """Whether a message carries an event."""
    return _PREFIX + "specversion" in message.headers


def from_message(message: Message) -> CloudEvent:
    """The event in a message."""
    attributes = {name.removeprefix(_PREFIX): value for name, value in message.headers.items() if name.startswith(_PREFIX)}
    if attributes.pop("specversion", None) != _VERSION:
        raise ValueError(f"the message is no CloudEvent {_VERSION}: header {_PREFIX}specversion is missing or another")
    if missing := [name for name in _REQUIRED if not attributes.get(name)]:
        raise ValueError(f"the event lacks {', '.join(missing)}")
    known = {name: attributes.pop(name, "") for name in (*_REQUIRED, *_OPTIONAL)}
    body = message.body.encode() if isinstance(message.body, str) else message.body
    return CloudEvent(data=body, datacontenttype=message.content_type, extensions=attributes, **known)
