// A DNS server on 127.0.0.1, over UDP and TCP on one port. What it answers, when and whether, is a function of the
// test's; the packets are dns-packet's. It counts what it was asked.

import dgram from 'node:dgram'
import net, { type AddressInfo } from 'node:net'
import { type Answer, decode, encode, type Packet, streamDecode, streamEncode, TRUNCATED_RESPONSE } from 'dns-packet'
import { atEnd } from './harness.ts'

/** The codes of RFC 1035, 4.1.1. */
export const Rcode = { Ok: 0, ServFail: 2, NxDomain: 3, Refused: 5 } as const

export interface Question {
  name: string
  type: 'A' | 'AAAA'
  tcp: boolean
}

export interface Reply {
  answers?: Answer[]
  rcode?: number
  /** Over UDP: nothing but the wish to be asked over TCP. */
  truncated?: boolean
}

/** undefined: no answer, ever. */
export type Respond = (question: Question) => Reply | undefined | Promise<Reply | undefined>

export const a = (name: string, address: string, ttl = 60): Answer => ({ type: 'A', name, data: address, ttl })
export const aaaa = (name: string, address: string, ttl = 60): Answer => ({ type: 'AAAA', name, data: address, ttl })
export const cname = (name: string, data: string, ttl = 60): Answer => ({ type: 'CNAME', name, data, ttl })

/** What a name has, whatever its type: only the records that fit are answered. */
export const records =
  (...all: Answer[]): Respond =>
  ({ name, type }) => ({ answers: all.filter((each) => each.type === type && each.name === name) })

export class DnsServer {
  readonly asked: Question[] = []
  readonly server: string
  respond: Respond
  private stopped = false

  private constructor(udp: dgram.Socket, tcp: net.Server, respond: Respond) {
    this.respond = respond
    this.server = `127.0.0.1:${(tcp.address() as AddressInfo).port}`
    const sockets = new Set<net.Socket>()
    udp.on('message', async (message, { port, address }) => {
      const packet = await this.answer(message, false)
      if (packet !== undefined && !this.stopped) udp.send(encode(packet), port, address)
    })
    tcp.on('connection', (socket) => {
      sockets.add(socket)
      let bytes = Buffer.alloc(0)
      socket.on('error', () => {})
      socket.on('data', async (chunk) => {
        bytes = Buffer.concat([bytes, chunk])
        if (bytes.length < 2 || bytes.length < 2 + bytes.readUInt16BE(0)) return
        const packet = await this.answer(encode(streamDecode(bytes) as Packet), true)
        bytes = Buffer.alloc(0)
        if (packet !== undefined) socket.write(streamEncode(packet))
      })
    })
    atEnd(() => {
      this.stopped = true
      for (const socket of sockets) socket.destroy()
      udp.close()
      tcp.close()
    })
  }

  static async start(respond: Respond): Promise<DnsServer> {
    for (let tries = 0; ; tries++) {
      const tcp = net.createServer().listen(0, '127.0.0.1')
      await new Promise((resolve) => tcp.once('listening', resolve))
      const udp = dgram.createSocket('udp4')
      // The port is free for TCP; for UDP another process may have it.
      const bound = await new Promise<boolean>((resolve) => {
        udp.once('error', () => resolve(false))
        udp.bind((tcp.address() as AddressInfo).port, '127.0.0.1', () => resolve(true))
      })
      if (bound) return new DnsServer(udp, tcp, respond)
      tcp.close()
      udp.close()
      if (tries === 20) throw new Error('no port for a DNS server')
    }
  }

  /** How often it was asked for this name. */
  count(name: string, type?: 'A' | 'AAAA'): number {
    return this.asked.filter((each) => each.name === name && (type === undefined || each.type === type)).length
  }

  private async answer(message: Buffer, tcp: boolean): Promise<Packet | undefined> {
    const query = decode(message)
    const { name, type } = query.questions![0]!
    const question = { name: name.toLowerCase(), type: type as 'A' | 'AAAA', tcp }
    this.asked.push(question)
    const reply = await this.respond(question)
    if (reply === undefined) return undefined
    const { answers = [], rcode = Rcode.Ok, truncated = false } = reply
    const flags = rcode | (truncated && !tcp ? TRUNCATED_RESPONSE : 0)
    return {
      type: 'response',
      id: query.id!,
      flags,
      questions: query.questions!,
      answers: truncated && !tcp ? [] : answers,
    }
  }
}
