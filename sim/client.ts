/**
 * A client: the real batcher and delivery (sdk-gen/typescript), over a simulated network. What its host hears is what the
 * whole simulation is judged by.
 */
import { EventType } from '#gen/sluice/event/v1/event_pb.js';
import { type BatchFailure, type Committed, Durability } from '#gen/sluice/ingest/v1/ingest_pb.js';
import type { IngestResult } from '../gateway/ingest/ingest.js';
import { KiB } from '../lib/units.js';
import { createBatcher } from '../sdk-gen/typescript/src/batcher.js';
import {
  createDelivery,
  type Delivery,
  type Durability as DurabilityName,
  type Link,
  type LinkEvents,
} from '../sdk-gen/typescript/src/delivery.js';
import { codeName, SluiceClientError } from '../sdk-gen/typescript/src/errors.js';
import type { GatewayNode } from './gateway.js';
import type { Downward, Upward } from './gateway-stream.js';
import type { History } from './history.js';
import type { Network, Pipe } from './network.js';
import { createProcess, type Process } from './process.js';
import { eventIds } from './stored.js';
import type { Weakness } from './weakness.js';
import type { World } from './world.js';

export interface ClientOptions {
  readonly name: string;
  /** What its batches are named by, with a number from 1. @default its own name, which no other process has */
  readonly batchIds: string | undefined;
  /** What it says of its first sends: 1 as it should, 0 as a host that does not count them, 2 as one that counts wrongly. */
  readonly firstAttempt: 0 | 1 | 2;
  readonly durability: DurabilityName;
  readonly weakness: Weakness;
  readonly commitTimeoutMs: number;
  readonly maxBatchesInFlight: number;
  readonly ackTimeoutMs: number;
  readonly batchEvents: number;
  /** The gateway that takes the next connection, undefined when none listens. */
  readonly route: () => GatewayNode | undefined;
}

export interface Client {
  readonly process: Process;
  /** Takes events: so many, as one batch or more. */
  track(events: number): void;
  /** Batches that are not settled. */
  readonly pending: number;
}

export function startClient(world: World, network: Network, history: History, options: ClientOptions): Client {
  const { name } = options;
  const process = createProcess(world, name);
  let ids = 0;
  let batchIds = 0;

  const { durability } = options;
  const open = (events: LinkEvents): Link => openLink(world, network, process, options, events);

  const delivery: Delivery = createDelivery({
    durability,
    commitTimeoutMs: options.commitTimeoutMs,
    maxBatchesInFlight: options.maxBatchesInFlight,
    maxBytesInFlight: 64 * KiB,
    retry: { baseMs: 100, capMs: 5_000 },
    ackTimeoutMs: options.ackTimeoutMs,
    connectTimeoutMs: 10_000,
    refusalGraceMs: 3_000,
    clock: { now: process.now, wall: process.wall, after: process.after },
    random: world.random,
    makeId: () => `${options.batchIds ?? name}-b${++batchIds}`,
    open,
    onAccepted({ batchId, bytes }, { accepted, rejections }) {
      world.trace?.(name, `has ${batchId} accepted`);
      const of = eventIds(bytes);
      const rejected = new Set(rejections.map((rejection) => rejection.index));
      history.refuse(of.filter((_, index) => rejected.has(index)));
      const taken = of.filter((_, index) => !rejected.has(index));
      history.told('accepted', taken);
      if (taken.length !== accepted) history.odd(`${batchId}: ${accepted} accepted of ${of.length}`);
    },
    onSettled({ batchId, bytes, acceptance }, outcome) {
      const of = eventIds(bytes);
      if (outcome.kind === 'refused') {
        world.trace?.(name, `is refused ${batchId}: ${outcome.message}`);
        return;
      }
      world.trace?.(name, `has ${batchId} ${durability}`);
      const rejected = new Set(acceptance?.rejections.map((rejection) => rejection.index));
      history.told(
        durability,
        of.filter((_, index) => !rejected.has(index)),
      );
    },
    onHungry: () => undefined,
    onError: () => undefined,
  });

  const batcher = createBatcher({
    batchBytes: 4_096,
    batchEvents: options.batchEvents,
    keepsUp: () => true,
    maxBatchBytes: () => delivery.limits.maxBatchBytes,
    maxBatchEvents: () => delivery.limits.maxBatchEvents,
    makeId: () => `${name}-e${++ids}`,
    onSealed: (batch) => {
      history.sent(eventIds(batch.bytes));
      delivery.add(batch);
    },
  });

  return {
    process,
    track(events) {
      process.deliver(0, () => {
        for (let i = 0; i < events; i++) {
          // Now and then one that the contract refuses.
          batcher.add({ type: EventType.CLICK, ...(world.random() < 0.02 ? { currency: 'no currency' } : {}) }, 0);
        }
        batcher.seal();
      });
    },
    get pending() {
      return delivery.stats().batches;
    },
  };
}

