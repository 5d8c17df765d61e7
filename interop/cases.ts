/**
 * What each foreign client must do, and what must come of it. A client answers a case with one {@link CaseOutcome}; every event id begins
 * with `<run>-<case>-`, so that the rows of a case can be counted afterwards.
 */

/** What a client is asked to do. Programs get it as JSON in their only argument. */
export interface Task {
  /** Which of a program's clients, e.g. `grpc-go`. */
  readonly client: string;
  /** host:port of the gateway. */
  readonly address: string;
  /** host:port of the proxy that loses its first answer. */
  readonly swallow: string;
  readonly key: string;
  readonly wrongKey: string;
  /** Begins every event id and batch id. */
  readonly run: string;
  /** Calls of `flood` that must be accepted, one event each, and calls beside them that must be refused. */
  readonly floodCalls: number;
  readonly floodRefused: number;
  /** Bytes of a batch that is too large. */
  readonly oversizeBytes: number;
  /** How long a client sends in `drain` and `kill`, ms. */
  readonly restartMillis: number;
  readonly cases: readonly CaseName[];
}

export interface CaseOutcome {
  readonly case: CaseName;
  /** Events that were acknowledged. */
  readonly accepted: number;
  /** Events, or calls, that were refused. */
  readonly refused: number;
  /** gRPC status of the call, e.g. UNAUTHENTICATED; '' when it succeeded. */
  readonly code: string;
  /** What else there is to say: the message of an error, the field of a rejection. */
  readonly note: string;
}

interface Expectation {
  readonly about: string;
  readonly accepted: number | 'some';
  readonly refused?: number;
  readonly code?: string;
  /** Must be in the note. */
  readonly note?: string;
}

export const floodCalls = 1_000;
export const floodRefused = 100;

export const cases = {
  unary: { about: 'one call, two events', accepted: 2 },
  stream: { about: 'a stream of 300 batches of two events, 2.4 MB together', accepted: 600 },
  'wrong-key': { about: 'a key that does not exist', accepted: 0, code: 'UNAUTHENTICATED' },
  'bad-event': { about: 'one good and one bad event', accepted: 1, refused: 1, note: 'currency' },
  'too-large': { about: 'a batch above the limit of bytes', accepted: 0, code: 'INVALID_ARGUMENT' },
  deadline: { about: 'a stream that outlives its deadline', accepted: 1, code: 'DEADLINE_EXCEEDED' },
  gzip: { about: 'a compressed request', accepted: 2 },
  flood: {
    about: `${floodCalls} calls at once on one connection beside ${floodRefused} that are refused early`,
    accepted: floodCalls,
    refused: floodRefused,
  },
  retry: { about: "an answer is lost; the library's own retry sends the same bytes again", accepted: 1 },
  drain: { about: 'calls go on while the gateway is drained and started again', accepted: 'some' },
  snippet: { about: 'the program of a section of docs/clients.md', accepted: 1 },
  kill: { about: 'calls go on while the gateway is killed and started again', accepted: 'some' },
} as const satisfies Readonly<Record<string, Expectation>>;

export type CaseName = keyof typeof cases;
/** What a library is asked to do. */
export const libraryCases: readonly CaseName[] = (Object.keys(cases) as CaseName[]).filter(
  (name) => name !== 'snippet',
);
export const caseNames = Object.keys(cases) as CaseName[];

/** @returns what is wrong with an outcome; undefined: nothing */
export function faultOf(outcome: CaseOutcome): string | undefined {
  const { accepted, refused = 0, code = '', note = '' }: Expectation = cases[outcome.case];
  const said = outcome.note === '' ? '' : `: ${outcome.note}`;
  if (outcome.code !== code) return `ended with ${outcome.code || 'success'}, not ${code || 'success'}${said}`;
  if (accepted === 'some' ? outcome.accepted === 0 : outcome.accepted !== accepted)
    return `${outcome.accepted} events were accepted, not ${accepted}${said}`;
  if (accepted !== 'some' && outcome.refused !== refused)
    return `${outcome.refused} were refused, not ${refused}${said}`;
  if (!outcome.note.includes(note)) return `nothing named "${note}"${said}`;
  return undefined;
}

/** @returns the outcome in a line of a program, `'started'` when it began a case that waits for the gateway's end, else undefined */
export function readLine(line: string): CaseOutcome | { readonly case: CaseName; readonly started: true } | undefined {
  if (!line.startsWith('{')) return undefined;
  const value = JSON.parse(line) as { case?: unknown };
  return caseNames.some((name) => name === value.case) ? (value as CaseOutcome) : undefined;
}
