/**
 * Readers of batches inside one process, in turn within each round, so that what the machine does hits all alike. CPU time.
 */
export interface Reader {
  readonly name: string;
  /** Reads batch number i. @returns how many events it read, so that the compiler cannot leave the work out */
  readonly read: (i: number) => number;
}

/** CPU time of one turn, about. */
const turnMs = 50;

function cpuMs(work: () => void): number {
  const before = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

/** Events a CPU second: by reader, then by round. Warms each reader first, and finds how many batches make a turn. */
export function readInTurn(readers: readonly Reader[], rounds: number, progress?: (round: number) => void): number[][] {
  /** @returns events a CPU second of `count` batches */
  const turn = (reader: Reader, count: number, from: number): number => {
    let events = 0;
    const ms = cpuMs(() => {
      for (let i = 0; i < count; i++) events += reader.read(from + i);
    });
    if (events === 0) throw new Error(`${reader.name} read nothing`);
    return (events * 1000) / Math.max(ms, 0.5);
  };
  const counts = readers.map((reader) => {
    let count = 4;
    const perBatch = reader.read(0);
    for (const _ of [1, 2, 3]) count = Math.max(4, Math.ceil((turn(reader, count, 0) * turnMs) / 1000 / perBatch));
    return count;
  });
  const rates = readers.map((): number[] => []);
  for (let round = 0; round < rounds; round++) {
    readers.forEach((reader, r) => {
      rates[r]!.push(turn(reader, counts[r]!, round));
    });
    progress?.(round);
  }
  return rates;
}
