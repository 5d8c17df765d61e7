/** tonic, built with cargo. */
import { join } from 'node:path';
import { libraryCases } from '../cases.js';
import { need, workshop } from '../workshop.js';
import { type ForeignClient, runProgram } from './client.js';

let folder = '';

export const rustClient: ForeignClient = {
  name: 'tonic',
  about: 'Rust, tonic',
  cases: libraryCases,
  async prepare(cache, say) {
    const cargo = need('cargo', 'Debian: cargo, 1.88 or newer');
    need('protoc', 'Debian: protobuf-compiler and libprotobuf-dev');
    const shop = await workshop(cache, 'rust', async ({ sh }) => {
      say('compiling the Rust client, which takes minutes the first time …');
      await sh(cargo, 'build', '--quiet', '--release');
    });
    folder = shop.folder;
  },
  run: (task, listener) => runProgram([join(folder, 'target/release/client')], folder, task, listener),
};
