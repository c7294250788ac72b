"""Bodies sealed end to end: brokers, sidecars and volumes only ever have AES-256-GCM ciphertext.

Needs the extra `sealing`. The format, the same in every language, is in `docs/reference/sealing.md`.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import enum
import os
import re
import struct
from collections.abc import Mapping

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
except ImportError as error:
    raise ImportError("ackwell.sealing needs the package cryptography: pip install 'ackwell[sealing]'") from error

from ackwell.errors import Error
from ackwell.message import Message

KEY_HEADER = "sealed-key"
"""Says that a body is sealed, and with the key of which id."""
QUEUE_HEADER = "sealed-queue"
"""Says for which queue it was sealed: for those to which messages of other queues are moved."""

_VERSION = b"\x01"
_KEY_BYTES = 32
_NONCE_BYTES = 12
_TAG_BYTES = 16
_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


class OpenFailure(enum.StrEnum):
    """Why a message was not opened."""

    NOT_SEALED = "NOT_SEALED"
    UNKNOWN_KEY = "UNKNOWN_KEY"
    UNKNOWN_FORMAT = "UNKNOWN_FORMAT"
    CHANGED = "CHANGED"
    """It is not what was sealed for this queue: changed, cut off, of another queue, or by another key of the same id."""


_WORDS = {
    OpenFailure.NOT_SEALED: f"the message is not sealed: it has no header {KEY_HEADER}",
    OpenFailure.UNKNOWN_KEY: "the keyring does not have the key that the message was sealed with",
    OpenFailure.UNKNOWN_FORMAT: "the message was sealed in a format that this version does not know",
    OpenFailure.CHANGED: "the message is not what was sealed for this queue with this key",
}


class OpenError(Error):
    """A message could not be opened. Says which key it names, and nothing of what it contains."""

    def __init__(self, failure: OpenFailure, key_id: str = "") -> None:
        super().__init__(f"{_WORDS[failure]} [{failure}, key {key_id!r}]" if key_id else f"{_WORDS[failure]} [{failure}]")
        self.failure = failure
        self.key_id = key_id
        """Empty where the message names none that could be one."""


class Keyring:
    """Seals with the current key, and opens with every key that it has.

    `keys` are 32 bytes, or text that is base64 of them, by their ids: 1 to 64 of `A-Z a-z 0-9 . _ -`. With `allow_unsealed`
    messages that are not sealed are opened as they are: only while senders change over to sealing.
    """

    def __init__(self, current: str, keys: Mapping[str, bytes | str], *, allow_unsealed: bool = False) -> None:
        self._keys = {key_id: AESGCM(_key(key_id, key)) for key_id, key in keys.items()}
        if current not in self._keys:
            raise ValueError(f"the keyring does not have its current key {current!r}")
        self._current = current
        self._allow_unsealed = allow_unsealed

    def seal(self, queue: str, message: Message | bytes | str) -> Message:
        """The message with its body sealed, to be sent to this queue."""
        return self._seal(queue, message, os.urandom(_NONCE_BYTES))

    def open(self, queue: str, message: Message) -> Message:
        """The message that was sealed for this queue; raises `OpenError`."""
        key_id = message.headers.get(KEY_HEADER)
        if key_id is None:
            if self._allow_unsealed:
                return message
            raise OpenError(OpenFailure.NOT_SEALED)
        if not _KEY_ID.fullmatch(key_id):
            raise OpenError(OpenFailure.UNKNOWN_KEY)
        body = self._opened(queue, key_id, message)
        headers = {name: value for name, value in message.headers.items() if name not in (KEY_HEADER, QUEUE_HEADER)}
        return dataclasses.replace(message, body=body, headers=headers)

    def _seal(self, queue: str, message: Message | bytes | str, nonce: bytes) -> Message:
        if not isinstance(message, Message):
            message = Message(body=message)
        if KEY_HEADER in message.headers:
            raise ValueError(f"the message has a header {KEY_HEADER}: it is sealed already")
        bound = _bound(self._current, queue, message.content_type)
        sealed = _VERSION + nonce + self._keys[self._current].encrypt(nonce, _bytes(message), bound)
        headers = {**message.headers, KEY_HEADER: self._current, QUEUE_HEADER: _name(queue)}
        return dataclasses.replace(message, body=sealed, headers=headers)

    def _opened(self, queue: str, key_id: str, message: Message) -> bytes:
        key = self._keys.get(key_id)
        if key is None:
            raise OpenError(OpenFailure.UNKNOWN_KEY, key_id)
        sealed = _bytes(message)
        if sealed[:1] not in (b"", _VERSION):
            raise OpenError(OpenFailure.UNKNOWN_FORMAT, key_id)
        if len(sealed) < 1 + _NONCE_BYTES + _TAG_BYTES:
            raise OpenError(OpenFailure.CHANGED, key_id)
        nonce, ciphertext = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            return key.decrypt(nonce, ciphertext, _bound(key_id, queue, message.content_type))
        except InvalidTag:
            raise OpenError(OpenFailure.CHANGED, key_id) from None


def _key(key_id: str, key: bytes | str) -> bytes:
    if not _KEY_ID.fullmatch(key_id):
        raise ValueError(f"{key_id!r} is no id of a key: 1 to 64 letters, digits, '.', '_' and '-'")
    try:
        raw = base64.b64decode(key.strip(), validate=True) if isinstance(key, str) else key
    except (binascii.Error, ValueError):
        raise ValueError(f"key {key_id!r} is no base64") from None
    if len(raw) != _KEY_BYTES:
        raise ValueError(f"key {key_id!r} has {len(raw)} bytes: it needs {_KEY_BYTES}, as `openssl rand -base64 32` makes them")
    return raw


def _bound(key_id: str, queue: str, content_type: str) -> bytes:
    """What is authenticated besides the body."""
    texts = [text.encode() for text in (key_id, _name(queue), content_type)]
    return _VERSION + b"".join(struct.pack(">I", len(text)) + text for text in texts)


def _name(queue: str) -> str:
    """Who sends from another namespace writes it before the queue's name."""
    return queue.rpartition("/")[2]


def _bytes(message: Message) -> bytes:
    return message.body.encode() if isinstance(message.body, str) else message.body
