"""What a producer has taken and not seen confirmed."""

from ackwell._outbox import Entry, Outbox
from ackwell.errors import Unreachable
from ackwell.v1 import message_pb2, queues_pb2


def outbox(limit_seconds=30, max_messages=10):
    return Outbox("orders", max_messages, 1 << 20, limit_seconds)


def entry(body=b"x"):
    return Entry(message_pb2.Message(body=body), object(), len(body))


def opened(max_messages=100):
    window = queues_pb2.ProduceWindow(max_messages=max_messages)
    return queues_pb2.ProduceResponse(opened=queues_pb2.ProduceOpened(producer="p", window=window))


def confirm(seq, *results):
    items = [
        queues_pb2.ProduceResult(seq=at, index=index, result=queues_pb2.SendResult(**result)) for at, index, result in results
    ]
    return queues_pb2.ProduceResponse(confirm=queues_pb2.ProduceConfirm(through_seq=seq, results=items))


def bodies(frame):
    return [message.body for message in frame.batch.messages]


def test_unconfirmed_batch_keeps_its_seq_on_the_next_stream():
    """Promise: what is sent again after a broken connection is known again, and not stored twice."""
    producer = outbox()
    assert producer.open().open.producer == ""
    producer.take(opened())
    producer.take_in(entry())
    first = producer.next_frame()
    assert producer.open().open.producer == "p"
    assert producer.next_frame() is None, "the window is not known yet"
    producer.take(opened())
    producer.take_in(entry(b"y"))
    assert producer.next_frame() == first
    assert bodies(producer.next_frame()) == [b"y"]


def test_nothing_is_said_beyond_the_window():
    """Promise: a producer slows down when it is told to."""
    producer = outbox()
    producer.open()
    producer.take(opened(max_messages=2))
    entries = [entry(bytes([number])) for number in range(5)]
    for each in entries:
        producer.take_in(each)
    first = producer.next_frame()
    assert len(first.batch.messages) == 2
    assert producer.next_frame() is None
    confirms = producer.take(confirm(first.batch.seq, (1, 0, {"id": "a"}), (1, 1, {"id": "b", "duplicate": True})))
    assert [(one, sent.id, sent.duplicate) for one, sent in confirms.results] == [
        (entries[0], "a", False),
        (entries[1], "b", True),
    ]
    assert bodies(producer.next_frame()) == [b"\2", b"\3"]


def test_batch_that_was_said_is_said_again_in_a_smaller_window():
    """Promise: a window that shrank while the connection was broken stops nothing for ever."""
    producer = outbox()
    producer.open()
    producer.take(opened())
    for _ in range(5):
        producer.take_in(entry())
    first = producer.next_frame()
    producer.open()
    producer.take(opened(max_messages=2))
    assert producer.next_frame() == first
    assert producer.next_frame() is None


def test_room_is_bounded_and_a_large_message_goes_alone():
    """Promise: a producer holds no more than it was told to."""
    producer = outbox(max_messages=2)
    assert producer.has_room(5 << 20)
    producer.take_in(entry())
    assert not producer.has_room(5 << 20)
    assert producer.has_room(1)
    producer.take_in(entry())
    assert not producer.has_room(1)


def test_message_refused_for_the_moment_is_said_again():
    """Promise: a broker that is away for a moment is a pause, and a message that it will never take is an error."""
    producer = outbox()
    producer.open()
    producer.take(opened())
    passing, final = entry(b"passing"), entry(b"final")
    producer.take_in(passing)
    producer.take_in(final)
    producer.next_frame()
    errors = [message_pb2.ItemError(reason=reason) for reason in ("BROKER_UNAVAILABLE", "MESSAGE_TOO_LARGE")]
    confirms = producer.take(confirm(1, *[(1, index, {"error": error}) for index, error in enumerate(errors)]))
    ((refused, sent),) = confirms.results
    assert (refused, sent.error.reason) == (final, "MESSAGE_TOO_LARGE")
    assert not producer.idle
    producer.say_again(confirms.again)
    again = producer.next_frame()
    assert (again.batch.seq, bodies(again)) == (2, [b"passing"])


def test_late_messages_fail_with_the_stream():
    """Promise: nobody waits for ever for a confirm."""
    error = Unreachable("gone", code="UNAVAILABLE")
    patient = outbox()
    patient.take_in(entry())
    assert patient.fail(error, everything=False) == []
    hasty = outbox(limit_seconds=-1)
    first = entry()
    hasty.take_in(first)
    ((failed, sent),) = hasty.fail(error, everything=False)
    assert (failed, sent.error) == (first, error)
    assert hasty.idle
