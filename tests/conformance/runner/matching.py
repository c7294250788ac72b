"""Compares what came with what a scenario expects, and fills variables in."""

import base64
import random
import time

# Fields whose text in scenarios is base64 on the wire.
BYTES_FIELDS = {"body", "data"}


class Mismatch(AssertionError):
    """What came is not what is expected."""


def filled(value, variables, key=None):
    """`value` with variables filled in and bytes encoded: as it goes over the wire."""
    if isinstance(value, str) and value.startswith("$") and not value.startswith("${"):
        name = value[1:]
        if name not in variables:
            raise Mismatch(f"no variable {value}; there are {sorted(variables)}")
        return variables[name]
    if key in BYTES_FIELDS and is_bytes(value):
        return encoded(value, variables)
    match value:
        case {"repeat": count, "of": item}:
            return [filled(item, variables | {"i": number}) for number in range(count)]
        case {"text": length}:
            return "x" * length
        case {"differs_from": other}:
            return {"differs_from": filled(other, variables, key)}
        case {"now_plus": span_ms}:
            return round(time.time() * 1000) + span_ms
    if isinstance(value, dict):
        return {name: filled(item, variables, name) for name, item in value.items()}
    if isinstance(value, list):
        return [filled(item, variables) for item in value]
    if isinstance(value, str):
        return text(value, variables)
    return value


def text(value, variables):
    """Variables within a text are written `${name}`."""
    for name, known in variables.items():
        value = value.replace("${" + name + "}", str(known))
    return value


def is_bytes(value):
    return isinstance(value, str) or (isinstance(value, dict) and bool({"size", "bytes"} & set(value)))


def encoded(value, variables):
    match value:
        case {"size": size}:
            data = random.Random(size).randbytes(size)
        case {"bytes": numbers}:
            data = bytes(numbers)
        case _:
            data = text(value, variables).encode()
    return base64.b64encode(data).decode()


def compare(expected, actual, where="answer"):
    """Raises where `actual` is not as `expected`."""
    match expected:
        case {"any": True}:
            check(actual is not None, where, "anything", actual)
        case {"absent": True}:
            check(actual is None, where, "nothing", actual)
        case {"differs_from": other}:
            check(actual is not None and actual != other, where, f"anything but {other!r}", actual)
        case {"one_of": choices}:
            check(actual in choices, where, f"one of {choices}", actual)
        case {"after": [time_ms, span_ms]}:
            check(isinstance(actual, int) and actual >= time_ms + span_ms, where, f"{time_ms} + {span_ms}", actual)
        case {"contains": part}:
            check(isinstance(actual, str) and part in actual, where, f"text with {part!r}", actual)
        case {"between": [low, high]}:
            check(isinstance(actual, (int, float)) and low <= actual <= high, where, f"{low}..{high}", actual)
        case {"length": [low, high]}:
            check(isinstance(actual, list) and low <= len(actual) <= high, where, f"{low}..{high} items", actual)
        case {"unordered": items}:
            compare_unordered(items, actual, where)
        case dict():
            check(isinstance(actual, dict), where, "an object", actual)
            for name, item in expected.items():
                compare(item, actual.get(name), f"{where}.{name}")
        case list():
            check(isinstance(actual, list) and len(actual) == len(expected), where, f"{len(expected)} items", actual)
            for index, item in enumerate(expected):
                compare(item, actual[index], f"{where}.{index}")
        case _:
            check(expected == actual and isinstance(expected, bool) == isinstance(actual, bool), where, repr(expected), actual)


def compare_unordered(items, actual, where):
    check(isinstance(actual, list) and len(actual) == len(items), where, f"{len(items)} items", actual)
    left = list(actual)
    for item in items:
        found = next((other for other in left if matches(item, other)), None)
        check(found is not None, where, f"an item like {item}", actual)
        left.remove(found)


def matches(expected, actual):
    try:
        compare(expected, actual)
    except Mismatch:
        return False
    return True


def check(holds, where, wanted, actual):
    if not holds:
        raise Mismatch(f"{where}: {short(wanted)} is expected, and it is {short(repr(actual))}")


def short(words):
    return words if len(words) <= 400 else f"{words[:400]}... ({len(words)} characters)"


def at(path, value):
    """What lies at `deliveries.0.receipt`."""
    for step in path.split("."):
        value = value[int(step)] if isinstance(value, list) else value[step]
    return value
