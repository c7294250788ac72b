"""Bodies sealed end to end: the same bytes as in every language, and what is refused."""

import base64
import json
import pathlib

import pytest

import ackwell
from ackwell import sealing

_VECTORS = pathlib.Path(__file__).parents[3] / "tests/conformance/sealing/vectors.json"


@pytest.fixture(scope="module")
def vectors():
    if not _VECTORS.exists():
        pytest.skip("outside of the repository")
    return json.loads(_VECTORS.read_text())


def test_sealed_bodies_are_those_of_every_language(vectors):
    """Promise: every language seals to the same bytes, and opens what another one sealed."""
    assert vectors["sealed"]
    for vector in vectors["sealed"]:
        nonce, body, expected = (base64.b64decode(vector[name]) for name in ("nonce", "body", "sealed"))
        plain = ackwell.Message(body, headers={"a": "b"}, content_type=vector["content_type"])
        sealed = sealing.Keyring(vector["key_id"], vectors["keys"])._seal(vector["queue"], plain, nonce)
        assert sealed.body == expected, vector["name"]
        assert sealed.headers == vector["headers"]
        opened = sealing.Keyring("2026-q3", vectors["keys"]).open(vector["queue"], sealed)
        assert (opened.body, opened.headers) == (body, {"a": "b"}), vector["name"]


def test_what_was_not_sealed_so_is_refused(vectors):
    """Promise: what was changed, or is for somebody else, is refused by a typed error that names the key and nothing else."""
    keyring = sealing.Keyring("2026-q4", vectors["keys"])
    assert vectors["refused"]
    for vector in vectors["refused"]:
        body = base64.b64decode(vector["body"])
        message = ackwell.Message(body, headers=vector["headers"], content_type=vector["content_type"])
        with pytest.raises(sealing.OpenError) as raised:
            keyring.open(vector["queue"], message)
        assert (raised.value.failure, raised.value.key_id) == (vector["failure"], vector["key_id"]), vector["name"]
        assert vector["key_id"] in str(raised.value)
        assert "two discs" not in str(raised.value)


def test_no_nonce_comes_twice(vectors):
    """Promise: each seal has a nonce of its own and costs 29 bytes, and the message that was given stays as it was."""
    keyring = sealing.Keyring("2026-q4", vectors["keys"])
    plain = ackwell.Message("two discs", ordering_key="k", headers={"a": "b"})
    sealed = [keyring.seal("orders", plain) for _ in range(100)]
    assert len({each.body[1:13] for each in sealed}) == 100
    assert {(len(each.body), each.ordering_key) for each in sealed} == {(9 + 29, "k")}
    assert keyring.open("orders", sealed[0]).text == "two discs"
    assert (plain.body, plain.headers) == ("two discs", {"a": "b"})


def test_unsealed_messages_are_opened_where_that_is_allowed(vectors):
    """Promise: a migration lets through what is not sealed, and nothing that claims to be."""
    keyring = sealing.Keyring("2026-q4", vectors["keys"], allow_unsealed=True)
    assert keyring.open("orders", ackwell.Message("plain")).text == "plain"
    with pytest.raises(sealing.OpenError):
        keyring.open("orders", ackwell.Message("plain", headers={"sealed-key": "2026-q4"}))


_KEY = bytes(32)


@pytest.mark.parametrize(
    ("current", "keys"),
    [
        ("none", {}),
        ("other", {"a": _KEY}),
        ("short", {"short": _KEY[1:]}),
        ("long", {"long": bytes(33)}),
        ("", {"": _KEY}),
        ("a b", {"a b": _KEY}),
        ("new\n", {"new\n": _KEY}),
        ("größe", {"größe": _KEY}),
        ("text", {"text": "AAAA"}),
        ("text", {"text": "no base64!"}),
        ("text", {"text": "A" * 43}),
        ("a", {"a": _KEY, "x" * 65: _KEY}),
    ],
)
def test_bad_keys_are_refused(current, keys):
    """Promise: a key that cannot be meant is refused where it is given."""
    with pytest.raises(ValueError, match="key"):
        sealing.Keyring(current, keys)


def test_message_is_sealed_once():
    """Promise: what is sealed already is told apart, not sealed again."""
    keyring = sealing.Keyring("a", {"a": _KEY})
    with pytest.raises(ValueError, match="sealed already"):
        keyring.seal("orders", keyring.seal("orders", "x"))
