/**
 * Peer (a): a JSON API on Fastify, its fastest usual set-up: compiled schemas on both sides, no logger, no scan of the
 * body for dangerous names (nothing is merged into objects here).
 *
 * `raw` leaves out JSON.stringify: a batch without faults is stored as the text that came.
 */
import type { AddressInfo } from 'node:net';
import Fastify from 'fastify';
import { MiB } from '../../lib/units.js';
import type { ServeOptions } from './connect.js';
import { eventSchema, explainError, keywords, type SchemaError } from './json-schema.js';

interface Body {
  readonly batchId: string;
  readonly attempt?: number;
  readonly sentAt?: string;
  readonly events: object[];
}

const envelope = {
  type: 'object',
  required: ['batchId', 'events'],
  properties: {
    batchId: { type: 'string', maxBytes: 64, pattern: '^[A-Za-z0-9._:/-]+$' },
    attempt: { type: 'integer', minimum: 0 },
    sentAt: { type: 'string' },
    events: { type: 'array', minItems: 1, maxItems: 10_000 },
  },
};
const answer = {
  type: 'object',
  properties: {
    batchId: { type: 'string' },
    accepted: { type: 'integer' },
    rejected: { type: 'integer' },
    rejections: {
      type: 'array',
      items: {
        type: 'object',
        properties: {
          index: { type: 'integer' },
          field: { type: 'string' },
          code: { type: 'string' },
          message: { type: 'string' },
        },
      },
    },
    position: {
      type: 'object',
      properties: { stream: { type: 'string' }, shard: { type: 'integer' }, sequence: { type: 'integer' } },
    },
  },
};

export interface FastifyOptions extends ServeOptions {
  readonly raw: boolean;
}

export async function serveFastify(options: FastifyOptions): Promise<number> {
  const { log, tenant, key, raw } = options;
  const app = Fastify({
    bodyLimit: 8 * MiB,
    onProtoPoisoning: 'ignore',
    onConstructorPoisoning: 'ignore',
    ajv: {
      // As sent: nothing is coerced, filled in or taken out. Length in UTF-16 units is all that minLength: 1 needs.
      customOptions: {
        coerceTypes: false,
        removeAdditional: false,
        useDefaults: false,
        unicode: false,
        keywords: keywords as never,
      },
    },
  });
  const texts = new WeakMap<object, Buffer>();
  if (raw) {
    app.addContentTypeParser('application/json', { parseAs: 'buffer' }, (_, bytes, done) => {
      try {
        const body = JSON.parse(bytes.toString()) as object;
        texts.set(body, bytes as Buffer);
        done(null, body);
      } catch (error) {
        done(Object.assign(error as Error, { statusCode: 400 }));
      }
    });
  }
  const schema = eventSchema();
  const head = JSON.stringify(tenant);
  app.post<{ Body: Body }>(
    '/v1/events/batch',
    {
      schema: { body: envelope, response: { 202: answer } },
      onRequest: async (request, reply) => {
        if (request.headers.authorization !== `Bearer ${key}`) {
          return reply.code(401).send({ error: 'the key is not known' });
        }
      },
    },
    async (request, reply) => {
      const { body } = request;
      const check = request.getValidationFunction(schema) ?? request.compileValidationSchema(schema);
      let valid: object[] | undefined;
      const rejections: object[] = [];
      const { events } = body;
      for (let index = 0; index < events.length; index++) {
        const event = events[index] as object;
        if (check(event)) {
          valid?.push(event);
          continue;
        }
        valid ??= events.slice(0, index);
        const [error] = (check as unknown as { errors: SchemaError[] }).errors;
        if (error !== undefined) rejections.push({ index, ...explainError(error, event) });
      }
      const kept = valid ?? events;
      const { batchId } = body;
      const result = { batchId, accepted: kept.length, rejected: rejections.length };
      const told = { ...result, rejections: rejections.slice(0, 100) };
      if (kept.length === 0) return reply.code(202).send(told);
      const receivedAt = new Date().toISOString();
      const text = valid === undefined ? texts.get(body) : undefined;
      const payload =
        text === undefined
          ? Buffer.from(JSON.stringify({ tenant, receivedAt, ...body, events: kept }))
          : Buffer.concat([Buffer.from(`{"tenant":${head},"receivedAt":"${receivedAt}","request":`), text, closing]);
      const sequence = await log.append(payload);
      return reply.code(202).send({ ...told, position: { stream: log.stream, shard: 0, sequence } });
    },
  );
  await app.listen({ host: '127.0.0.1', port: 0 });
  return (app.server.address() as AddressInfo).port;
}

const closing = Buffer.from('}');
