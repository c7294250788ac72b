// Bodies sealed end to end: brokers, sidecars and volumes only ever have AES-256-GCM ciphertext. docs/reference/sealing.md has the
// format, the same in every language.

import { createCipheriv, createDecipheriv, createSecretKey, type KeyObject, randomBytes } from "node:crypto";
import { AckwellError } from "./errors.js";
import { bytes, type Message, type StoredMessage } from "./message.js";

/** Says that a body is sealed, and with the key of which id. */
export const SEALED_KEY_HEADER = "sealed-key";
/** Says for which queue it was sealed: for those to which messages of other queues are moved. */
export const SEALED_QUEUE_HEADER = "sealed-queue";

const VERSION = 1;
const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const ALGORITHM = "aes-256-gcm";
const KEY_ID = /^[A-Za-z0-9._-]{1,64}$/;

const WORDS = {
  NOT_SEALED: `the message is not sealed: it has no header ${SEALED_KEY_HEADER}`,
  UNKNOWN_KEY: "the keyring does not have the key that the message was sealed with",
  UNKNOWN_FORMAT: "the message was sealed in a format that this version does not know",
  CHANGED: "the message is not what was sealed for this queue with this key",
} as const;

/**
 * Why a message was not opened. CHANGED: it is not what was sealed for this queue: changed, cut off, of another queue, or by another
 * key of the same id.
 */
export type OpenFailure = keyof typeof WORDS;

/** A message could not be opened. Says which key it names, and nothing of what it contains. */
export class OpenError extends AckwellError {
  override name = "OpenError";

  constructor(
    readonly failure: OpenFailure,
    /** Absent where the message names none that could be one. */
    readonly keyId?: string,
  ) {
    super(`${WORDS[failure]} [${failure}${keyId === undefined ? "" : `, key ${keyId}`}]`);
  }
}

export interface KeyringOptions {
  /** Messages that are not sealed are opened as they are: only while senders change over to sealing. */
  allowUnsealed?: boolean;
}

/** Seals with the current key, and opens with every key that it has. */
export class Keyring {
  private readonly keys: Map<string, KeyObject>;
  private readonly sealingKey: KeyObject;

  /** `keys` are 32 bytes, or base64 of them, by their ids: 1 to 64 of `A-Z a-z 0-9 . _ -`. */
  constructor(
    private readonly current: string,
    keys: Record<string, Uint8Array | string>,
    private readonly options: KeyringOptions = {},
  ) {
    this.keys = new Map(Object.entries(keys).map(([id, key]) => [id, keyOf(id, key)]));
    const sealingKey = this.keys.get(current);
    if (!sealingKey) {
      throw new TypeError(`the keyring does not have its current key ${JSON.stringify(current)}`);
    }
    this.sealingKey = sealingKey;
  }

  /** The message with its body sealed, to be sent to this queue. */
  seal(queue: string, message: Message | Uint8Array | string): Message {
    const plain: Message = typeof message === "string" || message instanceof Uint8Array ? { body: message } : message;
    if (plain.headers && SEALED_KEY_HEADER in plain.headers) {
      throw new TypeError(`the message has a header ${SEALED_KEY_HEADER}: it is sealed already`);
    }
    const bound = boundTo(this.current, queue, plain.contentType);
    const body = sealBody(this.sealingKey, randomBytes(NONCE_BYTES), bytes(plain.body ?? ""), bound);
    const headers = { ...plain.headers, [SEALED_KEY_HEADER]: this.current, [SEALED_QUEUE_HEADER]: nameOf(queue) };
    return { ...plain, body, headers };
  }

  /** The message that was sealed for this queue; throws an `OpenError`. */
  open<M extends Pick<StoredMessage, "body" | "headers" | "contentType">>(queue: string, message: M): M {
    const { [SEALED_KEY_HEADER]: keyId, [SEALED_QUEUE_HEADER]: _, ...headers } = message.headers;
    if (keyId === undefined) {
      if (this.options.allowUnsealed) {
        return message;
      }
      throw new OpenError("NOT_SEALED");
    }
    if (!KEY_ID.test(keyId)) {
      throw new OpenError("UNKNOWN_KEY");
    }
    return { ...message, headers, body: this.opened(keyId, message.body, boundTo(keyId, queue, message.contentType)) };
  }

  private opened(keyId: string, sealed: Buffer, bound: Buffer): Buffer {
    const key = this.keys.get(keyId);
    if (!key) {
      throw new OpenError("UNKNOWN_KEY", keyId);
    }
    if (sealed.length > 0 && sealed[0] !== VERSION) {
      throw new OpenError("UNKNOWN_FORMAT", keyId);
    }
    if (sealed.length < 1 + NONCE_BYTES + TAG_BYTES) {
      throw new OpenError("CHANGED", keyId);
    }
    try {
      return openBody(key, sealed, bound);
    } catch {
      throw new OpenError("CHANGED", keyId);
    }
  }
}

/** @internal Version, nonce, ciphertext and tag. No nonce may come twice with a key. */
export function sealBody(key: KeyObject, nonce: Buffer, body: Buffer, bound: Buffer): Buffer {
  const cipher = createCipheriv(ALGORITHM, key, nonce, { authTagLength: TAG_BYTES }).setAAD(bound);
  const ciphertext = Buffer.concat([cipher.update(body), cipher.final()]);
  return Buffer.concat([Buffer.of(VERSION), nonce, ciphertext, cipher.getAuthTag()]);
}

function openBody(key: KeyObject, sealed: Buffer, bound: Buffer): Buffer {
  const nonce = sealed.subarray(1, 1 + NONCE_BYTES);
  const decipher = createDecipheriv(ALGORITHM, key, nonce, { authTagLength: TAG_BYTES }).setAAD(bound);
  decipher.setAuthTag(sealed.subarray(sealed.length - TAG_BYTES));
  // What `update` gives is not to be used before `final` has seen the tag.
  return Buffer.concat([decipher.update(sealed.subarray(1 + NONCE_BYTES, sealed.length - TAG_BYTES)), decipher.final()]);
}

/** Who sends from another namespace writes it before the queue's name. */
function nameOf(queue: string): string {
  return queue.slice(queue.lastIndexOf("/") + 1);
}

/** @internal What is authenticated besides the body. */
export function boundTo(keyId: string, queue: string, contentType = ""): Buffer {
  const texts = [keyId, nameOf(queue), contentType].flatMap((text) => {
    const encoded = Buffer.from(text, "utf8");
    const length = Buffer.alloc(4);
    length.writeUInt32BE(encoded.length);
    return [length, encoded];
  });
  return Buffer.concat([Buffer.of(VERSION), ...texts]);
}

/** @internal */
export function keyOf(id: string, key: Uint8Array | string): KeyObject {
  if (!KEY_ID.test(id)) {
    throw new TypeError(`${JSON.stringify(id)} is no id of a key: 1 to 64 letters, digits, ".", "_" and "-"`);
  }
  const raw = typeof key === "string" ? fromBase64(id, key.trim()) : key;
  if (raw.length !== KEY_BYTES) {
    throw new TypeError(`key ${id} has ${raw.length} bytes: it needs ${KEY_BYTES}, as \`openssl rand -base64 32\` makes them`);
  }
  return createSecretKey(raw);
}

function fromBase64(id: string, text: string): Buffer {
  const raw = Buffer.from(text, "base64");
  if (raw.toString("base64") !== text) {
    throw new TypeError(`key ${id} is no base64`);
  }
  return raw;
}
