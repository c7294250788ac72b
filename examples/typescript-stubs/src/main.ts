// A worker with nothing but generated stubs: sends three orders, then consumes on a stream until SIGTERM.
//
// What the client library does besides: a new stream when this one breaks, with what is held, and handlers beside each other.

import { randomUUID } from "node:crypto";
import { credentials } from "@grpc/grpc-js";
import type { Delivery } from "./generated/ackwell/v1/message.js";
import { QueuesClient, SendRequest, type SendResponse, type Settlement } from "./generated/ackwell/v1/queues.js";

const queues = new QueuesClient(process.env.ACKWELL_ADDRESS ?? "127.0.0.1:7400", credentials.createInsecure());

function send(...bodies: string[]): Promise<SendResponse> {
  const messages = bodies.map((body) => ({ body: Buffer.from(body) }));
  // The id makes it safe to make the call again when its answer is lost.
  const request = SendRequest.fromPartial({ queue: "orders", messages, requestId: randomUUID() });
  return new Promise((resolve, reject) => {
    queues.send(request, (error, response) => (error ? reject(error) : resolve(response)));
  });
}

function settlement({ receipt, message }: Delivery): Settlement {
  const body = String(message?.body);
  if (body === "nothing") {
    return { receipt, outcome: { $case: "nack", nack: { reason: "there is nothing to do" } } };
  }
  console.log("received", body);
  return { receipt, outcome: { $case: "ack", ack: {} } };
}

for (const { id } of (await send("two discs", "a poster", "nothing")).results) {
  console.log("on disk as", id);
}

const stream = queues.consume();
const window = { maxMessages: 8, maxBytes: 0 };
stream.write({ frame: { $case: "open", open: { queue: "orders", consumer: "", window, held: [] } } });
process.once("SIGTERM", () => {
  stream.write({ frame: { $case: "drain", drain: {} } });
  // What is unsettled goes back, free of charge.
  stream.end();
});
let seq = 0;
for await (const { frame } of stream) {
  if (frame?.$case === "deliveries") {
    seq += 1;
    const settlements = frame.deliveries.deliveries.map(settlement);
    stream.write({ frame: { $case: "settle", settle: { seq, settlements } } });
  }
}
queues.close();
