// Client for Ackwell queues.

export {
  type CallOptions,
  Client,
  type ClientOptions,
  type Commit,
  DEFAULT_ADDRESS,
  type Outgoing,
  type PeekOptions,
  type ReceiveOptions,
  type SentOrError,
  type Stats,
} from "./client.js";
export { type CloudEvent, isCloudEvent, toCloudEvent, toMessage } from "./cloudevents.js";
export { Consumer, type ConsumerOptions, type Handler } from "./consumer.js";
export { AckwellError, CallError, ClosedError, Reason } from "./errors.js";
export { type Attempt, Delivery, type Message, type State, type StoredMessage } from "./message.js";
export type { Sent } from "./outbox.js";
export { ack, nack, Reject, Release, Retry, reject, release, type Settled, type Settlement } from "./outcome.js";
export { Producer, type ProducerOptions, type Taken } from "./producer.js";
export { Keyring, type KeyringOptions, OpenError, type OpenFailure, SEALED_KEY_HEADER, SEALED_QUEUE_HEADER } from "./sealing.js";
export { currentTrace, type TraceContext, withTrace } from "./trace.js";
