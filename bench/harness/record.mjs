// @ts-check
// A run as a file: everything that the tables and the report are made from.
import { mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { stripVTControlCharacters } from 'node:util'
import { commitOf, machine, versions } from './machine.mjs'

/** @import { Counted, Failure, Measured } from './campaign.mjs' */
/** @import { Commit, Machine } from './machine.mjs' */
/** @import { Absence } from './plan.mjs' */
/** @import { ServerName } from './servers.mjs' */

export const FORMAT = 1

/** @typedef {Pick<RunRecord, 'skipped' | 'absent' | 'failures' | 'loads' | 'memory' | 'syscalls'>} Results */

/**
 * @typedef {object} RunRecord
 * @property {number} format  FORMAT, or what wrote it was another version of this program
 * @property {string} date
 * @property {Commit} commit
 * @property {Machine} machine
 * @property {Record<string, string>} versions  of the peers and tools that were there
 * @property {{ trials: number, goalTrials?: number, seconds: number, warmup: number, quick: boolean }} settings
 * @property {number} tookSeconds
 * @property {string[]} skipped   a line for each server or pass that could not take part
 * @property {Absence[]} absent   servers that cannot take part in a load
 * @property {Failure[]} failures
 * @property {Measured[]} loads
 * @property {{ server: ServerName, bytes: number[] }[]} memory
 * @property {Counted[]} syscalls
 */

/**
 * Measures, and says of what. The commit, and whether the tree has changes that it has not, are asked before the first
 * trial: a run takes half an hour, and what is edited or committed meanwhile is not what was built and measured.
 * @param {string} root of the clone
 * @param {RunRecord['settings']} settings
 * @param {() => Promise<Results>} measure
 * @returns {Promise<RunRecord>}
 */
export async function recordRun(root, { trials, goalTrials, seconds, warmup, quick }, measure) {
  const begun = new Date()
  const about = {
    format: FORMAT,
    date: begun.toISOString(),
    commit: commitOf(root),
    machine: machine(),
    versions: versions(),
    settings: { trials, ...(goalTrials !== undefined && { goalTrials }), seconds, warmup, quick },
  }
  const results = await measure()
  return { ...about, tookSeconds: Math.round((Date.now() - begun.getTime()) / 1000), ...results }
}

/**
 * @param {string} file
 * @param {RunRecord} record
 */
export function writeRecord(file, record) {
  mkdirSync(path.dirname(file), { recursive: true })
  const whole = besides(file)
  try {
    writeFileSync(whole, `${layOut(record)}\n`)
    renameSync(whole, file) // only a whole file takes the place of an older one: the disk may be full
  } catch (error) {
    rmSync(whole, { force: true })
    throw error
  }
}

/**
 * Asked before anything is measured: a run takes half an hour.
 * @param {string} file
 */
export function requireWritable(file) {
  const probe = besides(file)
  try {
    if (statSync(file, { throwIfNoEntry: false })?.isDirectory()) throw new Error('it is a folder')
    mkdirSync(path.dirname(file), { recursive: true })
    writeFileSync(probe, '')
    rmSync(probe)
  } catch (error) {
    throw new Error(`${file} cannot be written: ${error instanceof Error ? error.message : error}`)
  }
}

/** @param {string} file */
function besides(file) {
  return `${file}.${process.pid}.part`
}

/** A line for each trial, so that the file can be read, and a difference of two of them, too. @param {RunRecord} record */
function layOut(record) {
  const trials = /** @type {string[]} */ ([])
  const text = JSON.stringify(
    record,
    (key, value) => {
      if (key !== 'trials' || !Array.isArray(value)) return value
      return value.map((trial) => `@${trials.push(JSON.stringify(trial)) - 1}@`)
    },
    1,
  )
  return text.replace(/"@(\d+)@"/g, (_, index) => trials[Number(index)])
}

/**
 * @param {string} file
 * @returns {RunRecord}
 */
export function readRecord(file) {
  const record = parse(file)
  if (record?.format !== FORMAT) throw new Error(`${file} is not a result of this benchmark (format ${FORMAT})`)
  return record
}

/** @param {string} file */
function parse(file) {
  try {
    return JSON.parse(readFileSync(file, 'utf8'))
  } catch (error) {
    throw new Error(`${file} cannot be read: ${error instanceof Error ? error.message : error}`)
  }
}

/**
 * As in "9 trials of each". When the time of a quick run was up, later rounds were left out.
 * @param {Pick<RunRecord, 'settings' | 'loads'>} record
 */
export function describeTrials({ settings: { trials, goalTrials = trials }, loads }) {
  const counts = loads.flatMap(({ servers }) => servers.map((server) => server.trials.length))
  const least = Math.min(...counts)
  if (least < Math.min(trials, goalTrials)) {
    const most = Math.max(...counts)
    return most === least ? `${least} trial${least === 1 ? '' : 's'}` : `${least} to ${most} trials`
  }
  return goalTrials === trials ? `${trials} trials` : `${trials} trials (${goalTrials} under loads that have a goal)`
}

/**
 * What a program said, without its colours and without where the clone lies here: results are published.
 * @param {string} text
 * @param {string} root of the clone
 */
export function portable(text, root) {
  return stripVTControlCharacters(text).replaceAll(`file://${root}`, '').replaceAll(root, '')
}

/**
 * Where a run is written unless the command line says something else.
 * @param {string} root
 * @param {Date} date
 */
export function resultFile(root, date) {
  const stamp = date.toISOString().slice(0, 16).replace(':', '')
  return path.join(root, 'bench/results', `${stamp}.json`)
}
