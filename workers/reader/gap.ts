/**
 * Examines messages that are missing between two that were delivered.
 *
 * A consumer reads one replica of the stream. A replica with damaged files lacks messages that the others have, and skips them
 * silently. A block would then cover messages that it does not hold. So a gap counts only when the stream's leader does not have the
 * messages either: they were trimmed, or removed by an operator.
 */
import type { JetStreamManager } from '@nats-io/jetstream';
import type { NatsConnection } from '@nats-io/nats-core';
import { jetStreamErrors } from '../../lib/jetstream-errors.js';
import { streamInfo } from '../../lib/stream-info.js';

const patienceMs = 5_000;

/**
 * Whether the stream's leader has none of the messages `from` to `to`.
 * @throws Error when it does not say
 */
export async function areGone(
  nc: Pick<NatsConnection, 'request'>,
  jsm: Pick<JetStreamManager, 'streams'>,
  stream: string,
  from: number,
  to: number,
): Promise<boolean> {
  const { state } = await streamInfo(jsm, stream);
  if (state.first_seq > to) return true;
  const question = { seq: Math.max(from, state.first_seq), next_by_subj: '>' };
  const reply = await nc.request(`$JS.API.STREAM.MSG.GET.${stream}`, JSON.stringify(question), { timeout: patienceMs });
  const { error, message } = reply.json<{ error?: { err_code?: number }; message?: { seq?: number } }>();
  if (error?.err_code === jetStreamErrors.noMessageFound) return true;
  if (typeof message?.seq !== 'number') {
    throw new Error(
      `${stream} does not say whether it has messages ${from} to ${to} (${error?.err_code ?? 'no message'})`,
    );
  }
  return message.seq > to;
}
