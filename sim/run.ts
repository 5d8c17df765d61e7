/**
 * One world, from its seed to its verdict: a phase in which things go wrong, and a calm one at whose end all must be at rest.
 */
import { createRandom, integer, pick } from '../lib/testing/batches.js';
import { type Client, startClient } from './client.js';
import { createDeadLetters, type DeadLetters } from './dead-letters.js';
import { type FaultTargets, inflict } from './faults.js';
import { type Fleet, startFleet } from './fleet.js';
import { type GatewayConfig, type GatewayNode, startGateway } from './gateway.js';
import { createHistory, type History } from './history.js';
import { type Evidence, judge, type WorldVerdict, watchCommits } from './judge.js';
import { createLog, type SimulatedLog } from './log.js';
import { createNetwork, type Network } from './network.js';
import { makePlan, type Plan, type PlanOptions } from './plan.js';
import { createSink, type SimulatedSink } from './sink.js';
import { type Weakness, type WeaknessName, weaknesses } from './weakness.js';
import { startWorker, type WorkerNode } from './worker.js';
import { createWorld, type Scribe, settleDown, type World } from './world.js';

export interface Run {
  readonly plan: Plan;
  readonly verdict: WorldVerdict;
  /** What happened, in number. */
  readonly steps: number;
  /** Virtual ms until all was at rest. */
  readonly ms: number;
}

export interface RunOptions extends PlanOptions {
  readonly trace?: Scribe | undefined;
  readonly weakness?: WeaknessName | undefined;
}

/** All must be at rest so long after the last fault, ms. */
const restMs = 30 * 60_000;
/** So often, so many ms apart, it must be seen at rest: what is late may still come. */
const looks = 6;
const lookMs = 6_000;
/** No request arrives later than this after it was sent, nor runs for longer, ms. */
const lateMs = 40_000;
/** Something that goes round in circles without time passing. */
const maxSteps = 150_000;

/** A number in [0, 1) that belongs to an id: what is wrong with an event stays wrong. */
function shareOf(id: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < id.length; i++) hash = Math.imul(hash ^ id.charCodeAt(i), 0x01000193);
  return (Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d) >>> 0) / 2 ** 32;
}

/** All that a world has, but for the processes in it. */
interface Stage {
  readonly options: RunOptions;
  readonly plan: Plan;
  readonly weakness: Weakness;
  readonly world: World;
  readonly history: History;
  readonly network: Network;
  readonly log: SimulatedLog;
  readonly sink: SimulatedSink;
  readonly letters: DeadLetters;
  readonly evidence: Evidence;
}

function setStage(seed: number, options: RunOptions): Stage {
  const weakness: Weakness = options.weakness === undefined ? { what: 'nothing' } : weaknesses[options.weakness];
  const random = createRandom(seed);
  const plan = makePlan(seed, random, { ...options, favour: weakness.worlds });
  const world = createWorld(random, plan.startMs, options.trace);
  const history = createHistory();
  const network = createNetwork(world);
  const log = createLog(world, { shards: plan.shards, maxBytes: plan.logMaxBytes, syncMs: plan.syncMs });
  const sink = createSink(world, { poisonous: (id) => shareOf(id) < plan.poison, weakness: weakness.sink ?? {} });
  const letters = createDeadLetters(world);
  const evidence = { history, log, sink, dead: letters.eventIds };
  return { options, plan, weakness, world, history, network, log, sink, letters, evidence };
}

function startGateways({ plan, weakness, world, log }: Stage): Fleet<GatewayNode> {
  const config: GatewayConfig = {
    shards: plan.shards,
    replicas: 1,
    shardMaxBytes: plan.logMaxBytes,
    maxBatchBytes: 8_192,
    maxBatchEvents: 100,
    maxBytesInFlight: 16_384,
    maxTenantBytesInFlight: 16_384,
    maxStreamBytesInFlight: 8_192,
    publishWindow: plan.publishWindow,
    publishTimeout: plan.publishTimeoutMs,
    coalesceBytes: 1_024,
    coalesceDelay: plan.coalesceDelayMs,
  };
  return startFleet(world.time, plan.gateways, (index, number) =>
    startGateway(world, log, { name: `gateway-${index}.${number}`, config, hedgeMs: plan.hedgeMs, weakness }),
  );
}

/** @param operator hears the alarms */
function startWorkers(stage: Stage, gateways: Fleet<GatewayNode>, operator: Operator): Fleet<WorkerNode> {
  const { options, plan, weakness, world, history, log, sink, letters, evidence } = stage;
  const sayCommitted = watchCommits(evidence);
  // Where no client waits for commits and the log forgets nothing, hints change nothing.
  const hinting = plan.committing > 0 || options.breakLog === true;
  return startFleet(world.time, plan.workers, (index, number) =>
    startWorker(world, log, sink, {
      name: `worker-${index}.${number}`,
      limits: { rows: plan.blockRows, bytes: 8_192, delayMs: plan.blockDelayMs },
      replayMs: plan.replayMs,
      maxBytes: plan.logMaxBytes,
      roundMs: plan.roundMs,
      accepted: (_, generation) => operator.accepted.has(generation),
      letters,
      onCommitted(shard, generation, sequence) {
        sayCommitted(shard, generation, sequence);
        if (hinting && log.up) for (const gateway of gateways.all) gateway.hint(shard, generation, sequence);
      },
      onStopped(shard, reason) {
        if (!log.lossy) history.odd(`shard ${shard} was stopped without a cause: ${reason}`);
        operator.call(shard);
      },
      weakness,
    }),
  );
}

