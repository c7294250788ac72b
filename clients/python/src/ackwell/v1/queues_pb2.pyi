import datetime

from ackwell.v1 import message_pb2 as _message_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SendRequest(_message.Message):
    __slots__ = ("queue", "messages", "atomic", "request_id")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    ATOMIC_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    queue: str
    messages: _containers.RepeatedCompositeFieldContainer[_message_pb2.Message]
    atomic: bool
    request_id: str
    def __init__(self, queue: _Optional[str] = ..., messages: _Optional[_Iterable[_Union[_message_pb2.Message, _Mapping]]] = ..., atomic: bool = ..., request_id: _Optional[str] = ...) -> None: ...

class SendResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[SendResult]
    def __init__(self, results: _Optional[_Iterable[_Union[SendResult, _Mapping]]] = ...) -> None: ...

class SendResult(_message.Message):
    __slots__ = ("id", "duplicate", "error")
    ID_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    id: str
    duplicate: bool
    error: _message_pb2.ItemError
    def __init__(self, id: _Optional[str] = ..., duplicate: bool = ..., error: _Optional[_Union[_message_pb2.ItemError, _Mapping]] = ...) -> None: ...

class ProduceRequest(_message.Message):
    __slots__ = ("open", "batch")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    open: ProduceOpen
    batch: ProduceBatch
    def __init__(self, open: _Optional[_Union[ProduceOpen, _Mapping]] = ..., batch: _Optional[_Union[ProduceBatch, _Mapping]] = ...) -> None: ...

class ProduceOpen(_message.Message):
    __slots__ = ("queue", "producer", "want_ids")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_FIELD_NUMBER: _ClassVar[int]
    WANT_IDS_FIELD_NUMBER: _ClassVar[int]
    queue: str
    producer: str
    want_ids: bool
    def __init__(self, queue: _Optional[str] = ..., producer: _Optional[str] = ..., want_ids: bool = ...) -> None: ...

class ProduceBatch(_message.Message):
    __slots__ = ("seq", "messages")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    seq: int
    messages: _containers.RepeatedCompositeFieldContainer[_message_pb2.Message]
    def __init__(self, seq: _Optional[int] = ..., messages: _Optional[_Iterable[_Union[_message_pb2.Message, _Mapping]]] = ...) -> None: ...

class ProduceResponse(_message.Message):
    __slots__ = ("opened", "confirm", "window", "go_away")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    CONFIRM_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    GO_AWAY_FIELD_NUMBER: _ClassVar[int]
    opened: ProduceOpened
    confirm: ProduceConfirm
    window: ProduceWindow
    go_away: GoAway
    def __init__(self, opened: _Optional[_Union[ProduceOpened, _Mapping]] = ..., confirm: _Optional[_Union[ProduceConfirm, _Mapping]] = ..., window: _Optional[_Union[ProduceWindow, _Mapping]] = ..., go_away: _Optional[_Union[GoAway, _Mapping]] = ...) -> None: ...

class ProduceOpened(_message.Message):
    __slots__ = ("producer", "window")
    PRODUCER_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    producer: str
    window: ProduceWindow
    def __init__(self, producer: _Optional[str] = ..., window: _Optional[_Union[ProduceWindow, _Mapping]] = ...) -> None: ...

class ProduceWindow(_message.Message):
    __slots__ = ("max_messages", "max_bytes")
    MAX_MESSAGES_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    max_messages: int
    max_bytes: int
    def __init__(self, max_messages: _Optional[int] = ..., max_bytes: _Optional[int] = ...) -> None: ...

class ProduceConfirm(_message.Message):
    __slots__ = ("through_seq", "results")
    THROUGH_SEQ_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    through_seq: int
    results: _containers.RepeatedCompositeFieldContainer[ProduceResult]
    def __init__(self, through_seq: _Optional[int] = ..., results: _Optional[_Iterable[_Union[ProduceResult, _Mapping]]] = ...) -> None: ...

class ProduceResult(_message.Message):
    __slots__ = ("seq", "index", "result")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    seq: int
    index: int
    result: SendResult
    def __init__(self, seq: _Optional[int] = ..., index: _Optional[int] = ..., result: _Optional[_Union[SendResult, _Mapping]] = ...) -> None: ...

class ReceiveRequest(_message.Message):
    __slots__ = ("queue", "max_messages", "max_bytes", "wait", "ack_timeout", "request_id", "consumer")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGES_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    ACK_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CONSUMER_FIELD_NUMBER: _ClassVar[int]
    queue: str
    max_messages: int
    max_bytes: int
    wait: _duration_pb2.Duration
    ack_timeout: _duration_pb2.Duration
    request_id: str
    consumer: str
    def __init__(self, queue: _Optional[str] = ..., max_messages: _Optional[int] = ..., max_bytes: _Optional[int] = ..., wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., ack_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., request_id: _Optional[str] = ..., consumer: _Optional[str] = ...) -> None: ...

