/**
 * The embedded engine with the rights that a user of deploy/clickhouse-users.xml has, behind its HTTP interface. It has no log-in and
 * one user, `default`: that one gets the grants.
 *
 *   node --import tsx deploy/testing/granted-clickhouse.ts <user> <folder>
 */
import { mkdirSync, readFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { silentLogger } from '../../lib/logger.js';
import { onParentGone } from '../../lib/parent-gone.js';
import { openEngine } from '../../workers/embedded/engine.js';
import { createEmbeddedHttp } from '../../workers/embedded/http.js';

const [user = '', folder = ''] = process.argv.slice(2);
const deployed = readFileSync(fileURLToPath(new URL('../clickhouse-users.xml', import.meta.url)), 'utf8');

/** The text within an element, which may have the name of one of `others` inside. */
const within = (text: string, name: string): string =>
  new RegExp(`<${name}>(.*?)</${name}>`, 's').exec(text)?.[1] ?? '';

const users = deployed.slice(deployed.indexOf('<users>'));
const own = within(users, user);
const grants = [...own.matchAll(/<query>(.*?)<\/query>/g)].map((match) => match[1] ?? '');
if (grants.length === 0) throw new Error(`${user} has no grants`);
const profile = within(own, 'profile');
const settings = profile === 'default' ? '' : within(deployed.slice(0, deployed.indexOf('<users>')), profile);

process.chdir(folder);
const spoolFolder = join(folder, 'spool');
mkdirSync(spoolFolder, { recursive: true });
const engine = await openEngine(join(folder, 'store'), {
  spoolFolder,
  rightsFolder: join(folder, 'rights'),
  client: {
    grants: grants.map((grant) => grant.replace(/^GRANT /, '')),
    profile: settings,
    server:
      '<access_control_improvements>' +
      '<select_from_system_db_requires_grant>true</select_from_system_db_requires_grant>' +
      '<select_from_information_schema_requires_grant>true</select_from_information_schema_requires_grant>' +
      '</access_control_improvements>',
  },
});
const server = createEmbeddedHttp({
  engine,
  spoolFolder,
  guard: { host: '127.0.0.1', password: undefined },
  logger: silentLogger,
  maxBodyBytes: 64 * 1024 ** 2,
});
onParentGone(() => process.exit(0));
server.listen(0, '127.0.0.1', () => process.send?.({ port: (server.address() as AddressInfo).port }));