function startClients({ plan, weakness, world, network, history }: Stage, gateways: Fleet<GatewayNode>): Fleet<Client> {
  const { random } = world;
  return startFleet(world.time, plan.clients, (index, number) =>
    startClient(world, network, history, {
      name: `client-${index}.${number}`,
      batchIds: index < plan.counting * plan.clients ? `counter-${index}` : undefined,
      firstAttempt: index < plan.counting * plan.clients ? pick(random, [0, 1, 2]) : 1,
      durability: index < plan.committing * plan.clients ? 'committed' : 'accepted',
      weakness,
      commitTimeoutMs: 30_000,
      maxBatchesInFlight: plan.maxBatchesInFlight,
      ackTimeoutMs: plan.ackTimeoutMs,
      batchEvents: plan.batchEvents,
      route: () => pick(random, gateways.all),
    }),
  );
}

/** Hears the alarm of a shard, and does what the message says. */
interface Operator {
  /** Streams made again that it has looked at. */
  readonly accepted: ReadonlySet<string>;
  call(shard: number): void;
}

/** @param removeStream the way of the book */
function createOperator({ world, log, sink }: Stage, removeStream: (shard: number) => void): Operator {
  const accepted = new Set<string>();
  const called = new Set<number>();
  return {
    accepted,
    call(shard) {
      if (called.has(shard)) return;
      called.add(shard);
      world.time.after(1_000 + world.random() * 20_000, () => {
        called.delete(shard);
        const stream = log.peek(shard);
        if (stream === undefined) return;
        const own = sink.parts.filter((part) => part.shard === shard && part.generation === stream.generation);
        if (own.length === 0) {
          world.trace?.('operator', `accepts ${stream.generation}`);
          accepted.add(stream.generation);
        } else removeStream(shard);
      });
    },
  };
}

/** A stage with its processes. */
interface Cast extends FaultTargets {
  readonly gateways: Fleet<GatewayNode>;
  readonly workers: Fleet<WorkerNode>;
  readonly clients: Fleet<Client>;
}

/** When batches are sent, and what goes wrong when. */
function schedule(cast: Cast): void {
  const { plan, world, clients } = cast;
  const { time, random } = world;
  for (let i = 0; i < plan.batches; i++) {
    const index = integer(random, 0, plan.clients - 1);
    const events = integer(random, 1, 2 * plan.batchEvents);
    time.after(random() * plan.safetyMs, () => clients.all[index]?.track(events));
  }
  for (let i = 0; i < plan.faultCount; i++) {
    const kind = pick(random, plan.faults);
    time.after(random() * plan.safetyMs, () => inflict(kind, cast));
  }
}

/** All that was sent is answered, and all that is in the log is loaded. */
function isAtRest({ plan, log, workers, clients }: Cast): boolean {
  const isLoaded = (shard: number): boolean => {
    const stream = log.peek(shard);
    if (stream === undefined || stream.last === 0) return true;
    return workers.all.some(({ process, committed }) => {
      const known = committed[shard];
      return process.alive && known?.generation === stream.generation && known.deferred >= stream.last;
    });
  };
  return (
    [...Array(plan.shards).keys()].every(isLoaded) &&
    clients.all.every((client) => !client.process.alive || client.pending === 0)
  );
}

/** Runs the world until it is done, or its time is over. */
async function run({ time }: World, end: number, done: () => boolean): Promise<void> {
  while (!done() && time.step(end)) {
    await settleDown();
    if (time.steps > maxSteps) return;
  }
}

/** Nothing goes wrong any more. @returns whether all comes to rest, and stays so for a while: what is late may still come */
async function calmDown(cast: Cast): Promise<boolean> {
  const { world, gateways, workers, clients } = cast;
  const { time } = world;
  world.trace?.('world', 'is calm');
  world.calm = true;
  for (const { process } of [...gateways.all, ...workers.all, ...clients.all]) process.thaw();
  let rested = 0;
  const look = (): void => {
    rested = isAtRest(cast) ? rested + 1 : 0;
    time.after(lookMs, look);
  };
  look();
  await run(world, time.now + restMs, () => rested > looks);
  return rested > looks;
}

export async function runWorld(seed: number, options: RunOptions = {}): Promise<Run> {
  const stage = setStage(seed, options);
  const { plan, world, network, log, sink } = stage;
  const { time } = world;
  /**
   * The book: end the workers first, and wait for what they have sent. A worker that is only frozen could go on later with a block
   * of the old stream, which nothing in the sink speaks against, when its batches have long since come by the new one.
   */
  const removeStream = (shard: number): void => {
    workers.all.forEach((_, index) => {
      workers.replace(index, lateMs + 5_000);
    });
    time.after(lateMs, () => log.remove(shard));
  };
  const gateways = startGateways(stage);
  const workers = startWorkers(stage, gateways, createOperator(stage, removeStream));
  const clients = startClients(stage, gateways);
  const cast: Cast = { world, plan, network, log, sink, gateways, workers, clients, removeStream };
  schedule(cast);

  await run(world, plan.safetyMs, () => false);
  const rested = await calmDown(cast);

  const verdict = judge(stage.evidence);
  const faults = [...verdict.faults];
  if (!rested) {
    const pending = clients.all.filter(({ process }) => process.alive).map((client) => client.pending);
    faults.push(
      `no rest within ${restMs / 60_000} min: ${pending.join(', ')} batches pending; ` +
        `shards loaded: ${workers.all.map(({ committed }) => JSON.stringify(committed)).join(' ')}`,
    );
  }
  return { plan, verdict: { ...verdict, faults }, steps: time.steps, ms: time.now };
}
