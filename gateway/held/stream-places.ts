/**
 * How many PublishStream calls may be open: of one key, and in all. A place is taken when the key is known, before anything is held for
 * the call, and given back when its HTTP stream is over. A stream that sends nothing keeps its place: clients hold a stream for
 * hours, and pings show that they live (server.ts).
 */
import { retryAfter } from '../../lib/back-off.js';
import { SluiceError } from '../../lib/errors.js';
import { createPlaces, type Places } from './places.js';

type OfKey = Pick<Places<string>, 'take'>;

/** By key id. */
export interface StreamPlaces {
  /** On the hot path: about 11 kB of memory for an idle stream. */
  readonly hot: OfKey;
  /** Through the RPC library: about 75 kB. So these are a twentieth of all, at most. */
  readonly library: OfKey;
}

/** Of all streams, the part that the RPC library may serve. */
const libraryShare = 20;
/** When another stream may find a place, ms: half of it to one and a half. */
const retryMs = 4_000;

export function createStreamPlaces({
  maxStreams,
  maxStreamsPerKey,
}: {
  readonly maxStreams: number;
  readonly maxStreamsPerKey: number;
}): StreamPlaces {
  const refusal = (message: string): SluiceError =>
    new SluiceError('too_many_calls', message, { retryAfterMs: retryAfter(retryMs) });
  const hot = createPlaces<string>({
    max: maxStreams,
    maxOfOne: maxStreamsPerKey,
    refuse: (full) =>
      full === 'owner'
        ? refusal(`This key has ${maxStreamsPerKey} open streams, and may have no more (maxStreamsPerKey).`)
        : refusal('The gateway has as many open streams as it takes (maxStreams).'),
  });
  const share = Math.ceil(maxStreams / libraryShare);
  const maxSlow = createPlaces<string>({
    max: share,
    maxOfOne: share,
    refuse: () =>
      refusal(
        `The gateway has as many open streams as it takes in JSON or another form than plain Protobuf over HTTP/2 (a twentieth of maxStreams).`,
      ),
  });
  return {
    hot,
    library: {
      take(keyId) {
        const leaveSlow = maxSlow.take(keyId);
        try {
          const leave = hot.take(keyId);
          return () => {
            leave();
            leaveSlow();
          };
        } catch (refused) {
          leaveSlow();
          throw refused;
        }
      },
    },
  };
}
