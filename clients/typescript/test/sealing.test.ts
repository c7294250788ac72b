// Bodies sealed end to end: the same bytes as in every language, and what is refused.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { Keyring, OpenError, SEALED_KEY_HEADER } from "../src/index.js";
import { fromWire, toWire } from "../src/message.js";
import { boundTo, keyOf, sealBody } from "../src/sealing.js";

interface Vectors {
  keys: Record<string, string>;
  sealed: {
    name: string;
    key_id: string;
    queue: string;
    headers: Record<string, string>;
    content_type: string;
    nonce: string;
    body: string;
    sealed: string;
  }[];
  refused: {
    name: string;
    queue: string;
    content_type: string;
    headers: Record<string, string>;
    body: string;
    failure: string;
    key_id: string;
  }[];
}

// From build/test.
const file = new URL("../../../../tests/conformance/sealing/vectors.json", import.meta.url);
const known = JSON.parse(readFileSync(file, "utf8")) as Vectors;
const keyring = new Keyring("2026-q4", known.keys);

function stored(body: Buffer | string, headers: Record<string, string>, contentType = "") {
  return fromWire(toWire({ body, headers, contentType }, {}));
}

// Promise: every language seals to the same bytes, and opens what another one sealed.
test("sealed bodies are those of every language", () => {
  assert(known.sealed.length > 0);
  for (const { name, key_id, queue, headers, content_type, nonce, body, sealed } of known.sealed) {
    const key = keyOf(key_id, known.keys[key_id] ?? "");
    const plain = Buffer.from(body, "base64");
    const made = sealBody(key, Buffer.from(nonce, "base64"), plain, boundTo(key_id, queue, content_type));
    assert.equal(made.toString("base64"), sealed, name);
    const again = new Keyring(key_id, known.keys).seal(queue, { body: plain, contentType: content_type, headers: { a: "b" } });
    assert.deepEqual(again.headers, headers, name);
    const opened = keyring.open(queue, stored(made, headers, content_type));
    assert.deepEqual([opened.body, opened.headers], [plain, { a: "b" }], name);
  }
});

// Promise: what was changed, or is for somebody else, is refused by a typed error that names the key and nothing else.
test("what was not sealed so is refused", () => {
  assert(known.refused.length > 0);
  for (const { name, queue, content_type, headers, body, failure, key_id } of known.refused) {
    const message = stored(Buffer.from(body, "base64"), headers, content_type);
    assert.throws(
      () => keyring.open(queue, message),
      (error: unknown) => {
        assert(error instanceof OpenError, name);
        assert.deepEqual([error.failure, error.keyId ?? ""], [failure, key_id], name);
        assert(error.message.includes(key_id) && !error.message.includes("two discs"), error.message);
        return true;
      },
      name,
    );
  }
});

// Promise: each seal has a nonce of its own and costs 29 bytes, and the message that was given stays as it was.
test("no nonce comes twice", () => {
  const plain = { body: "two discs", orderingKey: "k", contentType: "text/plain", headers: { a: "b" } };
  const nonces = new Set<string>();
  for (let n = 0; n < 100; n += 1) {
    const sealed = keyring.seal("orders", plain);
    assert(Buffer.isBuffer(sealed.body) && sealed.body.length === 9 + 29 && sealed.orderingKey === "k");
    nonces.add(sealed.body.subarray(1, 13).toString("hex"));
    assert.equal(keyring.open("orders", fromWire(toWire(sealed, {}))).body.toString(), "two discs");
  }
  assert.equal(nonces.size, 100);
  assert.deepEqual(plain.headers, { a: "b" });
});

// Promise: a migration lets through what is not sealed, and nothing that claims to be.
test("unsealed messages are opened where that is allowed", () => {
  const migrating = new Keyring("2026-q4", known.keys, { allowUnsealed: true });
  assert.equal(migrating.open("orders", stored("plain", {})).body.toString(), "plain");
  assert.throws(() => migrating.open("orders", stored("plain", { [SEALED_KEY_HEADER]: "2026-q4" })), OpenError);
});

// Promise: a key that cannot be meant is refused where it is given.
test("bad keys are refused", () => {
  const key = new Uint8Array(32);
  const bad: [string, Record<string, Uint8Array | string>][] = [
    ["none", {}],
    ["other", { a: key }],
    ["short", { short: key.subarray(1) }],
    ["long", { long: new Uint8Array(33) }],
    ["", { "": key }],
    ["a b", { "a b": key }],
    ["new\n", { "new\n": key }],
    ["größe", { größe: key }],
    ["text", { text: "AAAA" }],
    ["text", { text: "no base64!" }],
    ["text", { text: "A".repeat(43) }],
    ["a", { a: key, ["x".repeat(65)]: key }],
  ];
  for (const [current, keys] of bad) {
    assert.throws(() => new Keyring(current, keys), TypeError, current);
  }
  const ring = new Keyring("a", { a: key });
  assert.throws(() => ring.seal("orders", ring.seal("orders", "x")), /sealed already/);
});
