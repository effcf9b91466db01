// What `npm run bench:instructions` makes of valgrind's file, and when it complains.

import { describe, expect, it } from 'vitest'
import { countInstructions } from '../../bench/micro/callgrind_file.mjs'
import { compare } from '../../bench/micro/reference.mjs'

const file = `# callgrind format
positions: line
events: Ir
summary: 1060

fl=/core/reactor.cc
fn=edgewire::Reactor::turn(edgewire::Look)
10 5
fi=/core/ring.h
20 7
fe=/core/reactor.cc
cfi=/bench/kernel.cc
cfn=edgewire::bench::receive(int)
calls=3 40
11 900
12 8

fl=/bench/kernel.cc
fn=edgewire::bench::receive(int)
40 900

fl=/core/reactor.cc
fn=edgewire::Reactor::turn(edgewire::Look)
13 40
`

describe('countInstructions', () => {
  it('adds what a function does itself, and leaves out callees and the excepted namespace', () => {
    const { total, byFunction } = countInstructions(file, 'edgewire::bench::')
    expect(total).toBe(60)
    expect([...byFunction]).toEqual([['edgewire::Reactor::turn(edgewire::Look)', 60]])
    expect(countInstructions(file, 'nothing has this name').total).toBe(960)
  })
})

describe('compare', () => {
  const before = { echo: { instructions: 1000, calls: { recv: 1, epoll_wait: 0.031 } } }

  it('allows a tenth more instructions, and not a bit more', () => {
    expect(compare(before, { echo: { instructions: 1100, calls: { recv: 1 } } })).toEqual([])
    const [finding] = compare(before, { echo: { instructions: 1101, calls: { recv: 1 } } })
    expect(finding).toBe('echo: 1101 instructions a message, 10.1% more than 1000')
  })

  it('finds every further system call, of a kind that was there or not', () => {
    const now = { echo: { instructions: 900, calls: { recv: 1.75, epoll_wait: 0.031, close: 1 } } }
    expect(compare(before, now)).toEqual([
      'echo: 1.75 calls of recv a message instead of 1',
      'echo: 1 calls of close a message instead of 0',
    ])
  })

  it('says nothing of a load that the reference does not have', () => {
    expect(compare(before, { fanout: { instructions: 9999, calls: { send: 5 } } })).toEqual([])
  })
})
