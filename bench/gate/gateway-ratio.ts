/**
 * How much CPU a raw JetStream publisher and nats-server need for an event, to what the gateway and nats-server need for the same
 * payloads: closed loop, batches of 500, few connections, in turns on one nats-server.
 */
import { ceilingRoot, emptyStreams, ensureCeilingStreams } from '../ceiling-streams.js';
import { type Fleet, type FleetOptions, startFleet } from '../fleet.js';
import { measurePhase } from '../measure.js';
import { cpuTogether } from '../medians.js';
import { withStack } from '../stack.js';

export interface GatewayRatioOptions {
  readonly rounds: number;
  /** Length of each window. */
  readonly seconds: number;
  readonly progress: (line: string) => void;
}

const shards = 2;
const shape = { batch: 500, inFlight: 64, processes: 1, seed: 1 };
/** A gateway that was just started costs half as much again: its code is not compiled yet. */
const warmUpSeconds = 3;
const betweenSeconds = 0.3;

/** @returns the ratio of each round */
export async function gatewayRatios(options: GatewayRatioOptions): Promise<number[]> {
  const { rounds, seconds, progress } = options;
  const servers = { gateways: 1, workers: 0, shards, flags: {}, telemetry: true, profile: undefined };
  return withStack(servers, async (stack) => {
    const known = await ensureCeilingStreams(stack.nc, shards);
    const fleets: Fleet[] = [];
    const start = async (target: FleetOptions['target']): Promise<Fleet> => {
      const fleet = await startFleet({ ...shape, target, tenant: stack.tenant });
      fleets.push(fleet);
      return fleet;
    };
    try {
      const streams = { connections: 2, streams: 2 };
      const gateway = await start({ kind: 'gateway', url: stack.gatewayUrl, key: stack.key, ...streams });
      const log = { kind: 'log', natsUrl: stack.natsUrl, shards: known, subjectRoot: ceilingRoot } as const;
      const publisher = await start(log);
      /** CPU seconds per million events, of the sender's side and nats-server. */
      const turn = async (name: 'gateway' | 'ceiling', warmUp: number, length: number): Promise<number> => {
        const roles = name === 'gateway' ? ['nats', 'gateway'] : ['nats'];
        const window = { rate: 'max', warmUpSeconds: warmUp, seconds: length, roles, name, progress } as const;
        const phase = await measurePhase(stack, name === 'gateway' ? gateway : publisher, window);
        await emptyStreams(stack.nc, known);
        return cpuTogether(phase, name === 'gateway' ? ['gateway', 'nats'] : ['load', 'nats']);
      };
      await turn('gateway', warmUpSeconds, 0.5);
      await turn('ceiling', warmUpSeconds / 2, 0.5);
      const ratios: number[] = [];
      for (let round = 0; round < rounds; round++) {
        const ceiling = await turn('ceiling', betweenSeconds, seconds);
        ratios.push(ceiling / (await turn('gateway', betweenSeconds, seconds)));
      }
      return ratios;
    } finally {
      for (const fleet of fleets) await fleet.close();
    }
  });
}
