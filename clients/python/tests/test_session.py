"""What a consumer holds and says."""

from ackwell import Reject, Retry
from ackwell._session import Session
from ackwell.outcome import ack, settlement_after
from ackwell.v1 import message_pb2, queues_pb2


def session():
    return Session("orders", "c", window=4)


def deliveries(*receipts):
    items = [message_pb2.Delivery(receipt=receipt, message=message_pb2.Message(id=str(receipt))) for receipt in receipts]
    return queues_pb2.ConsumeResponse(deliveries=queues_pb2.Deliveries(deliveries=items))


def settled(seq, *reasons):
    results = [queues_pb2.SettleResult(error=message_pb2.ItemError(reason=reason) if reason else None) for reason in reasons]
    return queues_pb2.ConsumeResponse(settled=queues_pb2.SettledFrame(seq=seq, results=results))


def test_unconfirmed_settlement_is_said_again_on_the_next_stream():
    """Promise: what was settled while the connection broke is settled by the same receipt on the next one."""
    consumer = session()
    consumer.open()
    (job,) = consumer.take(deliveries(b"r")).arrived
    assert consumer.begin(job)
    consumer.settle(job, ack(job.delivery))
    first = consumer.next_frame().settle
    opening = consumer.open().open
    again = consumer.next_frame().settle
    assert list(opening.held) == [b"r"]
    assert again.settlements == first.settlements
    assert again.seq != first.seq
    consumer.take(settled(again.seq, None))
    assert consumer.idle


def test_drain_releases_what_no_handler_has_begun():
    """Promise: stopping costs no message an attempt."""
    consumer = session()
    consumer.open()
    running, waiting = consumer.take(deliveries(b"1", b"2")).arrived
    consumer.begin(running)
    consumer.drain()
    assert consumer.next_frame().HasField("drain")
    (released,) = consumer.next_frame().settle.settlements
    assert released.receipt == b"2"
    assert released.HasField("release")
    assert not consumer.begin(waiting)
    assert not consumer.over
    # What comes nevertheless goes back.
    consumer.take(deliveries(b"3"))
    (released,) = consumer.next_frame().settle.settlements
    assert released.receipt == b"3"


def test_revoked_delivery_is_not_settled():
    """Promise: nothing is said about a message that somebody else holds."""
    consumer = session()
    consumer.open()
    (job,) = consumer.take(deliveries(b"r")).arrived
    consumer.begin(job)
    effects = consumer.take(queues_pb2.ConsumeResponse(revoked=queues_pb2.Revoked(receipts=[b"r"])))
    assert effects.revoked == [job]
    consumer.settle(job, ack(job.delivery))
    assert consumer.next_frame() is None
    assert consumer.idle


def test_settlement_that_could_not_be_carried_out_is_said_again():
    """Promise: an ack is not lost because a broker was away for too long."""
    consumer = session()
    consumer.open()
    (job,) = consumer.take(deliveries(b"r")).arrived
    consumer.begin(job)
    consumer.settle(job, ack(job.delivery))
    effects = consumer.take(settled(consumer.next_frame().settle.seq, "BROKER_UNAVAILABLE"))
    assert effects.again == [job]
    assert consumer.next_frame() is None
    consumer.say_again(effects.again)
    assert consumer.next_frame().settle.settlements[0].receipt == b"r"
    # Any other refusal is final.
    consumer.take(settled(2, "RECEIPT_EXPIRED"))
    assert consumer.idle


def test_go_away_ends_the_stream_when_nothing_is_held():
    """Promise: a sidecar that stops gets the settlements of what it delivered."""
    consumer = session()
    consumer.open()
    (job,) = consumer.take(deliveries(b"r")).arrived
    consumer.take(queues_pb2.ConsumeResponse(go_away=queues_pb2.GoAway()))
    assert not consumer.over
    consumer.settle(job, ack(job.delivery))
    consumer.take(settled(consumer.next_frame().settle.seq, None))
    assert consumer.over
    consumer.open()
    assert not consumer.over


def test_settlements_are_said_in_frames_of_at_most_1000():
    """Promise: no frame is refused for its size."""
    consumer = session()
    consumer.open()
    receipts = [str(number).encode() for number in range(1500)]
    for job in consumer.take(deliveries(*receipts)).arrived:
        consumer.begin(job)
        consumer.settle(job, ack(job.delivery))
    assert [len(consumer.next_frame().settle.settlements) for _ in range(2)] == [1000, 500]


def test_what_a_handler_raises_is_its_outcome():
    """Promise: an error nacks with its text, and Retry and Reject say what they say."""
    consumer = session()
    (job,) = consumer.take(deliveries(b"r")).arrived
    outcome = lambda raised: settlement_after(job.delivery, raised)  # noqa: E731
    assert outcome(None).HasField("ack")
    assert outcome(ValueError("no such disc")).nack.reason == "ValueError: no such disc"
    assert not outcome(ValueError()).nack.HasField("delay")
    assert outcome(Retry(0)).nack.HasField("delay")
    assert outcome(Retry(1.5, "later")).nack.delay.ToMilliseconds() == 1500
    assert outcome(Reject("x" * 5000)).reject.reason == "x" * 1024
    assert outcome(SystemExit()).HasField("release")
