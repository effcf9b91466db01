// Commands as a user starts them: in a folder of their own, with an empty home, and a PATH of node, npm, npx and sh.

import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, realpathSync, symlinkSync } from 'node:fs'
import { delimiter, join } from 'node:path'

const RUN_MS = 240_000

export interface Outcome {
  code: number | null
  stdout: string
  stderr: string
  /** Both, for a search or a failure's message. */
  output: string
}

/** Runs to the end; throws only when the command cannot be started. */
export function run(cwd: string, command: string, args: string[], env: NodeJS.ProcessEnv = process.env): Outcome {
  const options = { cwd, env, encoding: 'utf8', timeout: RUN_MS, killSignal: 'SIGKILL', maxBuffer: 2 ** 26 } as const
  const { status, error, stdout, stderr } = spawnSync(command, args, options)
  if (error !== undefined && status !== null) throw error
  return { code: status, stdout, stderr, output: `${error?.message ?? ''}${stdout}${stderr}` }
}

export function must(cwd: string, command: string, args: string[], env?: NodeJS.ProcessEnv): Outcome {
  const outcome = run(cwd, command, args, env)
  if (outcome.code !== 0) throw new Error(`${command} ${args.join(' ')}: exit code ${outcome.code}\n${outcome.output}`)
  return outcome
}

function inPath(command: string): string {
  const found = (process.env.PATH ?? '').split(delimiter).map((folder) => join(folder, command))
  const path = found.find(existsSync)
  if (path === undefined) throw new Error(`${command} is not in PATH`)
  return realpathSync(path)
}

let registry: string | undefined

/** What a user has who has Node and nothing else; only the way to the registry is that of this machine. */
export function bareEnvironment(folder: string): NodeJS.ProcessEnv {
  const bin = join(folder, 'bin')
  const home = join(folder, 'home')
  const temporary = join(folder, 'tmp')
  for (const made of [bin, home, temporary]) mkdirSync(made)
  symlinkSync(process.execPath, join(bin, 'node'))
  for (const command of ['npm', 'npx', 'sh']) symlinkSync(inPath(command), join(bin, command))
  registry ??= must(folder, 'npm', ['config', 'get', 'registry']).stdout.trim()
  const passed = Object.entries(process.env).filter(([name]) =>
    /^(https?_proxy|no_proxy|node_extra_ca_certs)$/i.test(name),
  )
  return {
    ...Object.fromEntries(passed),
    PATH: bin,
    HOME: home,
    TMPDIR: temporary,
    NO_COLOR: '1',
    npm_config_registry: registry,
    npm_config_audit: 'false',
    npm_config_fund: 'false',
    npm_config_update_notifier: 'false',
    YARN_NPM_REGISTRY_SERVER: registry,
    YARN_ENABLE_TELEMETRY: '0',
    // Where CI=true, the first install would be refused for making a lock file.
    YARN_ENABLE_IMMUTABLE_INSTALLS: '0',
    BUN_CONFIG_REGISTRY: registry,
  }
}
