// CloudEvents 1.0 in binary mode: attributes in headers ce-*, the data is the body.

import { randomUUID } from "node:crypto";
import type { Message, StoredMessage } from "./message.js";

const PREFIX = "ce-";
const VERSION = "1.0";
const REQUIRED = ["id", "source", "type"] as const;
const OPTIONAL = ["subject", "time", "dataschema"] as const;

/** An event; attributes as in the specification, `time` in RFC 3339. */
export interface CloudEvent {
  /** Random where it is absent. */
  id?: string;
  source: string;
  type: string;
  subject?: string;
  time?: string;
  datacontenttype?: string;
  dataschema?: string;
  extensions?: Record<string, string>;
  data?: Uint8Array | string;
}

/** A message with the event in it; `fields` are further ones of the message. */
export function toMessage(event: CloudEvent, fields: Message = {}): Message {
  const attributes: Record<string, string | undefined> = { ...event.extensions, specversion: VERSION };
  for (const name of [...REQUIRED, ...OPTIONAL]) {
    attributes[name] = name === "id" ? (event.id ?? randomUUID()) : event[name];
  }
  const missing = REQUIRED.filter((name) => !attributes[name]);
  if (missing.length > 0) {
    throw new TypeError(`an event needs ${missing.join(", ")}`);
  }
  const entries = Object.entries(attributes).filter((entry): entry is [string, string] => Boolean(entry[1]));
  const headers = Object.fromEntries(entries.map(([name, value]) => [PREFIX + name, value]));
  return {
    ...fields,
    body: event.data ?? "",
    headers: { ...headers, ...fields.headers },
    contentType: event.datacontenttype,
  };
}

/** Whether a message carries an event. */
export function isCloudEvent(message: Pick<StoredMessage, "headers">): boolean {
  return `${PREFIX}specversion` in message.headers;
}

/** The event in a message. */
export function toCloudEvent(message: StoredMessage): CloudEvent & { id: string; data: Buffer } {
  const attributes: Record<string, string> = {};
  for (const [name, value] of Object.entries(message.headers)) {
    if (name.startsWith(PREFIX)) {
      attributes[name.slice(PREFIX.length)] = value;
    }
  }
  const { specversion, id, source, type, subject, time, dataschema, ...extensions } = attributes;
  if (specversion !== VERSION || !id || !source || !type) {
    throw new TypeError(`the message is no CloudEvent ${VERSION}: it needs headers ce-specversion, ce-id, ce-source, ce-type`);
  }
  const event = { id, source, type, subject, time, dataschema, datacontenttype: message.contentType };
  return { ...event, extensions, data: message.body };
}
