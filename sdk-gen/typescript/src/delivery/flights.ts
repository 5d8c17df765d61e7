/** The batches that were sent and not answered, over all streams (DELIVER-3). */
import type { Batch } from './batch.js';
import type { Stream } from './stream.js';

export interface Flight {
  readonly batch: Batch;
  readonly stream: Stream;
  readonly sentAt: number;
}

export interface Flights {
  readonly count: number;
  readonly bytes: number;
  readonly oldest: Flight | undefined;
  /** The only one in flight must be alone (DELIVER-6). */
  readonly oneAlone: boolean;
  start(batch: Batch, stream: Stream, sentAt: number): void;
  /** The batch's flight on this stream: an answer of a stream that was given up, or to nothing that was sent, is no answer. */
  on(stream: Stream, batchId: string): Flight | undefined;
  /** Ends the batch's flight on this stream. */
  land(stream: Stream, batchId: string): Flight | undefined;
  /** Ends all flights on this stream. @returns the batches */
  landAll(stream: Stream): Batch[];
  streams(): Stream[];
}

export function createFlights(): Flights {
  const flights = new Map<string, Flight>();
  let bytes = 0;
  const on = (stream: Stream, batchId: string): Flight | undefined => {
    const flight = flights.get(batchId);
    return flight?.stream === stream ? flight : undefined;
  };
  const end = ({ batch }: Flight): void => {
    flights.delete(batch.batchId);
    bytes -= batch.bytes.length;
  };
  return {
    get count() {
      return flights.size;
    },
    get bytes() {
      return bytes;
    },
    get oldest() {
      return flights.values().next().value;
    },
    get oneAlone() {
      return flights.size === 1 && flights.values().next().value?.batch.alone === true;
    },
    start(batch, stream, sentAt) {
      flights.set(batch.batchId, { batch, stream, sentAt });
      bytes += batch.bytes.length;
    },
    on,
    land(stream, batchId) {
      const flight = on(stream, batchId);
      if (flight !== undefined) end(flight);
      return flight;
    },
    landAll(stream) {
      const lost = [...flights.values()].filter((flight) => flight.stream === stream);
      for (const flight of lost) end(flight);
      return lost.map(({ batch }) => batch);
    },
    streams: () => [...flights.values()].map(({ stream }) => stream),
  };
}
