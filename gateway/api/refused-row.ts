/**
 * Refused batches in a row of one stream. Batches are answered in any order, so the row goes by the place at which they were read: a batch
 * that is accepted, whenever its answer comes, leaves a gap. Refusals arise nearly in the order of reading; one that comes late
 * closes the gap that it had left.
 */

/** A client that is in order sends batches of which some are good. */
const most = 100;

export class RefusedRow {
  /** Since the last gap, and before it; how many places the gap has. */
  #length = 0;
  #before = 0;
  #missing = 0;
  #last = 0;

  /**
   * A batch was refused for what it is. To be called once for each.
   * @param place on the stream, from 1
   * @returns whether the row is as long as it may be
   */
  add(place: number): boolean {
    const skipped = place - this.#last - 1;
    if (skipped > 0) {
      this.#before = this.#length;
      this.#missing = skipped;
      this.#length = 0;
    }
    this.#length++;
    if (skipped < 0 && this.#missing > 0 && --this.#missing === 0) this.#length += this.#before;
    this.#last = Math.max(this.#last, place);
    return this.#length >= most;
  }
}
