/** There is no Go on this machine: peers in Go are skipped, with this as the word. */
export class GoMissing extends Error {}
