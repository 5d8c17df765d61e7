/**
 * How long it took until something worked again: from the fault (or from its end, when it lasts) until the first success through what
 * was hit. Successes are those of probes that were sent after the fault: something that was under way before it would look like a
 * recovery.
 */
import type { Prober } from './prober.js';
import type { ProcessSlot, Role } from './slot.js';
import type { Watermark } from './watermark.js';

export interface Spread {
  readonly n: number;
  /** ms. */
  readonly p50: number;
  readonly p95: number;
  readonly max: number;
}

export interface Recoveries {
  /** What was hit, by fault: measures the time from now, or counts a hang when it never comes. */
  measure(fault: string, role: Role, slot: ProcessSlot | undefined): Promise<void>;
  /** A client was acknowledged something after its restart. */
  firstAck(slot: ProcessSlot, at: number): void;
  /** All that was measured has come to an end. */
  settled(): Promise<void>;
  /** Hit and not working again yet, clients aside. */
  readonly open: number;
  /** Measurements that did not end in time, a line each. */
  readonly hangs: readonly string[];
  byFault(): ReadonlyMap<string, Spread>;
  byRole(): ReadonlyMap<Role, Spread>;
}

export interface RecoveryOptions {
  readonly prober: Prober;
  readonly watermark: Watermark;
  readonly shards: number;
  readonly gateways: () => readonly ProcessSlot[];
  readonly withinMs: number;
}

export function createRecoveries(options: RecoveryOptions): Recoveries {
  const { prober, watermark, shards } = options;
  const samples: { fault: string; role: Role; ms: number }[] = [];
  const hangs: string[] = [];
  const running = new Set<Promise<void>>();
  let open = 0;
  const clients = new Map<ProcessSlot, { fault: string; since: number; done: (at: number) => void }[]>();
  const anyGateway = (): number[] => options.gateways().map(({ port }) => port);

  const stored = async (shard: number | undefined, stop: AbortSignal): Promise<number> => {
    const probe = await prober.until({ ports: anyGateway, shard }, stop);
    return await watermark.reached(probe.shard, probe.sequence, stop);
  };

  /** Date.now() of the success. */
  const success = async (
    role: Role,
    slot: ProcessSlot | undefined,
    fault: string,
    since: number,
    stop: AbortSignal,
  ): Promise<number> => {
    switch (role) {
      case 'gateway': {
        const through = slot === undefined ? anyGateway : () => [slot.port];
        return (await prober.until({ ports: through }, stop)).at;
      }
      case 'nats':
        return (await prober.until({ ports: anyGateway }, stop)).at;
      case 'clickhouse':
        return await stored(undefined, stop);
      case 'worker':
        return Math.max(...(await Promise.all(Array.from({ length: shards }, (_, shard) => stored(shard, stop)))));
      case 'client':
        return await new Promise((resolve, reject) => {
          if (slot === undefined) return reject(new Error('a client has to be named'));
          const waiting = clients.get(slot) ?? [];
          clients.set(slot, [...waiting, { fault, since, done: resolve }]);
          stop.addEventListener('abort', () => reject(stop.reason), { once: true });
        });
      default:
        role satisfies never;
        throw new Error(`unknown role ${String(role)}`);
    }
  };

  const spread = (values: readonly number[]): Spread => {
    const sorted = [...values].sort((a, b) => a - b);
    const at = (share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
    return { n: sorted.length, p50: at(0.5), p95: at(0.95), max: sorted.at(-1) ?? 0 };
  };
  const grouped = <K>(keyOf: (sample: (typeof samples)[number]) => K): Map<K, Spread> => {
    const groups = new Map<K, number[]>();
    for (const sample of samples) groups.set(keyOf(sample), [...(groups.get(keyOf(sample)) ?? []), sample.ms]);
    return new Map([...groups].map(([key, values]) => [key, spread(values)]));
  };

  return {
    measure(fault, role, slot) {
      const since = Date.now();
      const stop = new AbortController();
      if (role !== 'client') open++;
      const patience = setTimeout(() => stop.abort(new Error('too late')), options.withinMs);
      const run = success(role, slot, fault, since, stop.signal)
        .then((at) => {
          samples.push({ fault, role, ms: Math.max(0, at - since) });
        })
        .catch(() => {
          hangs.push(
            `${fault}${slot === undefined ? '' : ` (${slot.name})`} at ${new Date(since).toISOString()}: nothing worked through it for ${options.withinMs / 1_000} s`,
          );
        })
        .finally(() => {
          clearTimeout(patience);
          if (role !== 'client') open--;
          running.delete(run);
        });
      running.add(run);
      return run;
    },
    firstAck(slot, at) {
      for (const { done } of clients.get(slot) ?? []) done(at);
      clients.delete(slot);
    },
    async settled() {
      await Promise.all(running);
    },
    get open() {
      return open;
    },
    hangs,
    byFault: () => grouped(({ fault }) => fault),
    byRole: () => grouped(({ role }) => role),
  };
}
