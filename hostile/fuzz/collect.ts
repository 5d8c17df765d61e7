/**
 * Loaded into a gateway under test before its own code: SIGUSR2 makes it collect its garbage. Memory that a collection would free is not
 * held by anything, so FUZZ-3 looks at what is left.
 */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

process.on('SIGUSR2', () => {
  // What finalizers free is collected the second time.
  collect();
  collect();
});
