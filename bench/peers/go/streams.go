package main

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"time"
)

const (
	// As large as the floor's and Deno's: fewer system calls for large messages. Only the pages that are used are resident.
	readBytes = 68 * 1024

	// The pattern's length is a multiple of its period, so that it can be sent again and again.
	period       = 251
	patternBytes = period * 1024
)

// What the app deadline gives a connection to send its next bytes.
var deadline time.Duration

// A buffer per connection that comes would keep the garbage collector busy.
var buffers = sync.Pool{New: func() any {
	buffer := make([]byte, readBytes)
	return &buffer
}}

// io.Copy would splice(2) from socket to socket through a pipe: dearer for small messages.
func echo(conn *net.TCPConn) {
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	for {
		count, err := conn.Read(*buffer)
		if err != nil {
			return
		}
		if _, err := conn.Write((*buffer)[:count]); err != nil {
			return
		}
	}
}

func echoWithDeadline(conn *net.TCPConn) {
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	for {
		if err := conn.SetReadDeadline(time.Now().Add(deadline)); err != nil {
			return
		}
		count, err := conn.Read(*buffer)
		if err != nil {
			return
		}
		if _, err := conn.Write((*buffer)[:count]); err != nil {
			return
		}
	}
}

// Who gets what is published. The publisher's goroutine writes to all subscribers itself: a channel and a goroutine for
// each of them would cost a switch per message. A slow subscriber makes its publisher wait.
type room struct {
	mutex       sync.Mutex
	subscribers map[*net.TCPConn]struct{}
}

var everybody = room{subscribers: map[*net.TCPConn]struct{}{}}

func fanout(conn *net.TCPConn) {
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	count, err := conn.Read(*buffer)
	if err != nil {
		return
	}
	if (*buffer)[0] == 'S' {
		everybody.subscribe(conn, *buffer)
		return
	}
	for err == nil {
		everybody.publish((*buffer)[:count])
		count, err = conn.Read(*buffer)
	}
}

// Returns when the subscriber is gone.
func (room *room) subscribe(conn *net.TCPConn, buffer []byte) {
	room.mutex.Lock()
	_, err := conn.Write([]byte{'S'})
	room.subscribers[conn] = struct{}{}
	room.mutex.Unlock()
	for err == nil {
		_, err = conn.Read(buffer)
	}
	conn.Close() // frees a publisher that waits for it, and holds the lock
	room.mutex.Lock()
	delete(room.subscribers, conn)
	room.mutex.Unlock()
}

func (room *room) publish(message []byte) {
	room.mutex.Lock()
	defer room.mutex.Unlock()
	for conn := range room.subscribers {
		_, _ = conn.Write(message) // one that is gone removes itself
	}
}

func sink(conn *net.TCPConn) {
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	var total uint64
	for {
		count, err := conn.Read(*buffer)
		total += uint64(count)
		if err == io.EOF {
			break
		}
		if err != nil {
			return
		}
	}
	_, _ = conn.Write(binary.BigEndian.AppendUint64(nil, total))
}

var pattern = func() []byte {
	bytes := make([]byte, patternBytes)
	for at := range bytes {
		bytes[at] = byte(at % period)
	}
	return bytes
}()

func source(conn *net.TCPConn) {
	var request [8]byte
	if _, err := io.ReadFull(conn, request[:]); err != nil {
		return
	}
	for left := binary.BigEndian.Uint64(request[:]); left > 0; {
		piece := pattern
		if left < patternBytes {
			piece = pattern[:left]
		}
		if _, err := conn.Write(piece); err != nil {
			return
		}
		left -= uint64(len(piece))
	}
}
