/**
 * Server reflection, v1 and v1alpha (the two differ in name only): how grpcurl and its like learn the contract from the
 * running gateway. The descriptors are those that the generated code carries.
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
import { Code, type HandlerContext } from '@connectrpc/connect';
import { file_google_rpc_error_details } from '#gen/google/rpc/error_details_pb.js';
import {
  ServerReflection,
  type ServerReflectionRequest,
  type ServerReflectionResponse,
  ServerReflectionResponseSchema,
} from '#gen/grpc/reflection/v1/reflection_pb.js';
import { ServerReflection as ServerReflectionAlpha } from '#gen/grpc/reflection/v1alpha/reflection_pb.js';
import { connectionKey } from './connection.js';
import type { OpenRoutes } from './routes.js';

interface Index {
  readonly files: ReadonlyMap<string, DescFile>;
  /** By full name of a service, method, message, field, enum, enum value or extension. */
  readonly symbols: ReadonlyMap<string, DescFile>;
  /** By extended message, then by number. */
  readonly extensions: ReadonlyMap<string, ReadonlyMap<number, DescFile>>;
  readonly messages: ReadonlySet<string>;
}

/** Serves these services and, with them, itself. */
export function reflectionRoutes(services: readonly DescService[]): (routes: OpenRoutes) => void {
  const all = [...services, ServerReflection, ServerReflectionAlpha];
  // Error details are imported by no service, and yet sent.
  const index = indexOf([...all.map((service) => service.file), file_google_rpc_error_details]);
  const names = all.map((service) => service.typeName).sort();

  async function* info(
    requests: AsyncIterable<ServerReflectionRequest>,
    context: HandlerContext,
  ): AsyncGenerator<ServerReflectionResponse> {
    const sent = new Set<string>();
    const ending = new Promise<undefined>((resolve) => {
      context.values.get(connectionKey).onEnding(() => resolve(undefined));
    });
    const iterator = requests[Symbol.asyncIterator]();
    for (;;) {
      const next = await Promise.race([iterator.next(), ending]);
      if (next === undefined || next.done === true) return;
      yield create(ServerReflectionResponseSchema, {
        validHost: next.value.host,
        originalRequest: next.value,
        messageResponse: answer(index, names, next.value.messageRequest, sent),
      });
    }
  }

  return (routes) => {
    routes.bidiStream(ServerReflection.method.serverReflectionInfo, info);
    // Same fields, same numbers, other package name.
    routes.bidiStream(ServerReflectionAlpha.method.serverReflectionInfo, info as never);
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
      return files(index.files.get(question.value), sent, `file ${question.value}`);
    case 'fileContainingSymbol':
      return files(index.symbols.get(question.value.replace(/^\./, '')), sent, `symbol ${question.value}`);
    case 'fileContainingExtension': {
      const { containingType, extensionNumber } = question.value;
      const file = index.extensions.get(containingType)?.get(extensionNumber);
      return files(file, sent, `extension ${extensionNumber} of ${containingType}`);
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
function files(file: DescFile | undefined, sent: Set<string>, wanted: string): Answer {
  if (file === undefined) return failure(Code.NotFound, `There is no ${wanted}.`);
  const encoded: Uint8Array[] = [];
  const add = (one: DescFile, again: boolean): void => {
    if (sent.has(one.proto.name) && !again) return;
    sent.add(one.proto.name);
    encoded.push(toBinary(FileDescriptorProtoSchema, one.proto));
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
  return { files: found, symbols, extensions, messages };
}
