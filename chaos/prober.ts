/**
 * Single events that are sent to find out when something works again: through a given gateway, into a given shard, until one is
 * accepted. They are part of the history like all others (source 0).
 */
import { create, type MessageInitShape, toJson } from '@bufbuild/protobuf';
import { EventSchema } from '#gen/sluice/event/v1/event_pb.js';
import { shardOf } from '../lib/contract/shard.js';
import { makeEvent } from './events.js';
import type { Journal } from './journal.js';

export const proberSource = 0;

export interface ProberOptions {
  readonly tenant: string;
  readonly key: string;
  readonly shards: number;
  readonly journal: Journal;
}

export interface ProbeTarget {
  /** Ports of gateways, asked before each try; tried in turn. */
  readonly ports: () => readonly number[];
  /** Undefined: any. */
  readonly shard?: number | undefined;
}

export interface Probe {
  readonly shard: number;
  readonly sequence: number;
  /** Date.now() of the answer. */
  readonly at: number;
}

export interface Prober {
  /** Sends the last accepted batch of each shard again, as a client does that did not hear of it. */
  again(ports: readonly number[]): Promise<void>;
  /** Sends until one is accepted. Rejects when the signal says stop. */
  until(target: ProbeTarget, stop: AbortSignal): Promise<Probe>;
}

const tryMs = 1_000;
const pauseMs = 25;

export function createProber({ tenant, key, shards, journal }: ProberOptions): Prober {
  let n = 0;
  let batches = 0;

  const nextId = (shard: number | undefined): string => {
    for (;;) {
      const id = `probe-${process.pid}-${batches++}`;
      if (shard === undefined || shardOf(tenant, id, shards) === shard) return id;
    }
  };

  /** The last that was accepted of each shard. */
  const accepted = new Map<number, { batchId: string; first: number; attempt: number }>();

  async function send(port: number, batchId: string, first: number, attempt: number): Promise<Probe | undefined> {
    const { occurredAt, ...event } = makeEvent(proberSource, first);
    const time = occurredAt as { seconds: bigint; nanos: number };
    const body = {
      batchId,
      attempt,
      events: [
        toJson(
          EventSchema,
          create(EventSchema, { ...event, occurredAt: time } as MessageInitShape<typeof EventSchema>),
        ),
      ],
    };
    journal.sent({ batchId, first, count: 1, attempt });
    try {
      const answer = await fetch(`http://127.0.0.1:${port}/v1/events/batch`, {
        method: 'POST',
        headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
        body: JSON.stringify(body),
        signal: AbortSignal.timeout(tryMs),
      });
      const result = (await answer.json()) as { accepted?: number; position?: { shard: number; sequence: string } };
      if (answer.status !== 202 || result.accepted !== 1 || result.position === undefined) return undefined;
      const { shard, sequence } = result.position;
      journal.accepted(batchId, { shard, sequence: BigInt(sequence) });
      accepted.set(shard, { batchId, first, attempt });
      return { shard, sequence: Number(sequence), at: Date.now() };
    } catch {
      // Not there yet, or gone in between: then it is unknown.
      return undefined;
    }
  }

  return {
    async again(ports) {
      await Promise.all(
        [...accepted].map(async ([shard, batch], i) => {
          const port = ports[i % ports.length];
          // Noted first, so that no attempt is used twice.
          accepted.set(shard, { ...batch, attempt: batch.attempt + 1 });
          if (port !== undefined) await send(port, batch.batchId, batch.first, batch.attempt + 1);
        }),
      );
    },
    async until(target, stop) {
      for (let tries = 0; ; tries++) {
        stop.throwIfAborted();
        const ports = target.ports().filter((port) => port > 0);
        const port = ports[tries % ports.length];
        const probe = port === undefined ? undefined : await send(port, nextId(target.shard), n++, 1);
        if (probe !== undefined) return probe;
        await new Promise((resolve) => setTimeout(resolve, pauseMs));
      }
    },
  };
}
