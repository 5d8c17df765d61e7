import type { UniversalHandler, UniversalHandlerFn } from '@connectrpc/connect/protocol';
import type { SluiceError } from '../../lib/errors.js';
import type { Connection } from '../listener/connection.js';

/** A handler, and the HTTP methods that it takes. */
export type RpcRoute = UniversalHandlerFn &
  Pick<UniversalHandler, 'allowedMethods'> & {
    /** Why a call on this connection would be refused, whatever it says: to be asked before anything is made for it. */
    readonly refusal?: (connection: Connection) => SluiceError | undefined;
    /** It asks for no key. */
    readonly open?: boolean;
  };
