/**
 * Server reflection, v1 and v1alpha (the two differ in name only): how grpcurl and its like learn the contract from the
 * running gateway. The descriptors are those that the generated code carries. The setting `reflection` says who may ask; open-routes.ts and
 * this file bound what that costs.
 */
import {
  create,
  type DescExtension,
  type DescFile,
  type DescMessage,
  type DescService,
  toBinary,
} from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt';
import { Code, type ContextValues, type HandlerContext } from '@connectrpc/connect';
import { file_google_rpc_error_details } from '#gen/google/rpc/error_details_pb.js';
import {
  ServerReflection,
  type ServerReflectionRequest,
  type ServerReflectionResponse,
  ServerReflectionResponseSchema,
} from '#gen/grpc/reflection/v1/reflection_pb.js';
import { ServerReflection as ServerReflectionAlpha } from '#gen/grpc/reflection/v1alpha/reflection_pb.js';
import { SluiceError } from '../../lib/errors.js';
import { MiB } from '../../lib/units.js';
import { type Stop, takeUntil } from '../held/take-until.js';
import { lastWordsMs } from '../listener/answered-early.js';
import { connectionKey, exchangeKey, whenClosed } from '../listener/connection.js';
import { createOpenPlaces, type OpenRoutes } from './open-routes.js';

interface Index {
  readonly files: ReadonlyMap<string, DescFile>;
  /** The descriptor of a file, encoded once. */
  readonly encoded: (file: DescFile) => Uint8Array;
  /** By full name of a service, method, message, field, enum, enum value or extension. */
  readonly symbols: ReadonlyMap<string, DescFile>;
  /** By extended message, then by number. */
  readonly extensions: ReadonlyMap<string, ReadonlyMap<number, DescFile>>;
  readonly messages: ReadonlySet<string>;
}

export interface ReflectionOptions {
  /** Throws when the caller may not ask. Undefined: anybody may. */
  readonly authorize: ((header: Headers) => unknown) | undefined;
  /** A stream without a question for so long, or whose client does not read, ends, ms. @default 30 s */
  readonly idleMs?: number;
}

/** Streams open in all, and of one connection. A client needs one. */
const maxStreams = 100;
const maxStreamsOfConnection = 4;
const defaultIdleMs = 30_000;
/** Of one stream: several times what a client asks that reads the whole contract, symbol by symbol. */
const maxQuestions = 1_000;
const maxAnswerBytes = 4 * MiB;

/** Serves these services and, with them, itself. */
export function reflectionRoutes(
  services: readonly DescService[],
  { authorize, idleMs = defaultIdleMs }: ReflectionOptions,
): (routes: OpenRoutes) => void {
  const all = [...services, ServerReflection, ServerReflectionAlpha];
  // Error details are imported by no service, and yet sent.
  const index = indexOf([...all.map((service) => service.file), file_google_rpc_error_details]);
  const names = all.map((service) => service.typeName).sort();

  async function* info(
    requests: AsyncIterable<ServerReflectionRequest>,
    { values }: HandlerContext,
  ): AsyncGenerator<ServerReflectionResponse> {
    const life = createStreamLife(values, idleMs);
    const sent = new Set<string>();
    let questions = 0;
    let bytes = 0;
    for await (const request of takeUntil(requests, life.begin)) {
      life.refresh();
      if (++questions > maxQuestions || bytes > maxAnswerBytes) throw tooMuch();
      const messageResponse = answer(index, names, request.messageRequest, sent);
      if (messageResponse.case === 'fileDescriptorResponse') {
        for (const file of messageResponse.value.fileDescriptorProto) bytes += file.length;
      }
      yield create(ServerReflectionResponseSchema, {
        validHost: request.host,
        originalRequest: request,
        messageResponse,
      });
    }
  }

  return (routes) => {
    const places = createOpenPlaces('reflection streams', maxStreams, maxStreamsOfConnection);
    routes.bidiStream(ServerReflection.method.serverReflectionInfo, places, authorize, info);
    // Same fields, same numbers, other package name.
    routes.bidiStream(ServerReflectionAlpha.method.serverReflectionInfo, places, authorize, info as never);
  };
}

const tooMuch = (): SluiceError =>
  new SluiceError('too_many_calls', 'This reflection stream has sent its limit of answers.', {
    retryAfterMs: 1_000,
  });

/** When a stream ends that its client does not end: with its connection, and when it is idle. */
function createStreamLife(values: ContextValues, idleMs: number): { begin(stop: Stop): () => void; refresh(): void } {
  const exchange = values.get(exchangeKey);
  let idle: NodeJS.Timeout | undefined;
  return {
    begin(stop) {
      const leave = values.get(connectionKey).onEnding(() => stop());
      idle = setTimeout(() => {
        stop();
        // An answer that is not read holds up the end, too.
        setTimeout(exchange.cancel, lastWordsMs).unref();
      }, idleMs).unref();
      whenClosed(exchange, () => {
        clearTimeout(idle);
        leave();
      });
      return leave;
    },
    refresh() {
      idle?.refresh();
    },
  };
}

