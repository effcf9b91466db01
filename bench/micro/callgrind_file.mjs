// @ts-check
// Reads the file that callgrind leaves (valgrind's manual, "Callgrind Format Specification"), written with
// --compress-strings=no and --compress-pos=no, with one event: instructions.

/**
 * Adds up the own costs of all functions but those whose names begin with `exceptPrefix`. The costs of what a function
 * calls stand behind `calls=`, and are the callee's own.
 * @param {string} text
 * @param {string} exceptPrefix
 * @returns {{ total: number, byFunction: Map<string, number> }}
 */
export function countInstructions(text, exceptPrefix) {
  /** @type {Map<string, number>} */
  const byFunction = new Map()
  let total = 0
  let name = ''
  let ofCallee = false
  for (const line of text.split('\n')) {
    if (line.startsWith('fn=')) name = line.slice(3)
    else if (line.startsWith('calls=')) ofCallee = true
    else if (/^\d+ \d+$/.test(line)) {
      const cost = Number(line.slice(line.indexOf(' ') + 1))
      if (!ofCallee && !name.startsWith(exceptPrefix)) {
        total += cost
        byFunction.set(name, (byFunction.get(name) ?? 0) + cost)
      }
      ofCallee = false
    }
  }
  return { total, byFunction }
}
