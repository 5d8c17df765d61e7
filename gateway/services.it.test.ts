import { create, createFileRegistry, type FileRegistry, fromBinary } from '@bufbuild/protobuf';
import {
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
  MethodOptions_IdempotencyLevel,
} from '@bufbuild/protobuf/wkt';
import { Code, ConnectError, createClient } from '@connectrpc/connect';
import { createGrpcTransport } from '@connectrpc/connect-node';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { Health, HealthCheckResponse_ServingStatus as Status } from '#gen/grpc/health/v1/health_pb.js';
import { ServerReflection, type ServerReflectionResponse } from '#gen/grpc/reflection/v1/reflection_pb.js';
import { ServerReflection as ServerReflectionAlpha } from '#gen/grpc/reflection/v1alpha/reflection_pb.js';
import { type GetLimitsResponse, IngestService } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { until } from '../lib/testing/until.js';
import { withGateway } from './testing/running-gateway.js';

const service = 'sluice.ingest.v1.IngestService';

test('health is answered and its watchers hear of it, as the log comes and goes and the gateway drains', async () => {
  await withGateway({}, async ({ url, gateway, nats }) => {
    const health = createClient(Health, createGrpcTransport({ baseUrl: url }));
    for (const name of ['', service]) assert.is((await health.check({ service: name })).status, Status.SERVING);
    assert.equal(Object.keys((await health.list({})).statuses).sort(), ['', service]);
    try {
      await health.check({ service: 'no.such.Service' });
      assert.unreachable();
    } catch (error) {
      assert.is(ConnectError.from(error).code, Code.NotFound);
    }
    const seen: Status[] = [];
    const watching = (async () => {
      for await (const { status } of health.watch({ service })) seen.push(status);
    })();
    await until('serving', () => seen.length === 1);
    nats.process().kill('SIGKILL');
    await until('not serving', () => seen.length === 2);
    assert.is((await health.check({})).status, Status.NOT_SERVING);
    await nats.restart();
    await until('serving again', () => seen.length === 3);
    const drained = gateway.drain();
    await watching;
    await drained;
    assert.equal(seen, [Status.SERVING, Status.NOT_SERVING, Status.SERVING, Status.NOT_SERVING]);
  });
});

test('questions that change nothing can be asked by HTTP GET, which proxies may repeat', async () => {
  await withGateway({}, async ({ url, headers }) => {
    const ask = (method: string) =>
      fetch(`${url}/${service}/${method}?connect=v1&encoding=json&message=${encodeURIComponent('{}')}`, { headers });
    const limits = await ask('GetLimits');
    assert.is(limits.status, 200);
    assert.ok(((await limits.json()) as GetLimitsResponse).limits?.maxBatchBytes);
    assert.is((await ask('Publish')).status, 405);
    assert.is(IngestService.method.getBatchStatus.idempotency, MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS);
  });
});

type Answer = ServerReflectionResponse['messageResponse'];

/** A registry of the files that answers hold. */
function registryOf(answers: readonly (Answer | undefined)[]): FileRegistry {
  const files = answers.flatMap((answer) => {
    assert.is(answer?.case, 'fileDescriptorResponse');
    const sent = answer?.case === 'fileDescriptorResponse' ? answer.value.fileDescriptorProto : [];
    return sent.map((bytes) => fromBinary(FileDescriptorProtoSchema, bytes));
  });
  const byName = new Map(files.map((file) => [file.name, file]));
  const order: typeof files = [];
  const visit = (name: string): void => {
    const file = byName.get(name);
    assert.ok(file, `${name} was sent`);
    if (file === undefined || order.includes(file)) return;
    for (const dependency of file.dependency) visit(dependency);
    order.push(file);
  };
  visit('sluice/ingest/v1/ingest.proto');
  return createFileRegistry(create(FileDescriptorSetSchema, { file: order }));
}

test('both versions of reflection tell the whole contract, so that a client can be built from it', async () => {
  await withGateway({ reflection: 'open' }, async ({ url }) => {
    const transport = createGrpcTransport({ baseUrl: url });
    for (const reflection of [ServerReflection, ServerReflectionAlpha]) {
      const client = createClient(reflection as typeof ServerReflection, transport);
      type Question = Exclude<ServerReflectionResponse['originalRequest'], undefined>['messageRequest'];
      const ask = async (...questions: Question[]) => {
        const answers: Answer[] = [];
        async function* requests() {
          for (const messageRequest of questions) yield { host: 'h', messageRequest };
        }
        for await (const { messageResponse, validHost } of client.serverReflectionInfo(requests())) {
          assert.is(validHost, 'h');
          answers.push(messageResponse);
        }
        return answers;
      };
      const [list, symbol, again, method, type] = await ask(
        { case: 'listServices', value: '' },
        { case: 'fileContainingSymbol', value: service },
        { case: 'fileContainingSymbol', value: `${service}.Publish` },
        { case: 'fileByFilename', value: 'sluice/event/v1/event.proto' },
        { case: 'fileContainingSymbol', value: 'sluice.event.v1.EVENT_TYPE_CLICK' },
      );
      assert.is(list?.case, 'listServicesResponse');
      if (list?.case === 'listServicesResponse') {
        assert.equal(
          list.value.service.map(({ name }) => name),
          [
            'grpc.health.v1.Health',
            'grpc.reflection.v1.ServerReflection',
            'grpc.reflection.v1alpha.ServerReflection',
            service,
          ],
        );
      }
      const registry = registryOf([symbol, again, method, type]);
      assert.ok(registry.getService(service)?.method.publishStream);
      assert.ok(registry.getMessage('sluice.event.v1.Event')?.field.occurredAt);

      const [numbers, extension, missing, nothing] = await ask(
        { case: 'allExtensionNumbersOfType', value: 'google.protobuf.FieldOptions' },
        {
          case: 'fileContainingExtension',
          value: {
            $typeName: 'grpc.reflection.v1.ExtensionRequest',
            containingType: 'google.protobuf.FieldOptions',
            extensionNumber: 50701,
          },
        },
        { case: 'fileByFilename', value: 'no/such.proto' },
        { case: undefined },
      );
      assert.equal(numbers?.case === 'allExtensionNumbersResponse' ? numbers.value.extensionNumber : [], [50701]);
      assert.is(extension?.case, 'fileDescriptorResponse');
      assert.is(missing?.case === 'errorResponse' ? missing.value.errorCode : 0, Code.NotFound);
      assert.is(nothing?.case === 'errorResponse' ? nothing.value.errorCode : 0, Code.InvalidArgument);
    }
  });
});

test('questions in JSON that are deep or wide are refused in a few words', async () => {
  await withGateway({}, async ({ url, headers }) => {
    const deep = `${'['.repeat(32_000)}${']'.repeat(32_000)}`;
    const bodies = [
      deep,
      `{"batchId":${deep},"service":${'{"a":'.repeat(200)}`,
      `{"service":${deep}}`,
      `{${Array.from({ length: 6_000 }, (_, i) => `"k${i}":1`).join()}}`,
      `{"batchId":${'9'.repeat(64_000)}}`,
    ];
    for (const path of [`${service}/GetLimits`, `${service}/GetBatchStatus`, 'grpc.health.v1.Health/Check']) {
      for (const body of bodies) {
        const more = { ...headers, 'content-type': 'application/json' };
        const answer = await fetch(`${url}/${path}`, { method: 'POST', headers: more, body });
        const text = await answer.text();
        assert.is(answer.status, 400, text.slice(0, 200));
        assert.ok(text.length < 1_000, `${path}: ${text.length} characters`);
      }
    }
  });
});

test.run();
