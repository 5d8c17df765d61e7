/** grpc-java on netty and on okhttp: one program, built with Maven. */
import { join } from 'node:path';
import { libraryCases } from '../cases.js';
import { need, workshop } from '../workshop.js';
import { type ForeignClient, runProgram } from './client.js';

function createJavaClient(name: string, about: string): ForeignClient {
  let folder = '';
  return {
    name,
    about,
    cases: libraryCases,
    async prepare(cache, say) {
      need('java', 'Debian: default-jdk');
      const maven = need('mvn', 'Debian: maven');
      const shop = await workshop(cache, 'java', async ({ sh }) => {
        say('generating and compiling the Java clients …');
        await sh(maven, '-q', '-B', 'compile');
      });
      folder = shop.folder;
    },
    run: (task, listener) =>
      runProgram(
        [
          need('java', 'Debian: default-jdk'),
          '-cp',
          `${join(folder, 'target/classes')}:${join(folder, 'jars')}/*`,
          'Client',
        ],
        folder,
        task,
        listener,
      ),
  };
}

export const javaClients: readonly ForeignClient[] = [
  createJavaClient('grpc-java-netty', 'Java, io.grpc on netty'),
  createJavaClient('grpc-java-okhttp', 'Java, io.grpc on okhttp'),
];
