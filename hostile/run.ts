/** One run: each attack against a gateway of its own, on one nats-server, and a verdict for each. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { makeCertificate } from '../lib/testing/certificate.js';
import type { Attack } from './attack.js';
import { brokenBounds, type Judged } from './bounds.js';
import { type Figures, playScene, type SceneOptions, withGround } from './scene.js';

export interface Row {
  readonly attack: Attack;
  readonly figures: Figures;
  /** Bounds that did not hold, in words. */
  readonly broken: readonly string[];
}

export interface RunOptions extends SceneOptions {
  readonly attacks: readonly Attack[];
  readonly judged: readonly Judged[];
  /** Called after each attack. */
  readonly onRow?: (row: Row) => void;
  /** Rejects when the run is to end early; never resolves. */
  readonly interrupted?: Promise<never>;
}

/** @throws Error when a gateway does not start, or an attack's script fails */
export async function run(options: RunOptions): Promise<Row[]> {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-hostile-'));
  const attacks = options.attacks.filter(({ tlsOnly }) => options.tls || tlsOnly !== true);
  const tenants = Math.max(0, ...attacks.map(({ keys = 0 }) => keys));
  const tlsFlags = options.tls ? writeCertificate(folder) : [];
  try {
    return await withGround({ folder, tenants, tlsFlags }, async (ground) => {
      const rows: Row[] = [];
      for (const attack of attacks) {
        const scene = playScene(attack, ground, options);
        const figures = await (options.interrupted === undefined ? scene : Promise.race([scene, options.interrupted]));
        const row = { attack, figures, broken: brokenBounds(attack.name, figures, options.judged) };
        options.onRow?.(row);
        rows.push(row);
      }
      return rows;
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function writeCertificate(folder: string): string[] {
  const { key, cert } = makeCertificate();
  const files = { '--tls-key': join(folder, 'key.pem'), '--tls-cert': join(folder, 'cert.pem') };
  writeFileSync(files['--tls-key'], key, { mode: 0o600 });
  writeFileSync(files['--tls-cert'], cert);
  return Object.entries(files).flat();
}
