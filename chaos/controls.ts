/**
 * Control runs: with one protection left out, the harness must find what it is there to find. Each protection has a seam of its name in
 * the code (`isLeftOut`, lib/failpoint.ts), which leave-out.ts switches in the processes of the run; no setting of production does.
 */
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Protection } from '../lib/failpoint.js';

export interface Control {
  readonly protection: Protection;
  /** What the run must show. */
  readonly shows: 'lost' | 'doubled';
  /** Faults that bring it out soon; the default of `--only`. */
  readonly faults: readonly string[];
}

export const controls: Readonly<Record<Protection, Control>> = {
  'insert-if-absent': { protection: 'insert-if-absent', shows: 'doubled', faults: ['stop:worker'] },
  'retry-check': {
    protection: 'retry-check',
    shows: 'doubled',
    faults: ['drop-replies:client-gateway', 'cut:client-gateway'],
  },
  'event-ids': { protection: 'event-ids', shows: 'lost', faults: ['kill:client'] },
  'ack-before-durable': { protection: 'ack-before-durable', shows: 'lost', faults: ['half-open:gateway-nats'] },
};

/** Arguments to node for a role of a control run. @param build the compiled project */
export const withoutProtection = (build: string, control: Control | undefined): string[] =>
  control === undefined
    ? []
    : ['--import', `${pathToFileURL(join(build, 'chaos/leave-out.js'))}?${control.protection}`];
