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
// The answer may have been lost, not the message: the requestId makes asking again safe.
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
    const result = await send(queues, request);
    if (result !== undefined && result.error === undefined) {
      return result;
    }
    if (result?.error !== undefined && result.error.retryAfter === undefined) {
      throw new Error(`${message.dedupId} was refused: ${result.error.reason}: ${result.error.message}`);
    }
    if (result !== undefined) {
      // A refusal is an answer, too, and would be given again for this id.
      request.requestId = randomUUID();
    }
    await sleep(pause);
  }
}

/** Makes one call. Undefined when the other side cannot be reached at the moment. */
async function send(queues: QueuesClient, request: SendRequest): Promise<SendResult | undefined> {
  try {
    const response = await new Promise<SendResponse>((resolve, reject) => {
      const metadata = new Metadata({ waitForReady: true });
      const options = { deadline: Date.now() + CALL_MS };
      queues.send(request, metadata, options, (error, answer) => (error ? reject(error) : resolve(answer)));
    });
    return response.results[0];
  } catch (error) {
    if (!PASSING.includes((error as ServiceError).code)) {
      throw error;
    }
    console.error(`sending again: ${(error as ServiceError).details}`);
    return undefined;
  }
}

function report(line: object): void {
  console.log(JSON.stringify(line));
}

await main();
