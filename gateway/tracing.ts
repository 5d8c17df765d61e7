/**
 * One span per batch, made by hand. The parent is the caller's trace context, if any; the span's own context is stored
 * with the batch, so that the worker's load joins the same trace. The sampler decides; what is not sampled costs about a
 * microsecond a batch.
 */
import { ROOT_CONTEXT, type Span, SpanKind, SpanStatusCode, TraceFlags, trace } from '@opentelemetry/api';
import { SluiceError } from '../lib/errors.js';

export interface BatchSpan {
  /** To be stored with the batch: this span when it is recorded, else what the caller sent. */
  readonly traceparent: string | undefined;
  accepted(events: number, rejected: number): void;
  failed(reason: unknown): void;
}

export interface Tracing {
  /** @param traceparent valid, or undefined */
  start(name: string, tenant: string, traceparent: string | undefined): BatchSpan;
}

/** To be called after the SDK has started. */
export function createTracing(): Tracing {
  const tracer = trace.getTracer('sluice-gateway');
  return {
    start(name, tenant, traceparent) {
      const span = tracer.startSpan(
        name,
        { kind: SpanKind.SERVER },
        traceparent === undefined ? ROOT_CONTEXT : parentOf(traceparent),
      );
      if (!span.isRecording()) return { traceparent, accepted() {}, failed() {} };
      span.setAttribute('sluice.tenant', tenant);
      return recorded(span);
    },
  };
}

function parentOf(traceparent: string) {
  return trace.setSpanContext(ROOT_CONTEXT, {
    traceId: traceparent.slice(3, 35),
    spanId: traceparent.slice(36, 52),
    traceFlags: Number.parseInt(traceparent.slice(53), 16) & TraceFlags.SAMPLED,
    isRemote: true,
  });
}

function recorded(span: Span): BatchSpan {
  const { traceId, spanId, traceFlags } = span.spanContext();
  return {
    traceparent: `00-${traceId}-${spanId}-${traceFlags.toString(16).padStart(2, '0')}`,
    accepted(events, rejected) {
      span.setAttributes({ 'sluice.events': events, 'sluice.rejected': rejected });
      span.end();
    },
    failed(reason) {
      span.setStatus({ code: SpanStatusCode.ERROR, message: reason instanceof SluiceError ? reason.code : 'internal' });
      span.end();
    },
  };
}
