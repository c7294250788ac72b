package ackwell

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	ackwellv1 "ackwell.dev/ackwell/v1"
)

// ErrClosed is what a closed producer answers.
var ErrClosed = errors.New("ackwell: the producer is closed")

const (
	defaultOutstanding      = 10_000
	defaultOutstandingBytes = 16 << 20
)

type produceSettings struct {
	messages, bytes int
}

// ProduceOption changes how a producer works.
type ProduceOption func(*produceSettings)

// MaxOutstanding lets at most so many messages, and encoded bytes, be unconfirmed: then [Producer.Send] waits. The default is
// 10 000 and 16 MiB.
func MaxOutstanding(messages, bytes int) ProduceOption {
	return func(s *produceSettings) { s.messages, s.bytes = messages, bytes }
}

// Producer stores a stream of messages, many of them on their way at once. It is safe for use by many goroutines; what one of
// them sends is stored in order. It has to be closed.
type Producer struct {
	client   *Client
	queue    string
	settings produceSettings

	// turn is held by the one Send that waits for room, so that messages are taken in order.
	turn chan struct{}
	// room, more: something was confirmed, something is to be done. Each holds at most one signal.
	room, more chan struct{}
	// closing is closed when no message is taken any more, abandoned when unconfirmed ones are given up, over at the end.
	closing, abandoned, over chan struct{}
	closeOnce, abandonOnce   sync.Once

	lock     sync.Mutex
	isClosed bool
	// fresh are messages that are not in a batch yet.
	fresh []*Confirmation
	// messages and bytes are unconfirmed; idle is closed when there are none.
	messages, bytes int
	idle            chan struct{}
}

// Confirmation is the promise of an answer to one message.
type Confirmation struct {
	message *ackwellv1.Message
	size    int
	taken   time.Time
	done    chan struct{}
	sent    Sent
	err     error
}

// Done is closed when the message is on disk, or refused.
func (c *Confirmation) Done() <-chan struct{} { return c.done }

// Wait waits until the message is on disk, or refused. When ctx ends before, that is the error, and the message may still be
// stored.
func (c *Confirmation) Wait(ctx context.Context) (Sent, error) {
	select {
	case <-c.done:
		return c.sent, c.err
	default:
	}
	select {
	case <-c.done:
		return c.sent, c.err
	case <-ctx.Done():
		return Sent{}, ctx.Err()
	}
}

// NewProducer makes a producer for a queue. It waits for a broker that is away as long as the client's calls do.
func (c *Client) NewProducer(queue string, options ...ProduceOption) *Producer {
	settings := produceSettings{messages: defaultOutstanding, bytes: defaultOutstandingBytes}
	for _, option := range options {
		option(&settings)
	}
	p := &Producer{
		client:    c,
		queue:     queue,
		settings:  settings,
		turn:      make(chan struct{}, 1),
		room:      make(chan struct{}, 1),
		more:      make(chan struct{}, 1),
		closing:   make(chan struct{}),
		abandoned: make(chan struct{}),
		over:      make(chan struct{}),
		idle:      make(chan struct{}),
	}
	close(p.idle)
	go newProduction(p).run()
	return p
}

// Send takes a message, to be stored soon. It waits while as many are unconfirmed as there may be. An error means that the
// message was not taken; whether it was stored the Confirmation says.
func (p *Producer) Send(ctx context.Context, message Message) (*Confirmation, error) {
	wire, err := p.client.wire(ctx, []Message{message})
	if err != nil {
		return nil, err
	}
	confirmation := &Confirmation{message: wire[0], size: proto.Size(wire[0]), done: make(chan struct{})}
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-p.closing:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for {
		taken, err := p.take(confirmation)
		if err != nil {
			return nil, err
		}
		if taken {
			return confirmation, nil
		}
		select {
		case <-p.room:
		case <-p.closing:
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// take reports whether there was room.
func (p *Producer) take(confirmation *Confirmation) (bool, error) {
	p.lock.Lock()
	defer p.lock.Unlock()
	if p.isClosed {
		return false, ErrClosed
	}
	isFull := p.messages >= p.settings.messages || p.bytes+confirmation.size > p.settings.bytes
	if p.messages > 0 && isFull {
		return false, nil
	}
	if p.messages == 0 {
		p.idle = make(chan struct{})
	}
	confirmation.taken = time.Now()
	p.messages++
	p.bytes += confirmation.size
	p.fresh = append(p.fresh, confirmation)
	signal(p.more)
	return true, nil
}

// Flush waits until all that was taken before is confirmed or refused.
func (p *Producer) Flush(ctx context.Context) error {
	p.lock.Lock()
	idle := p.idle
	p.lock.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close takes no more messages and waits until all are confirmed or refused. When ctx ends before, the rest fails with
// [ErrClosed]; it may be stored nevertheless.
func (p *Producer) Close(ctx context.Context) error {
	p.closeOnce.Do(p.stopTaking)
	select {
	case <-p.over:
		return nil
	case <-ctx.Done():
		p.abandonOnce.Do(func() { close(p.abandoned) })
		<-p.over
		return ctx.Err()
	}
}

func (p *Producer) stopTaking() {
	p.lock.Lock()
	defer p.lock.Unlock()
	p.isClosed = true
	close(p.closing)
}

// confirm ends the wait for one message.
func (p *Producer) confirm(confirmation *Confirmation, sent Sent, err error) {
	confirmation.sent, confirmation.err = sent, err
	confirmation.message = nil
	close(confirmation.done)
	p.lock.Lock()
	p.messages--
	p.bytes -= confirmation.size
	if p.messages == 0 {
		close(p.idle)
	}
	p.lock.Unlock()
	signal(p.room)
}

func signal(channel chan struct{}) {
	select {
	case channel <- struct{}{}:
	default:
	}
}
