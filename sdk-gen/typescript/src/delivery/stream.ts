/** One stream of a delivery. */
import type { Link } from './link.js';

export interface Stream {
  /** Undefined while it is being made. */
  link: Link | undefined;
  /** opening → open → draining → ended, in that order, some left out. */
  state: 'opening' | 'open' | 'draining' | 'ended';
  readonly openedAt: number;
}