type Question = ServerReflectionRequest['messageRequest'];
type Answer = ServerReflectionResponse['messageResponse'];

function answer(index: Index, names: readonly string[], question: Question, sent: Set<string>): Answer {
  switch (question.case) {
    case 'listServices':
      return {
        case: 'listServicesResponse',
        value: {
          $typeName: 'grpc.reflection.v1.ListServiceResponse',
          service: names.map((name) => ({ $typeName: 'grpc.reflection.v1.ServiceResponse', name })),
        },
      };
    case 'fileByFilename':
      return files(index, index.files.get(question.value), sent, `file ${question.value}`);
    case 'fileContainingSymbol': {
      const file = index.symbols.get(question.value.replace(/^\./, ''));
      return files(index, file, sent, `symbol ${question.value}`);
    }
    case 'fileContainingExtension': {
      const { containingType, extensionNumber } = question.value;
      const file = index.extensions.get(containingType)?.get(extensionNumber);
      return files(index, file, sent, `extension ${extensionNumber} of ${containingType}`);
    }
    case 'allExtensionNumbersOfType': {
      if (!index.messages.has(question.value)) return failure(Code.NotFound, `There is no message ${question.value}.`);
      return {
        case: 'allExtensionNumbersResponse',
        value: {
          $typeName: 'grpc.reflection.v1.ExtensionNumberResponse',
          baseTypeName: question.value,
          extensionNumber: [...(index.extensions.get(question.value)?.keys() ?? [])],
        },
      };
    }
    case undefined:
      return failure(Code.InvalidArgument, 'The request asks for nothing: set one of its message_request fields.');
    default: {
      const never: never = question;
      return failure(Code.Unimplemented, `Unknown request ${String(never)}.`);
    }
  }
}

function failure(errorCode: Code, errorMessage: string): Answer {
  return {
    case: 'errorResponse',
    value: { $typeName: 'grpc.reflection.v1.ErrorResponse', errorCode, errorMessage: errorMessage.slice(0, 500) },
  };
}

/** The file and what it imports, but for what this stream has been given already. */
function files(index: Index, file: DescFile | undefined, sent: Set<string>, wanted: string): Answer {
  if (file === undefined) return failure(Code.NotFound, `There is no ${wanted}.`);
  const encoded: Uint8Array[] = [];
  const add = (one: DescFile, again: boolean): void => {
    if (sent.has(one.proto.name) && !again) return;
    sent.add(one.proto.name);
    encoded.push(index.encoded(one));
    for (const dependency of one.dependencies) add(dependency, false);
  };
  // What was asked for by name is always there.
  add(file, true);
  return {
    case: 'fileDescriptorResponse',
    value: { $typeName: 'grpc.reflection.v1.FileDescriptorResponse', fileDescriptorProto: encoded },
  };
}

function indexOf(roots: readonly DescFile[]): Index {
  const found = new Map<string, DescFile>();
  const symbols = new Map<string, DescFile>();
  const extensions = new Map<string, Map<number, DescFile>>();
  const messages = new Set<string>();

  const addExtension = (extension: DescExtension, file: DescFile): void => {
    symbols.set(extension.typeName, file);
    const { typeName } = extension.extendee;
    const numbers = extensions.get(typeName) ?? new Map<number, DescFile>();
    numbers.set(extension.number, file);
    extensions.set(typeName, numbers);
  };
  const addMessage = (message: DescMessage, file: DescFile): void => {
    messages.add(message.typeName);
    symbols.set(message.typeName, file);
    for (const field of message.fields) symbols.set(`${message.typeName}.${field.name}`, file);
    for (const oneof of message.oneofs) symbols.set(`${message.typeName}.${oneof.name}`, file);
    for (const nested of message.nestedMessages) addMessage(nested, file);
    for (const nested of message.nestedEnums) symbols.set(nested.typeName, file);
    for (const nested of message.nestedExtensions) addExtension(nested, file);
  };
  const add = (file: DescFile): void => {
    if (found.has(file.proto.name)) return;
    found.set(file.proto.name, file);
    for (const message of file.messages) addMessage(message, file);
    for (const desc of file.enums) {
      symbols.set(desc.typeName, file);
      // Enum values are named as siblings of their enum.
      const scope = desc.typeName.slice(0, desc.typeName.lastIndexOf('.') + 1);
      for (const value of desc.values) symbols.set(`${scope}${value.name}`, file);
    }
    for (const extension of file.extensions) addExtension(extension, file);
    for (const service of file.services) {
      symbols.set(service.typeName, file);
      for (const method of service.methods) symbols.set(`${service.typeName}.${method.name}`, file);
    }
    for (const dependency of file.dependencies) add(dependency);
  };
  for (const root of roots) add(root);
  const bytes = new Map<DescFile, Uint8Array>();
  const encoded = (file: DescFile): Uint8Array => {
    let known = bytes.get(file);
    if (known === undefined) {
      known = toBinary(FileDescriptorProtoSchema, file.proto);
      bytes.set(file, known);
    }
    return known;
  };
  return { files: found, encoded, symbols, extensions, messages };
}
