// What acquire() gives: the right to use one connection, which ends once. The connection itself could not tell its
// holders apart: a late release() of the one before would take it away from the next.

import type { InspectOptionsStylized } from 'node:util'
import { NetError } from './errors.js'
import { inspection, shown } from './inspection.js'
import type { Conn } from './net.js'
import type { Lease } from './pool_api.js'
import type { Member } from './pool_member.js'

/** Where connections go back to. */
export interface Lender {
  giveBack(member: Member): void
  giveUp(member: Member, error: Error | undefined): void
}

export class PoolLease implements Lease {
  readonly upstream: string
  private member: Member | undefined

  constructor(
    readonly lender: Lender,
    member: Member,
  ) {
    this.member = member
    this.upstream = member.address.name
  }

  get conn(): Conn {
    const { member } = this
    if (member === undefined) throw this.overError()
    return member.conn as Conn
  }

  release(): void {
    this.lender.giveBack(this.end())
  }

  discard(error?: Error): void {
    this.lender.giveUp(this.end(), error)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.member !== undefined) this.release()
  }

  get isOver(): boolean {
    return this.member === undefined
  }

  [inspection](depth: number, options: InspectOptionsStylized): string {
    const { upstream, member } = this
    return shown('Lease', { upstream, conn: member?.conn }, depth, options)
  }

  private end(): Member {
    const { member } = this
    if (member === undefined) throw this.overError()
    this.member = undefined
    return member
  }

  private overError(): NetError {
    const reason = 'the lease is over: its connection was given back, and may be used by others'
    return new NetError('ERR_POOL_RELEASED', { op: 'release', remote: this.upstream }, reason)
  }
}
