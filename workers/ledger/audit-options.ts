/** What an audit is given, its sums, and what its parts share. */
import type { JetStreamManager } from '@nats-io/jetstream';
import type { NatsConnection } from '@nats-io/nats-core';
import type { Logger } from '../../lib/logger.js';
import type { DeadLedger } from '../loader/dead-scan.js';
import type { FaultList, ReportFault } from './faults.js';
import type { LedgerStore } from './ledger-store.js';
import type { StreamFront } from './stream-front.js';

export interface AuditOptions {
  readonly nc: NatsConnection;
  readonly jsm: JetStreamManager;
  readonly store: LedgerStore;
  /** The streams to look at: those of the installation, and any other EV_ stream that holds messages. */
  readonly shards: readonly number[];
  /** AUDIT-8. Why workers do not load this shard; undefined when they may. */
  readonly stopped: (shard: number) => Promise<string | undefined>;
  /** What is wrong with the installation as a whole: each is a fault. @default none */
  readonly problems?: readonly string[];
  readonly dead: DeadLedger;
  /** Workers drop old days (`--retention-days` is not 0): the first blocks may be gone. */
  readonly retention: boolean;
  readonly progress: (text: string) => void;
  readonly logger: Logger;
}

/** A stream as it was when the audit began (AUDIT-1). */
export interface StreamEnd {
  readonly generation: string;
  readonly first: number;
  readonly last: number;
  readonly messages: number;
}

/** Sums of events. */
export interface Ledger {
  accepted: number;
  stored: number;
  duplicate: number;
  dead: number;
  inFlight: number;
  /** Rows that `sluice erase` removed: accepted once, and gone. */
  erased: number;
}

export interface ShardAudit extends Ledger {
  readonly shard: number;
  readonly generation: string;
  /** The stream is there now and its shard is in use; otherwise ClickHouse alone is looked at. */
  readonly live: boolean;
  blocks: number;
  /** Messages of the log that were read, and the range that was in it. */
  messages: number;
  first: number;
  last: number;
  /** Blocks before the first that is there: dropped with their days by retention. */
  dropped: number;
}

export const emptyLedger = (): Ledger => ({
  accepted: 0,
  stored: 0,
  duplicate: 0,
  dead: 0,
  inFlight: 0,
  erased: 0,
});

/** What the audit of one shard shares. */
export interface ShardScope {
  readonly options: AuditOptions;
  readonly shard: number;
  readonly generation: string;
  readonly stream: string;
  /** Sums so far. */
  readonly sums: ShardAudit;
  readonly report: ReportFault;
  readonly faults: FaultList;
  readonly front: StreamFront;
}
