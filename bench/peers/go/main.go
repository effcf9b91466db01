// The apps of the benchmark on Go's net, one goroutine a connection, written as a careful user would write them.
//
//	edgewire-go --port 0 [--host 127.0.0.1] [--app echo] [--procs 1]     prints "listening on 127.0.0.1:PORT"
//
// The apps are described in bench/README.md. SIGTERM or SIGINT ends it with status 0; bad options end it with 2.
//
// --procs is GOMAXPROCS: 1 by default, because the other servers run on one thread too. TCP_NODELAY is on by itself.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The same for every server here, where the runtime lets it be chosen.
const backlog = 4096

// An app serves one connection in a goroutine of its own; when it returns, the connection is closed.
type app func(conn *net.TCPConn)

var apps = map[string]app{
	"echo":     echo,
	"deadline": echoWithDeadline,
	"fanout":   fanout,
	"lines":    lines,
	"frames":   frames,
	"sink":     sink,
	"source":   source,
}

func main() {
	host := flag.String("host", "127.0.0.1", "address to listen on")
	port := flag.Int("port", -1, "port to listen on; 0: any free one")
	name := flag.String("app", "echo", "one of "+appNames())
	deadlineMs := flag.Int("deadline-ms", 30_000, "what the app deadline gives a connection to send its next bytes")
	procs := flag.Int("procs", 1, "GOMAXPROCS")
	flag.Parse()
	serve, known := apps[*name]
	switch {
	case flag.NArg() > 0:
		refuse("only options are taken.")
	case *port < 0 || *port > 65535:
		refuse("--port takes a number from 0 to 65535.")
	case !known:
		refuse("--app takes one of " + appNames() + ".")
	case *deadlineMs < 1000:
		refuse("--deadline-ms takes a number from 1000.")
	case *procs < 1:
		refuse("--procs takes a number from 1.")
	}
	deadline = time.Duration(*deadlineMs) * time.Millisecond
	runtime.GOMAXPROCS(*procs)

	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	// No keep-alive: none of the other servers asks for it, and it is three system calls for each connection.
	config := net.ListenConfig{KeepAlive: -1}
	listener, err := config.Listen(context.Background(), "tcp", net.JoinHostPort(*host, strconv.Itoa(*port)))
	if err == nil {
		err = setBacklog(listener.(*net.TCPListener))
	}
	if err != nil {
		fail(err)
	}
	fmt.Printf("listening on %s\n", listener.Addr())

	go accept(listener.(*net.TCPListener), serve)
	<-signals
}

func accept(listener *net.TCPListener, serve app) {
	for {
		conn, err := listener.AcceptTCP()
		if err != nil {
			fail(err) // no descriptors above all: a benchmark that lacks them must fail, not limp
		}
		go func() {
			defer conn.Close()
			serve(conn)
		}()
	}
}

// net.Listen takes net.core.somaxconn, which may be less or more. Listening again changes it.
func setBacklog(listener *net.TCPListener) error {
	raw, err := listener.SyscallConn()
	if err != nil {
		return err
	}
	var failure error
	err = raw.Control(func(fd uintptr) { failure = syscall.Listen(int(fd), backlog) })
	if err != nil {
		return err
	}
	return failure
}

func appNames() string {
	names := make([]string, 0, len(apps))
	for name := range apps {
		names = append(names, name)
	}
	sort.Strings(names)
	return strings.Join(names, ", ")
}

func refuse(problem string) {
	fmt.Fprintln(os.Stderr, "edgewire-go:", problem)
	os.Exit(2)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "edgewire-go:", err)
	os.Exit(1)
}
