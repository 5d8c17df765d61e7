/**
 * The memory allocator of a role's process. A gateway that has served many kinds of connections keeps the holes between what they used, if
 * glibc's malloc is the allocator: 64 MiB after a million odd requests. jemalloc gives them back (docs/operations.md has the figures), so it
 * is loaded where its package is installed: libjemalloc2 of Debian and Ubuntu, jemalloc of Fedora and Alpine.
 */
import { existsSync } from 'node:fs';

type Variables = Readonly<Record<string, string>>;

/** Folders of libraries, by Node's name of the processor. */
const folders = (arch: string): readonly string[] => {
  const triple = { x64: 'x86_64-linux-gnu', arm64: 'aarch64-linux-gnu' }[arch];
  return [...(triple === undefined ? [] : [`/usr/lib/${triple}`]), '/usr/lib64', '/usr/lib'];
};

/** Where jemalloc is installed; undefined: nowhere that is looked at. */
export function jemallocPath(
  arch: string = process.arch,
  exists: (path: string) => boolean = existsSync,
): string | undefined {
  return folders(arch)
    .map((folder) => `${folder}/libjemalloc.so.2`)
    .find(exists);
}

/**
 * Two arenas are enough for a process with one busy thread. Its own thread gives unused pages back when the process stands idle.
 * https://jemalloc.net/jemalloc.3.html
 */
export const jemallocSettings = 'narenas:2,background_thread:true,dirty_decay_ms:5000,muzzy_decay_ms:0';

/**
 * With jemalloc, the library and its settings. Else a setting of glibc's malloc: with two arenas the gateway has 8 MiB less under single
 * calls, for the same CPU. Fixed thresholds (`MALLOC_MMAP_THRESHOLD_`, `MALLOC_TRIM_THRESHOLD_`) give more back, and cost 7 % of its CPU with
 * batches of 500 events and 16 % with 5,000.
 * https://sourceware.org/glibc/manual/latest/html_node/Memory-Allocation-Tunables.html; other C libraries ignore them.
 *
 * @param jemalloc The path of the library; undefined: it is not installed.
 */
export function allocatorVariables(jemalloc: string | undefined): Variables {
  return jemalloc === undefined ? { MALLOC_ARENA_MAX: '2' } : { LD_PRELOAD: jemalloc, MALLOC_CONF: jemallocSettings };
}

/** Whether a gateway that this process starts runs on jemalloc. */
export const usesJemalloc = (): boolean =>
  process.platform === 'linux' && /jemalloc/.test(process.env.LD_PRELOAD ?? jemallocPath() ?? '');
