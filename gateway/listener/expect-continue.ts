/**
 * `Expect: 100-continue`: the client waits with its body until the server asks for it. The gateway asks when it is about to read the
 * body. So a caller without a key, or with a body that is too large, hears that first and sends nothing.
 */
import type { NodeResponse } from './node-request.js';

const waiting = new WeakSet<NodeResponse>();

/** Whether the value of an Expect header asks for that, in whatever case. */
export const isContinue = (expect: string | undefined): boolean => expect?.toLowerCase() === '100-continue';

/** The client of this response waits to be asked for its body. */
export function expectsContinue(response: NodeResponse): void {
  waiting.add(response);
}

/** Asks for the body, where the client waits for that. To be called before it is read. */
export function inviteBody(response: NodeResponse): void {
  if (waiting.delete(response)) response.writeContinue();
}
