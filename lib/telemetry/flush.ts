/**
 * The last spans, before a role ends.
 */
import { ProxyTracerProvider, trace } from '@opentelemetry/api';

/** How long the end of a process may wait for a collector, ms. */
const patienceMs = 1_500;

interface Flushable {
  forceFlush(): Promise<void>;
}

/**
 * Sends the spans that wait for the next export; to be called when nothing makes spans any more. Resolves at once when
 * nothing is exported, after 1.5 s when the collector does not answer. Never rejects.
 */
export async function flushTelemetry(): Promise<void> {
  const known = trace.getTracerProvider();
  const provider: object = known instanceof ProxyTracerProvider ? known.getDelegate() : known;
  if (!('forceFlush' in provider)) return;
  let timer: NodeJS.Timeout | undefined;
  const overdue = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, patienceMs);
  });
  // What cannot be sent is lost: telemetry must not keep a role from ending.
  await Promise.race([(provider as Flushable).forceFlush().catch(() => {}), overdue]);
  clearTimeout(timer);
}