class ReceiveResponse(_message.Message):
    __slots__ = ("deliveries",)
    DELIVERIES_FIELD_NUMBER: _ClassVar[int]
    deliveries: _containers.RepeatedCompositeFieldContainer[_message_pb2.Delivery]
    def __init__(self, deliveries: _Optional[_Iterable[_Union[_message_pb2.Delivery, _Mapping]]] = ...) -> None: ...

class Settlement(_message.Message):
    __slots__ = ("receipt", "ack", "nack", "release", "reject", "lost")
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    NACK_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    REJECT_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    receipt: bytes
    ack: Ack
    nack: Nack
    release: Release
    reject: Reject
    lost: Lost
    def __init__(self, receipt: _Optional[bytes] = ..., ack: _Optional[_Union[Ack, _Mapping]] = ..., nack: _Optional[_Union[Nack, _Mapping]] = ..., release: _Optional[_Union[Release, _Mapping]] = ..., reject: _Optional[_Union[Reject, _Mapping]] = ..., lost: _Optional[_Union[Lost, _Mapping]] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Nack(_message.Message):
    __slots__ = ("delay", "reason")
    DELAY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    delay: _duration_pb2.Duration
    reason: str
    def __init__(self, delay: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class Release(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Reject(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class Lost(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class SettleRequest(_message.Message):
    __slots__ = ("queue", "settlements")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    SETTLEMENTS_FIELD_NUMBER: _ClassVar[int]
    queue: str
    settlements: _containers.RepeatedCompositeFieldContainer[Settlement]
    def __init__(self, queue: _Optional[str] = ..., settlements: _Optional[_Iterable[_Union[Settlement, _Mapping]]] = ...) -> None: ...

class SettleResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[SettleResult]
    def __init__(self, results: _Optional[_Iterable[_Union[SettleResult, _Mapping]]] = ...) -> None: ...

class SettleResult(_message.Message):
    __slots__ = ("state", "next_attempt_at", "error")
    STATE_FIELD_NUMBER: _ClassVar[int]
    NEXT_ATTEMPT_AT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    state: _message_pb2.State
    next_attempt_at: _timestamp_pb2.Timestamp
    error: _message_pb2.ItemError
    def __init__(self, state: _Optional[_Union[_message_pb2.State, str]] = ..., next_attempt_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., error: _Optional[_Union[_message_pb2.ItemError, _Mapping]] = ...) -> None: ...

class ExtendRequest(_message.Message):
    __slots__ = ("queue", "receipts", "ack_timeout")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    RECEIPTS_FIELD_NUMBER: _ClassVar[int]
    ACK_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    queue: str
    receipts: _containers.RepeatedScalarFieldContainer[bytes]
    ack_timeout: _duration_pb2.Duration
    def __init__(self, queue: _Optional[str] = ..., receipts: _Optional[_Iterable[bytes]] = ..., ack_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ExtendResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[ExtendResult]
    def __init__(self, results: _Optional[_Iterable[_Union[ExtendResult, _Mapping]]] = ...) -> None: ...

class ExtendResult(_message.Message):
    __slots__ = ("ack_deadline", "error")
    ACK_DEADLINE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    ack_deadline: _timestamp_pb2.Timestamp
    error: _message_pb2.ItemError
    def __init__(self, ack_deadline: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., error: _Optional[_Union[_message_pb2.ItemError, _Mapping]] = ...) -> None: ...

class CommitRequest(_message.Message):
    __slots__ = ("request_id", "settle", "send")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SETTLE_FIELD_NUMBER: _ClassVar[int]
    SEND_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    settle: _containers.RepeatedCompositeFieldContainer[SettleRequest]
    send: _containers.RepeatedCompositeFieldContainer[SendRequest]
    def __init__(self, request_id: _Optional[str] = ..., settle: _Optional[_Iterable[_Union[SettleRequest, _Mapping]]] = ..., send: _Optional[_Iterable[_Union[SendRequest, _Mapping]]] = ...) -> None: ...

class CommitResponse(_message.Message):
    __slots__ = ("settled", "sent")
    SETTLED_FIELD_NUMBER: _ClassVar[int]
    SENT_FIELD_NUMBER: _ClassVar[int]
    settled: _containers.RepeatedCompositeFieldContainer[SettleResponse]
    sent: _containers.RepeatedCompositeFieldContainer[SendResponse]
    def __init__(self, settled: _Optional[_Iterable[_Union[SettleResponse, _Mapping]]] = ..., sent: _Optional[_Iterable[_Union[SendResponse, _Mapping]]] = ...) -> None: ...

class ConsumeRequest(_message.Message):
    __slots__ = ("open", "window", "settle", "extend", "drain")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    SETTLE_FIELD_NUMBER: _ClassVar[int]
    EXTEND_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    open: Open
    window: Window
    settle: SettleFrame
    extend: ExtendFrame
    drain: Drain
    def __init__(self, open: _Optional[_Union[Open, _Mapping]] = ..., window: _Optional[_Union[Window, _Mapping]] = ..., settle: _Optional[_Union[SettleFrame, _Mapping]] = ..., extend: _Optional[_Union[ExtendFrame, _Mapping]] = ..., drain: _Optional[_Union[Drain, _Mapping]] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("queue", "consumer", "window", "held")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    CONSUMER_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    queue: str
    consumer: str
    window: Window
    held: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, queue: _Optional[str] = ..., consumer: _Optional[str] = ..., window: _Optional[_Union[Window, _Mapping]] = ..., held: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Window(_message.Message):
    __slots__ = ("max_messages", "max_bytes")
    MAX_MESSAGES_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    max_messages: int
    max_bytes: int
    def __init__(self, max_messages: _Optional[int] = ..., max_bytes: _Optional[int] = ...) -> None: ...

class SettleFrame(_message.Message):
    __slots__ = ("seq", "settlements")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    SETTLEMENTS_FIELD_NUMBER: _ClassVar[int]
    seq: int
    settlements: _containers.RepeatedCompositeFieldContainer[Settlement]
    def __init__(self, seq: _Optional[int] = ..., settlements: _Optional[_Iterable[_Union[Settlement, _Mapping]]] = ...) -> None: ...

class ExtendFrame(_message.Message):
    __slots__ = ("seq", "receipts", "ack_timeout")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    RECEIPTS_FIELD_NUMBER: _ClassVar[int]
    ACK_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    seq: int
    receipts: _containers.RepeatedScalarFieldContainer[bytes]
    ack_timeout: _duration_pb2.Duration
    def __init__(self, seq: _Optional[int] = ..., receipts: _Optional[_Iterable[bytes]] = ..., ack_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Drain(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ConsumeResponse(_message.Message):
    __slots__ = ("opened", "deliveries", "settled", "extended", "revoked", "go_away")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    DELIVERIES_FIELD_NUMBER: _ClassVar[int]
    SETTLED_FIELD_NUMBER: _ClassVar[int]
    EXTENDED_FIELD_NUMBER: _ClassVar[int]
    REVOKED_FIELD_NUMBER: _ClassVar[int]
    GO_AWAY_FIELD_NUMBER: _ClassVar[int]
    opened: Opened
    deliveries: Deliveries
    settled: SettledFrame
    extended: ExtendedFrame
    revoked: Revoked
    go_away: GoAway
    def __init__(self, opened: _Optional[_Union[Opened, _Mapping]] = ..., deliveries: _Optional[_Union[Deliveries, _Mapping]] = ..., settled: _Optional[_Union[SettledFrame, _Mapping]] = ..., extended: _Optional[_Union[ExtendedFrame, _Mapping]] = ..., revoked: _Optional[_Union[Revoked, _Mapping]] = ..., go_away: _Optional[_Union[GoAway, _Mapping]] = ...) -> None: ...

class Opened(_message.Message):
    __slots__ = ("window",)
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    window: Window
    def __init__(self, window: _Optional[_Union[Window, _Mapping]] = ...) -> None: ...

class Deliveries(_message.Message):
    __slots__ = ("deliveries",)
    DELIVERIES_FIELD_NUMBER: _ClassVar[int]
    deliveries: _containers.RepeatedCompositeFieldContainer[_message_pb2.Delivery]
    def __init__(self, deliveries: _Optional[_Iterable[_Union[_message_pb2.Delivery, _Mapping]]] = ...) -> None: ...

class SettledFrame(_message.Message):
    __slots__ = ("seq", "results")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    seq: int
    results: _containers.RepeatedCompositeFieldContainer[SettleResult]
    def __init__(self, seq: _Optional[int] = ..., results: _Optional[_Iterable[_Union[SettleResult, _Mapping]]] = ...) -> None: ...

class ExtendedFrame(_message.Message):
    __slots__ = ("seq", "results")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    seq: int
    results: _containers.RepeatedCompositeFieldContainer[ExtendResult]
    def __init__(self, seq: _Optional[int] = ..., results: _Optional[_Iterable[_Union[ExtendResult, _Mapping]]] = ...) -> None: ...

class Revoked(_message.Message):
    __slots__ = ("receipts", "reason")
    RECEIPTS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    receipts: _containers.RepeatedScalarFieldContainer[bytes]
    reason: str
    def __init__(self, receipts: _Optional[_Iterable[bytes]] = ..., reason: _Optional[str] = ...) -> None: ...

class GoAway(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...
