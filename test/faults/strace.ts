// Whether strace(1) can be used here to watch system calls and to make them fail.

import { spawnSync } from 'node:child_process'

/** Why not, or undefined. Says so to who runs the tests, and fails where EDGEWIRE_REQUIRE_STRACE=1 demands it. */
export function obstacle(file: string): string | undefined {
  const reason = find()
  if (reason === undefined) return undefined
  if (process.env.EDGEWIRE_REQUIRE_STRACE === '1') throw new Error(reason)
  console.warn(`${file} is skipped: ${reason}`)
  return reason
}

function find(): string | undefined {
  if (process.platform !== 'linux' || process.arch !== 'x64') return 'only on Linux on x64, where epoll_wait is ours'
  const inject = ['--inject=accept4:error=EINTR:when=1..2+1', 'true']
  const { status, error, stderr } = spawnSync('strace', ['-f', '-qq', '-o', '/dev/null', ...inject], {
    encoding: 'utf8',
  })
  if (error !== undefined) return 'strace is not installed (apt-get install strace)'
  return status === 0 ? undefined : `strace may not trace here: ${stderr.trim()}`
}
