/**
 * Counts refused batches in a row on one stream. Answers come in any order, so the row follows the order of reading: an accepted batch
 * leaves a gap, whenever its answer comes. Refusals come nearly in the order of reading; a late one closes the gap that it had left.
 */

/** A client that is in order sends batches of which some are good. */
const max = 100;

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
    return this.#length >= max;
  }
}
