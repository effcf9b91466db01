package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
)

const (
	lineBytesMax    = len("ECHO ") + 64*1024 + len("\n")
	payloadBytesMax = 1024 * 1024
	headerBytes     = 4
)

var command = []byte("ECHO ")

// A pipelined protocol over a connection. Replies are gathered while requests lie in the buffer, and go out before the
// connection is read again: nobody waits for a reply that lies here.
type pipeline struct {
	conn *net.TCPConn
	in   *bufio.Reader
	out  *bufio.Writer
}

func newPipeline(conn *net.TCPConn, inBytes int) *pipeline {
	pipeline := &pipeline{conn: conn, out: bufio.NewWriterSize(conn, readBytes)}
	pipeline.in = bufio.NewReaderSize(pipeline, inBytes)
	return pipeline
}

// Read is what the bufio.Reader calls when its buffer is empty or ends within a request.
func (pipeline *pipeline) Read(into []byte) (int, error) {
	if err := pipeline.out.Flush(); err != nil {
		return 0, err
	}
	return pipeline.conn.Read(into)
}

// `ECHO <payload>\n` is answered with `+<payload>\n`.
func lines(conn *net.TCPConn) {
	pipeline := newPipeline(conn, lineBytesMax)
	out := pipeline.out
	defer out.Flush()
	for {
		line, err := pipeline.in.ReadSlice('\n')
		if err == bufio.ErrBufferFull || err == nil && !bytes.HasPrefix(line, command) {
			_, _ = out.WriteString("-ERR\n")
			return
		}
		if err != nil {
			return
		}
		// An error of the writer stays, and ends the next read.
		_ = out.WriteByte('+')
		_, _ = out.Write(line[len(command):])
	}
}

// uint32 big-endian length, payload; answered with the same frame.
func frames(conn *net.TCPConn) {
	pipeline := newPipeline(conn, readBytes)
	defer pipeline.out.Flush()
	frame := make([]byte, headerBytes)
	for {
		header := frame[:headerBytes]
		if _, err := io.ReadFull(pipeline.in, header); err != nil {
			return
		}
		length := int(binary.BigEndian.Uint32(header))
		if length == 0 || length > payloadBytesMax {
			return
		}
		if cap(frame) < headerBytes+length {
			frame = make([]byte, headerBytes+length)
		}
		payload := frame[headerBytes : headerBytes+length]
		if _, err := io.ReadFull(pipeline.in, payload); err != nil {
			return
		}
		reply := frame[:headerBytes+length]
		binary.BigEndian.PutUint32(reply, uint32(length))
		// An error of the writer stays, and ends the next read.
		_, _ = pipeline.out.Write(reply)
	}
}
