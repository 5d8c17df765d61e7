/**
 * The cases that send event batches: into JetStream itself (ceiling), through a gateway (gateway), and through
 * everything into ClickHouse (e2e). They differ in which servers run.
 */
import type { Command } from 'commander';
import { ensureShards } from '../../lib/log-streams.js';
import { type Fleet, startFleet } from '../fleet.js';
import { measurePhase, type Phase, type PhaseOptions } from '../measure.js';
import type { LoadTarget } from '../protocol.js';
import { makeReport, type Report } from '../report.js';
import { profileArguments } from '../roles.js';
import { type Stack, withStack } from '../stack.js';
import { type BenchCase, type CaseOptions, caseCommand } from './case.js';

interface Servers {
  readonly gateway: boolean;
  readonly warehouse: boolean;
}

/** A shard of the ceiling's JetStream holds a whole run. */
const ceilingShardBytes = 24 * 1024 ** 3;

async function targetOf(stack: Stack, servers: Servers, options: CaseOptions): Promise<LoadTarget> {
  if (servers.gateway) {
    const { connections, streams } = options;
    return { kind: 'gateway', url: stack.gatewayUrl, key: stack.key, connections, streams };
  }
  const shards = await ensureShards(stack.nc, { shards: options.shards, replicas: 1, maxBytes: ceilingShardBytes });
  return { kind: 'log', natsUrl: stack.natsUrl, shards };
}

/** A phase at the highest rate, then one at half of what every part kept up with: or the one that was asked for. */
async function measureAll(
  stack: Stack,
  fleet: Fleet,
  options: CaseOptions,
  progress: PhaseOptions['progress'],
): Promise<Phase[]> {
  const shape = { warmUpSeconds: options.warmUp, seconds: options.seconds, progress };
  if (options.rate !== undefined) return [await measurePhase(stack, fleet, { ...shape, rate: options.rate })];
  const first = await measurePhase(stack, fleet, { ...shape, rate: 'max' });
  const sustained = Math.min(first.acked_events_per_s, first.stored_events_per_s ?? Number.POSITIVE_INFINITY);
  return [first, await measurePhase(stack, fleet, { ...shape, rate: sustained / 2 })];
}

/** @throws Error unless ClickHouse has every acknowledged event exactly once */
async function checkStored(stack: Stack, acked: number): Promise<void> {
  if (stack.warehouse === undefined) return;
  const { events, distinct } = await stack.warehouse.check();
  if (events !== acked || distinct !== acked) {
    throw new Error(`${acked} events acknowledged, but ${events} stored, ${distinct} of them distinct`);
  }
}

function ingestCase(name: string, summary: string, servers: Servers): BenchCase {
  const run = (options: CaseOptions, progress: PhaseOptions['progress']): Promise<Report> => {
    const gateways = servers.gateway ? 1 : 0;
    const workers = servers.warehouse ? options.workers : 0;
    const { shards, flags, telemetry, profile, batch, inFlight, seed } = options;
    progress('starting the servers');
    return withStack({ gateways, workers, shards, flags, telemetry, profile }, async (stack) => {
      const fleet = await startFleet({
        target: await targetOf(stack, servers, options),
        tenant: stack.tenant,
        batch,
        inFlight,
        seed,
        processes: options.loadProcesses,
        nodeArguments: profileArguments(profile, 'load'),
      });
      try {
        const phases = await measureAll(stack, fleet, options, progress);
        await checkStored(stack, phases.at(-1)?.total_events ?? 0);
        return makeReport({ case: name, phases, batch, bytesPerEvent: fleet.bytesPerEvent, seconds: options.seconds });
      } finally {
        await fleet.close();
      }
    });
  };
  return { name, summary, run };
}

export const e2eCommand = (): Command =>
  caseCommand(
    ingestCase('e2e', 'gRPC streams → gateway → JetStream → worker → ClickHouse; checks stored = acked = distinct', {
      gateway: true,
      warehouse: true,
    }),
  );

export const gatewayCommand = (): Command =>
  caseCommand(
    ingestCase('gateway', 'gRPC streams → gateway → JetStream, no worker', { gateway: true, warehouse: false }),
  );

export const ceilingCommand = (): Command =>
  caseCommand(
    ingestCase('ceiling', 'the same payloads published to JetStream directly: what a Node process can reach', {
      gateway: false,
      warehouse: false,
    }),
  );
