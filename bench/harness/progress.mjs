// @ts-check
// Shows which trial runs. Nothing is drawn while one does: the cores belong to the server and the load generator.
import logUpdate from 'log-update'
import pc from 'picocolors'

/** @import { Step } from './campaign.mjs' */

const BAR = 30

export class Progress {
  #done = 0
  #last = ''
  #total

  /** @param {number} total trials */
  constructor(total) {
    this.#total = total
  }

  /** @param {Step} step */
  onStep = (step) => {
    const name = `${step.title} | ${step.server.label} | round ${step.round + 1}`
    if (step.outcome !== undefined) this.#done++
    if (process.stdout.isTTY) {
      this.#draw(name, step.outcome)
    } else if (step.outcome !== undefined) {
      console.log(`[${this.#done}/${this.#total}] ${name}: ${step.outcome}`)
    }
  }

  /**
   * @param {string} name
   * @param {string} [outcome]
   */
  #draw(name, outcome) {
    if (outcome !== undefined) this.#last = pc.dim(`${name}: ${outcome}`)
    const filled = Math.round((this.#done / this.#total) * BAR)
    const bar = pc.cyan('#'.repeat(filled)) + pc.dim('.'.repeat(BAR - filled))
    logUpdate(`${bar} ${this.#done}/${this.#total}  ${outcome === undefined ? name : ''}\n${this.#last}`)
  }

  /** Leaves the terminal to the table. */
  end() {
    if (!process.stdout.isTTY) return
    logUpdate.clear()
    logUpdate.done() // shows the cursor again
  }
}
