/** What listeners of tests share: a free port on loopback, and limits that no test reaches by chance. */
export const listening = {
  host: '127.0.0.1',
  port: 0,
  maxConnections: 100,
  maxConnectionAge: 600_000,
  grace: 500,
} as const;
