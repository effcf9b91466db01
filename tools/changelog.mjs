// CHANGELOG.md is written by hand, so a release changes one heading in it and leaves every other byte alone: a Markdown
// parser says where the headings are, a changelog library would write the file anew.

import { lexer } from 'marked'

const UNRELEASED = /^\[?unreleased\]?$/i

/** The text with what was unreleased under the version's own heading. Throws when there is nothing to release. */
export function stamp(text, version, date) {
  const tokens = lexer(text)
  if (tokens.map(({ raw }) => raw).join('') !== text) throw new Error('CHANGELOG.md must have plain line ends')
  const start = tokens.findIndex((token) => UNRELEASED.test(sectionOf(token)))
  if (start < 0) throw new Error('CHANGELOG.md has no section "Unreleased"')
  const length = tokens.slice(start + 1).findIndex((token) => sectionOf(token) !== '')
  const section = tokens.slice(start + 1, length < 0 ? undefined : start + 1 + length)
  if (!section.some(({ type }) => type === 'list')) throw new Error('CHANGELOG.md has nothing under "Unreleased"')
  if (tokens.some((token) => sectionOf(token).replace(/[[\]]/g, '').startsWith(`${version} `)))
    throw new Error(`CHANGELOG.md has a section ${version} already`)
  const { raw } = tokens[start]
  const heading = raw.trimEnd()
  tokens[start].raw = `${heading}\n\n## ${version} - ${date}${raw.slice(heading.length)}`
  return tokens.map(({ raw }) => raw).join('')
}

/** The title, if it is the heading of a section; else empty. */
function sectionOf(token) {
  return token.type === 'heading' && token.depth === 2 ? token.text : ''
}
