"""What brokers of scenarios are told, unless a scenario says otherwise: a Queue's defaults, with times that can be waited for."""

import copy

NAMESPACE = "shop"
QUEUE = "orders"

DEFAULTS = {
    "ackTimeoutSeconds": 30,
    "maxProcessingSeconds": 1800,
    "maxAttempts": 10,
    "backoff": {"policy": 1, "minSeconds": 1, "maxSeconds": 1},
    "maxMessages": 0,
    "maxBytes": 0,
    "maxMessageBytes": 1 << 20,
    "maxInFlight": 100_000,
    "deadSeconds": 1_209_600,
    "dedupWindowSeconds": 600,
    "deadLetterExpired": True,
}


def queue_config(overrides, shard_addresses):
    """The broker's cold-start file; `overrides` has names as in the API (`max_attempts`)."""
    settings = copy.deepcopy(DEFAULTS)
    for name, value in overrides.items():
        name = camel_case(name)
        if name not in settings:
            raise ValueError(f"a queue has no setting {name}")
        settings[name] = value
    return {
        "namespace": NAMESPACE,
        "name": QUEUE,
        "generation": 1,
        "shardAddresses": shard_addresses,
        "settings": settings,
    }


def camel_case(name):
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)
