// @ts-check
// Markdown as the documents are written: tables, and paragraphs within their width.

const WIDTH = 120

/**
 * @param {string[]} head
 * @param {string[][]} rows
 * @param {number} [texts] columns that are text; all if there is no such number
 */
export function table(head, rows, texts = head.length) {
  const line = (/** @type {string[]} */ cells) => `| ${cells.join(' | ')} |`
  const rule = head.map((_, column) => (column < texts ? '---' : '--:'))
  return [line(head), `|${rule.join('|')}|`, ...rows.map(line)].join('\n')
}

/** Breaks a paragraph into lines. @param {string} text */
export function wrap(text) {
  const lines = ['']
  for (const word of text.split(' ')) {
    const line = lines[lines.length - 1]
    if (line !== '' && line.length + 1 + word.length > WIDTH) lines.push(word)
    else lines[lines.length - 1] = line === '' ? word : `${line} ${word}`
  }
  return lines.join('\n')
}
