"""What both drivers share: commands in, answers and events out. The protocol is in tests/conformance/README.md."""

import base64
import datetime
import json
import os
import threading

import ackwell
from ackwell import cloudevents, sealing

_lock = threading.Lock()
# Not print: a line is written as a whole, and at once.
_stdout = os.fdopen(os.dup(1), "wb", buffering=0)

UTC = datetime.UTC
TEXTS = ("content_type", "ordering_key", "fairness_key", "dedup_id")


def say(line):
    data = json.dumps(line, ensure_ascii=False).encode() + b"\n"
    with _lock:
        while data:
            data = data[_stdout.write(data) :]


def answer(command, ok):
    say({"id": command["id"], "ok": ok})


def refuse(command, error):
    say({"id": command["id"], "error": error_json(error)})


def unsupported(command):
    say({"id": command["id"], "unsupported": True})


def error_json(error):
    shown = {"message": str(error), "code": "CLIENT"}
    if isinstance(error, ackwell.CallError):
        shown = {"message": error.message, "code": error.code or "UNKNOWN"}
        if error.reason:
            shown["reason"] = error.reason
        if error.retry_after is not None:
            shown["retry_after_ms"] = round(error.retry_after * 1000)
    elif isinstance(error, ackwell.Cancelled):
        shown["code"] = "CANCELLED"
    elif isinstance(error, TimeoutError):
        shown["code"] = "DEADLINE_EXCEEDED"
    return shown


def optional_seconds(command, field):
    return command[field] / 1000 if field in command else None


def message(shown):
    """The library's message."""
    fields = {name: shown[name] for name in (*TEXTS, "priority", "max_attempts") if name in shown}
    if "deliver_at_ms" in shown:
        fields["deliver_at"] = datetime.datetime.fromtimestamp(shown["deliver_at_ms"] / 1000, UTC)
    return ackwell.Message(
        body=base64.b64decode(shown.get("body", "")),
        headers=shown.get("headers", {}),
        delay=optional_seconds(shown, "delay_ms"),
        ttl=optional_seconds(shown, "ttl_ms"),
        **fields,
    )


def message_json(message):
    body = message.body.encode() if isinstance(message.body, str) else message.body
    shown = {
        "body": encoded(body),
        "headers": dict(message.headers),
        "attempts": message.attempts,
        "deliveries": message.deliveries,
        "history": [
            {"outcome": attempt.outcome, "reason": attempt.reason, "consumer": attempt.consumer} for attempt in message.history
        ],
        "stored_at_ms": at_ms(message.stored_at),
        "next_attempt_at_ms": at_ms(message.next_attempt_at),
        "priority": message.priority,
        "max_attempts": message.max_attempts,
        "state": message.state.name if message.state else None,
    }
    shown |= {name: getattr(message, name) or None for name in (*TEXTS, "id", "dead_reason")}
    return without_none(shown)


def delivery_json(delivery):
    return {
        "receipt": encoded(delivery.receipt),
        "message": message_json(delivery.message),
        "ack_deadline_at_ms": at_ms(delivery.ack_deadline),
        "fencing_token": delivery.fencing_token,
    }


def settlements(shown):
    return [settlement(one) for one in shown]


def settlement(shown):
    receipt, reason = base64.b64decode(shown["receipt"]), shown.get("reason", "")
    match shown["outcome"]:
        case "ack":
            return ackwell.ack(receipt)
        case "nack":
            return ackwell.nack(receipt, reason, optional_seconds(shown, "delay_ms"))
        case "release":
            return ackwell.release(receipt)
        case "reject":
            return ackwell.reject(receipt, reason)


def sent_json(sent):
    return {"error": error_json(sent.error)} if sent.error else {"id": sent.id, "duplicate": sent.duplicate}


def settled_json(settled):
    if settled.error:
        return {"error": error_json(settled.error)}
    state = settled.state.name if settled.state else None
    return without_none({"state": state, "next_attempt_at_ms": at_ms(settled.next_attempt_at)})


def extended_json(extended):
    if isinstance(extended, Exception):
        return {"error": error_json(extended)}
    return {"ack_deadline_at_ms": at_ms(extended)}


def cancelled_json(error):
    return {"error": error_json(error)} if error else {}


def committed_json(committed):
    return {
        "settled": [[settled_json(one) for one in items] for items in committed.settled],
        "sent": [[sent_json(one) for one in items] for items in committed.sent],
    }


def stats_json(stats):
    return {name: getattr(stats, name) for name in ("ready", "delayed", "in_flight", "dead", "consumers")}


def raise_outcome(finish):
    """Ends a handler as the runner says."""
    reason = finish.get("reason", "")
    match finish["outcome"]:
        case "raise":
            raise RuntimeError(reason)
        case "retry":
            raise ackwell.Retry(optional_seconds(finish, "delay_ms"), reason)
        case "reject":
            raise ackwell.Reject(reason)
        case "release":
            raise ackwell.Release


def to_message(command):
    event = dict(command["cloud_event"])
    event["data"] = base64.b64decode(event.get("data", ""))
    return {"message": message_json(cloudevents.to_message(cloudevents.CloudEvent(**event)))}


def to_cloud_event(command):
    event = cloudevents.from_message(message(command["message"]))
    names = ("id", "source", "type", "subject", "time", "datacontenttype", "dataschema")
    shown = {name: getattr(event, name) or None for name in names}
    shown |= {"data": encoded(event.data), "extensions": dict(event.extensions) or None}
    return {"cloud_event": without_none(shown)}


def seal(command):
    return {"message": message_json(keyring(command).seal(command["queue"], message(command["message"])))}


def open_sealed(command):
    return {"message": message_json(keyring(command).open(command["queue"], message(command["message"])))}


def keyring(command):
    return sealing.Keyring(command["current"], command["keys"], allow_unsealed=command.get("allow_unsealed", False))


def encoded(data):
    return base64.b64encode(data).decode()


def receipts(command):
    return [base64.b64decode(receipt) for receipt in command["receipts"]]


def at_ms(value):
    return None if value is None else round(value.timestamp() * 1000)


def without_none(shown):
    return {name: value for name, value in shown.items() if value is not None}


def leave(code):
    """Ends the process although a thread still reads stdin."""
    os._exit(code)
