// What a consumer holds and says, over as many streams as that takes. No I/O.
//
// Rules, the same in every language's client:
//
// - A delivery is held from its arrival until its settlement is confirmed. A new stream is opened with everything held, and
//   settlements without an answer are said again.
// - Drain: what no handler has begun is released; the others are settled as they end.
// - Revoked: a handler that runs is told to stop, and nothing is said about its delivery any more.
// - Go away: nothing new comes on this stream; when nothing is held any more it is closed, and another one opened.

import { fromItem, UNAVAILABLE } from "./errors.js";
import type {
  ConsumeRequest,
  ConsumeResponse,
  Open,
  Revoked,
  Settlement,
  SettledFrame,
} from "./generated/ackwell/v1/queues.js";
import { type Delivery, deliveryFromWire } from "./message.js";
import { release } from "./outcome.js";

// As in the API.
const MAX_SETTLEMENTS = 1000;
// Where a refusal has no hint of its own.
const SAY_AGAIN_MS = 500;

/** A delivery that is held. */
export class Job {
  begun = false;
  settlement: Settlement | undefined;

  constructor(readonly delivery: Delivery) {}

  get key(): string {
    return this.delivery.receipt.toString("latin1");
  }
}

/** What a frame asks the driver of the session to do. */
export interface Effects {
  arrived: Job[];
  revoked: Job[];
  /** To be given to `sayAgain` after `againMs`. */
  again: Job[];
  againMs: number;
}

/** One consumer of one queue. */
export class Session {
  draining = false;
  /** The other side goes away, or we do: this stream ends when nothing is held. */
  leaving = false;
  private readonly jobs = new Map<string, Job>();
  // Not said yet on this stream; said and not answered, by the number of their frame.
  private unsaid: Job[] = [];
  private readonly unanswered = new Map<bigint, Job[]>();
  private seq = 0n;
  private drainUnsaid = false;

  constructor(
    readonly queue: string,
    private readonly consumer: string,
    private readonly window: number,
    private readonly warn: (text: string) => void,
  ) {}

  /** Nothing is held. */
  get idle(): boolean {
    return this.jobs.size === 0;
  }

  /** Nothing more will be said on this stream. */
  get over(): boolean {
    return this.leaving && this.idle;
  }

  /** The first frame of a new stream. */
  open(): ConsumeRequest {
    this.unanswered.clear();
    const jobs = [...this.jobs.values()];
    this.unsaid = jobs.filter((job) => job.settlement);
    this.drainUnsaid = this.leaving = this.draining;
    const open: Open = {
      queue: this.queue,
      consumer: this.consumer,
      window: { maxMessages: this.window, maxBytes: 0n },
      held: jobs.map((job) => job.delivery.receipt),
    };
    return { frame: { $case: "open", open } };
  }

  /** What is to be said next, if anything is. */
  nextFrame(): ConsumeRequest | undefined {
    if (this.drainUnsaid) {
      this.drainUnsaid = false;
      return { frame: { $case: "drain", drain: {} } };
    }
    const jobs = this.unsaid.splice(0, MAX_SETTLEMENTS);
    if (jobs.length === 0) {
      return undefined;
    }
    this.seq += 1n;
    this.unanswered.set(this.seq, jobs);
    const settlements = jobs.flatMap((job) => job.settlement ?? []);
    return { frame: { $case: "settle", settle: { seq: this.seq, settlements } } };
  }

  /** Whether a handler may begin: not when it was released or revoked meanwhile. */
  begin(job: Job): boolean {
    job.begun = !job.settlement && this.jobs.has(job.key);
    return job.begun;
  }

  /** The handler has ended. Does nothing for what is settled or no longer held. */
  settle(job: Job, settlement: Settlement): void {
    if (!job.settlement && this.jobs.has(job.key)) {
      job.settlement = settlement;
      this.unsaid.push(job);
    }
  }

  /** Takes nothing more, and releases what no handler has begun. */
  drain(): void {
    if (!this.draining) {
      this.draining = this.leaving = this.drainUnsaid = true;
      this.release([...this.jobs.values()].filter((job) => !job.begun));
    }
  }

  /** Releases what handlers still run for; the jobs whose handlers are to be stopped. */
  giveUp(): Job[] {
    const running = [...this.jobs.values()].filter((job) => !job.settlement);
    this.release(running);
    return running;
  }

  /** Settlements that could not be carried out are said once more, unless a new stream did it meanwhile. */
  sayAgain(jobs: Job[]): void {
    const said = new Set([...this.unsaid, ...[...this.unanswered.values()].flat()]);
    this.unsaid.push(...jobs.filter((job) => this.jobs.has(job.key) && !said.has(job)));
  }

  /** Reads one frame of the other side. */
  take({ frame }: ConsumeResponse): Effects {
    const effects: Effects = { arrived: [], revoked: [], again: [], againMs: 0 };
    switch (frame?.$case) {
      case "deliveries":
        for (const delivery of frame.deliveries.deliveries) {
          this.arrive(new Job(deliveryFromWire(this.queue, delivery)), effects);
        }
        break;
      case "settled":
        this.confirm(frame.settled, effects);
        break;
      case "revoked":
        this.revoke(frame.revoked, effects);
        break;
      case "goAway":
        this.leaving = true;
        break;
      default:
        break;
    }
    return effects;
  }

  private arrive(job: Job, effects: Effects): void {
    if (this.jobs.has(job.key)) {
      return;
    }
    this.jobs.set(job.key, job);
    if (this.draining) {
      this.release([job]);
    } else {
      effects.arrived.push(job);
    }
  }

  private confirm(settled: SettledFrame, effects: Effects): void {
    const jobs = this.unanswered.get(settled.seq) ?? [];
    this.unanswered.delete(settled.seq);
    jobs.forEach((job, index) => {
      const said = settled.results[index]?.error;
      const error = said && fromItem(said);
      if (error && UNAVAILABLE.has(error.reason ?? "")) {
        effects.again.push(job);
        effects.againMs = Math.max(effects.againMs, error.retryAfterMs ?? SAY_AGAIN_MS);
        return;
      }
      if (error) {
        this.warn(`message ${job.delivery.id} is not settled: ${error.message}`);
      }
      this.jobs.delete(job.key);
    });
  }

  private revoke(revoked: Revoked, effects: Effects): void {
    for (const receipt of revoked.receipts) {
      const key = receipt.toString("latin1");
      const job = this.jobs.get(key);
      // What is settled already is answered by itself.
      if (job && !job.settlement) {
        this.warn(`message ${job.delivery.id} will come again: ${revoked.reason}`);
        this.jobs.delete(key);
        effects.revoked.push(job);
      }
    }
  }

  private release(jobs: Job[]): void {
    for (const job of jobs) {
      this.settle(job, release(job.delivery));
    }
  }
}
