// Sends a notification for each earthquake to the queue "notifications" and prints one line of JSON for each that is
// stored.
//
// Settings, all optional: ACKWELL_ADDRESS, EARTHQUAKES (the file), FIRST and COUNT (which of its lines), RATE
// (notifications a second), TTL_SECONDS, DELAY_SECONDS.

import { createHash, randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { credentials, Metadata, status, type ServiceError } from "@grpc/grpc-js";
import { Message } from "./generated/ackwell/v1/message.js";
import { QueuesClient, SendRequest, type SendResponse, type SendResult } from "./generated/ackwell/v1/queues.js";

const env = process.env;
const ADDRESS = env.ACKWELL_ADDRESS ?? "127.0.0.1:7400";
const EARTHQUAKES = env.EARTHQUAKES ?? fileURLToPath(new URL("../../data/earthquakes.ndjson", import.meta.url));
const FIRST = Number(env.FIRST ?? 0);
const COUNT = Number(env.COUNT ?? Infinity);
const RATE = Number(env.RATE ?? Infinity);
const TTL_SECONDS = Number(env.TTL_SECONDS ?? 3600);
const DELAY_SECONDS = Number(env.DELAY_SECONDS ?? 2);

const STRONG = 4;
const CALL_MS = 15_000;
const SHORTEST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 5_000;
// Unreachable, or full for now. Where only the answer was lost, the requestId keeps a second try from storing twice.
const PASSING = [status.UNAVAILABLE, status.DEADLINE_EXCEEDED, status.RESOURCE_EXHAUSTED];

interface Earthquake {
  id: string;
  mag: number;
  place: string;
}

async function main(): Promise<void> {
  const queues = new QueuesClient(ADDRESS, credentials.createInsecure());
  const lines = (await readFile(EARTHQUAKES, "utf8")).trimEnd().split("\n");
  const started = performance.now();
  let sent = 0;
  for (const line of lines.slice(FIRST, FIRST + COUNT)) {
    const message = notification(JSON.parse(line));
    const { id } = await store(queues, message);
    report({ sent: id, sha256: createHash("sha256").update(message.body).digest("hex") });
    sent += 1;
    await sleep(Math.max(0, started + (sent / RATE) * 1000 - performance.now()));
  }
  report({ done: sent });
  queues.close();
}

/** A strong earthquake is told at once; the others may wait a little. None is told when it is old. */
function notification(earthquake: Earthquake): Message {
  const { id, mag, place } = earthquake;
  return Message.fromPartial({
    body: Buffer.from(JSON.stringify({ id, magnitude: mag, text: `Magnitude ${mag}, ${place}` })),
    contentType: "application/json",
    headers: { sender: hostname() },
    dedupId: id,
    ttl: { seconds: TTL_SECONDS },
    ...(mag < STRONG && { available: { $case: "delay", delay: { seconds: DELAY_SECONDS } } }),
  });
}

/** Stores one message, however long that takes. */
async function store(queues: QueuesClient, message: Message): Promise<SendResult> {
  const request = SendRequest.fromPartial({ queue: "notifications", messages: [message], requestId: randomUUID() });
  for (let pause = SHORTEST_PAUSE_MS; ; pause = Math.min(2 * pause, LONGEST_PAUSE_MS)) {
    try {
      const response = await send(queues, request);
      return response.results[0];
    } catch (error) {
      const { code, details } = error as ServiceError;
      if (!PASSING.includes(code)) {
        throw error;
      }
      console.error(`sending again in ${pause} ms: ${details}`);
    }
    await sleep(pause);
  }
}

function send(queues: QueuesClient, request: SendRequest): Promise<SendResponse> {
  const metadata = new Metadata({ waitForReady: true });
  const options = { deadline: Date.now() + CALL_MS };
  return new Promise((resolve, reject) => {
    queues.send(request, metadata, options, (error, response) => (error ? reject(error) : resolve(response)));
  });
}

function report(line: object): void {
  console.log(JSON.stringify(line));
}

await main();
