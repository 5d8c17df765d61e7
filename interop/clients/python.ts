/** grpcio, in a virtual environment. */
import { join } from 'node:path';
import { libraryCases } from '../cases.js';
import { need, workshop } from '../workshop.js';
import { type ForeignClient, runProgram } from './client.js';

let folder = '';

export const pythonClient: ForeignClient = {
  name: 'grpcio',
  about: 'Python, grpcio',
  cases: libraryCases,
  async prepare(cache, say) {
    const python = need('python3', 'Debian: python3-venv');
    const shop = await workshop(cache, 'python', async ({ sh }) => {
      say('installing grpcio and generating the Python client …');
      await sh(python, '-m', 'venv', 'venv');
      await sh('venv/bin/pip', 'install', '--quiet', '--disable-pip-version-check', '-r', 'requirements.txt');
      const files = ['rules/v1/rules', 'event/v1/event', 'ingest/v1/ingest'].map((file) => `sluice/${file}.proto`);
      await sh(
        'venv/bin/python',
        '-m',
        'grpc_tools.protoc',
        '-Iproto',
        '--python_out=.',
        '--grpc_python_out=.',
        ...files,
      );
    });
    folder = shop.folder;
  },
  run: (task, listener) => runProgram([join(folder, 'venv/bin/python'), 'client.py'], folder, task, listener),
};
