// Command conformance is the driver of the Go client for tests/conformance, whose README says what each command does.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"log"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"ackwell.dev/ackwell"
)

const maxLine = 64 << 20

// leaksAfter is how long goroutines that were told to end may need for it.
const leaksAfter = 2 * time.Second

type driver struct {
	output sync.Mutex

	// lock guards what is below; names of the runner's are the keys.
	lock      sync.Mutex
	client    *ackwell.Client
	calls     map[int]context.CancelFunc
	producers map[string]*producer
	consumers map[string]*ackwell.Consumer
	handled   map[string]chan *command
	number    int
}

func main() {
	client, err := ackwell.NewClient()
	if err != nil {
		log.Fatal(err)
	}
	d := &driver{
		client:    client,
		calls:     map[int]context.CancelFunc{},
		producers: map[string]*producer{},
		consumers: map[string]*ackwell.Consumer{},
		handled:   map[string]chan *command{},
	}
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	d.say(object{"event": "ready", "protocol": 1})
	ended := make(chan struct{})
	go func() {
		d.serve()
		close(ended)
	}()
	select {
	case <-stop.Done():
	case <-ended:
	}
	d.close()
}

// serve begins commands in their order, until the end of stdin or until the command `close` is done.
func (d *driver) serve() {
	lines := bufio.NewReaderSize(os.Stdin, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		command := &command{}
		if err := json.Unmarshal(line, command); err != nil {
			log.Fatalf("not a command: %v", err)
		}
		if command.Op == "close" {
			go d.closeAndExit(command)
			continue
		}
		d.begin(command)
	}
}

func (d *driver) begin(c *command) {
	switch c.Op {
	case "finish":
		d.finish(c)
	case "cancel_call":
		d.withLock(func() {
			if cancel := d.calls[c.Call]; cancel != nil {
				cancel()
			}
		})
		d.answer(c, object{}, nil)
	case "options":
		d.answer(c, object{}, d.options(c))
	case "producer_open":
		d.openProducer(c)
	case "producer_send":
		d.producer(c.Producer).queue <- c
	case "producer_flush":
		go func() { d.answer(c, object{}, d.producer(c.Producer).library.Flush(context.Background())) }()
	case "producer_close":
		go func() { d.answer(c, object{}, d.producer(c.Producer).library.Close(context.Background())) }()
	case "consume":
		d.consume(c)
	case "consume_stop":
		go d.stopConsumer(c)
	default:
		d.beginCall(c)
	}
}

// beginCall runs a call in a context that its timeout and `cancel_call` end.
func (d *driver) beginCall(c *command) {
	call, ok := calls[c.Op]
	if !ok {
		d.say(object{"id": c.ID, "unsupported": true})
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	if c.TimeoutMs != nil {
		ctx, cancel = context.WithTimeout(ctx, milliseconds(*c.TimeoutMs))
	}
	var client *ackwell.Client
	d.withLock(func() { d.calls[c.ID], client = cancel, d.client })
	go func() {
		defer cancel()
		result, err := call(ctx, client, c)
		d.answer(c, result, err)
	}()
}

func (d *driver) options(c *command) error {
	client, err := ackwell.NewClient(ackwell.WithRetryLimit(milliseconds(*c.RetryLimitMs)))
	if err != nil {
		return err
	}
	d.withLock(func() { d.client, client = client, d.client })
	return client.Close()
}

// close drains consumers, then producers, then ends the client.
func (d *driver) close() {
	var consumers []*ackwell.Consumer
	var producers []*producer
	d.withLock(func() {
		for _, consumer := range d.consumers {
			consumers = append(consumers, consumer)
		}
		for _, producer := range d.producers {
			producers = append(producers, producer)
		}
	})
	var all sync.WaitGroup
	for _, consumer := range consumers {
		all.Go(func() { _ = consumer.Shutdown(context.Background()) })
	}
	all.Wait()
	for _, producer := range producers {
		_ = producer.library.Close(context.Background())
		producer.end()
	}
	_ = d.client.Close()
}

func (d *driver) closeAndExit(c *command) {
	d.close()
	d.answer(c, object{"leaks": leaks()}, nil)
	os.Exit(0)
}

// leaks names the goroutines of the library that do not end.
func leaks() []string {
	deadline := time.Now().Add(leaksAfter)
	for {
		left := goroutines()
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
		runtime.Gosched()
	}
}

func goroutines() []string {
	stacks := make([]byte, 4<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	left := []string{}
	for _, stack := range strings.Split(string(stacks), "\n\n") {
		if strings.Contains(stack, "ackwell.dev/ackwell.") || strings.Contains(stack, "google.golang.org/grpc") {
			left = append(left, stack)
		}
	}
	return left
}

func (d *driver) withLock(action func()) {
	d.lock.Lock()
	defer d.lock.Unlock()
	action()
}

// name gives a new name of the driver's.
func (d *driver) name() (name string) {
	d.withLock(func() {
		d.number++
		name = "d" + strconv.Itoa(d.number)
	})
	return name
}

func (d *driver) answer(c *command, result object, err error) {
	if err != nil {
		d.say(object{"id": c.ID, "error": errorJSON(err)})
		return
	}
	d.say(object{"id": c.ID, "ok": result})
}

func (d *driver) say(line object) {
	text, err := json.Marshal(line)
	if err != nil {
		log.Fatal(err)
	}
	d.output.Lock()
	defer d.output.Unlock()
	if _, err := os.Stdout.Write(append(text, '\n')); err != nil {
		log.Fatal(err)
	}
}
