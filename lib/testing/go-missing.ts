/** There is no Go on this machine: programs in Go are skipped, with this as the word. */
export class GoMissing extends Error {}
