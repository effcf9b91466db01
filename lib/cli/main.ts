#!/usr/bin/env node
// The command `edgewire`.

import { readFileSync } from 'node:fs'
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import { NetError } from '../errors.js'
import { build } from './build.js'
import type { EchoOptions } from './echo.js'

const ExitBadUse = 2
const ExitFailure = 1

function port(text: string): number {
  const number = Number(text)
  if (/^\d+$/.test(text) && number <= 65_535) return number
  throw new InvalidArgumentError('It must be a number from 0 to 65535.')
}

function version(): string {
  const file = new URL('../../package.json', import.meta.url)
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version
}

const program = new Command('edgewire')
  .description('TCP and Unix sockets for Node on a reactor of its own')
  .version(version())
  .exitOverride()
  .showHelpAfterError('(edgewire --help shows the options)')

program
  .command('echo')
  .description('serves an echo until SIGINT or SIGTERM')
  .option('--host <address>', 'address to listen on', '127.0.0.1')
  .option('--port <number>', 'port to listen on, 0 for any free one', port, 7000)
  .option('--path <socket>', 'Unix socket to listen on, instead of host and port')
  .addOption(new Option('--style <style>', 'how the echo is written').choices(['handlers', 'task']).default('handlers'))
  .action(async (options: EchoOptions) => {
    // It loads the addon, which the other commands must do without.
    const { echo } = await import('./echo.js')
    await echo(options)
  })

program
  .command('build')
  .description('compiles the addon on this machine, for when no published binary fits it')
  .action(build)

try {
  await program.parseAsync()
} catch (error) {
  if (error instanceof CommanderError) {
    // commander has printed what is wrong, or the help.
    process.exitCode = error.exitCode === 0 ? 0 : ExitBadUse
  } else {
    console.error(`edgewire: ${error instanceof Error ? error.message : String(error)}`)
    process.exitCode = error instanceof NetError && error.code === 'ERR_INVALID_ARG' ? ExitBadUse : ExitFailure
  }
}