/** One stream, as ingest-stream.ts opens it. */
function openLink(
  world: World,
  network: Network,
  process: Process,
  options: Pick<ClientOptions, 'route' | 'durability' | 'weakness' | 'firstAttempt'>,
  events: LinkEvents,
): Link {
  let over = false;
  let cancelCut: (() => void) | undefined;
  const end = (error: SluiceClientError | undefined): void => {
    if (over) return;
    over = true;
    cancelCut?.();
    events.onEnd(error);
  };
  const pipe: Pipe<Upward> = network.connect<Upward, Downward>(process, options.route, {
    onMessage(message) {
      if (!over) tell(message, events);
    },
    onEnd: (broken) => end(broken ? new SluiceClientError('unavailable', 'the connection broke') : undefined),
  });
  if (options.durability === 'committed') {
    pipe.send({
      batch: new Uint8Array(),
      batchId: '',
      attempt: 0,
      sentAt: undefined,
      durability: Durability.COMMITTED,
    });
  }
  return {
    send({ bytes, batchId, attempt: number }) {
      const said = options.firstAttempt === 0 ? 0 : number + options.firstAttempt - 1;
      const attempt = options.weakness.attempt?.(said) ?? said;
      world.trace?.(process.name, `sends ${batchId} attempt ${attempt}`);
      const ms = process.wall();
      pipe.send({
        batch: bytes,
        batchId,
        attempt,
        sentAt: { seconds: BigInt(Math.floor(ms / 1_000)), nanos: (ms % 1_000) * 1_000_000 },
        durability: undefined,
      });
    },
    finish(withinMs) {
      if (over) return;
      pipe.end();
      cancelCut = process.after(withinMs, () => {
        pipe.reset();
        end(new SluiceClientError('deadline_exceeded', 'the gateway did not end a finished stream'));
      });
    },
    abort() {
      over = true;
      cancelCut?.();
      pipe.reset();
    },
  };
}

/** What a gateway's answers mean, as ingest-stream.ts reads them off the wire. */
function tell(message: Downward, events: LinkEvents): void {
  if (message.case === 'limits') {
    events.onLimits({ maxBatchBytes: 8_192, maxBatchEvents: 100, maxBytesInFlight: 64 * KiB, maxUncommitted: 64 });
  } else if (message.case === 'accepted') {
    const { batchId, accepted, rejected, rejections, position } = message.value as IngestResult;
    events.onAccepted(batchId, {
      accepted,
      rejected,
      rejections: rejections.map(({ index, field, code, message: text }) => ({
        index,
        field,
        code: String(code),
        message: text,
      })),
      position: position === undefined ? undefined : { shard: position.shard, sequence: position.sequence },
    });
  } else if (message.value.case === 'failed') {
    const { batchId, code, message: text, retryAfter } = message.value.value as BatchFailure;
    events.onFailed(batchId, {
      code: codeName(code),
      message: text,
      retryAfterMs:
        retryAfter === undefined ? undefined : Number(retryAfter.seconds) * 1_000 + retryAfter.nanos / 1_000_000,
    });
  } else if (message.value.case === 'committed') {
    const { upTo } = message.value.value as Committed;
    if (upTo !== undefined) events.onCommitted(upTo.shard, upTo.sequence);
  } else if (message.value.case === 'draining') events.onDraining();
}
