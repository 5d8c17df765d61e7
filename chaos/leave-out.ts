/**
 * Loaded before a role of a control run (`node --import '…/leave-out.js?retry-check'`): leaves the named protection out of the process.
 */
import { leaveOut, type Protection, protections } from '../lib/failpoint.js';

const name = new URL(import.meta.url).search.slice(1);
if (!(name in protections)) throw new Error(`there is no protection "${name}"`);
leaveOut(name as Protection);
