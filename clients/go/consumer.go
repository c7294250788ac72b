package ackwell

import (
	"context"
	"sync"
	"time"
)

// Handler processes one delivery. What it returns says how that ended:
//
//   - nil: the message is acked;
//   - [Reject]: it is set aside as Dead;
//   - [Retry]: it is nacked and comes back after the given time;
//   - [ErrRelease]: it is given back, free of charge;
//   - any other error, and a panic: it is nacked with the error's text and comes back after the queue's backoff.
//
// The context ends when the result is not wanted any more: with the cause [ErrRevoked] or [ErrShutdown]. The end of the
// context of [Client.Consume] does not end it. A delivery that the handler settled itself, by its methods, is left alone.
type Handler func(ctx context.Context, delivery *Delivery) error

const (
	defaultConcurrency = 16
	// defaultGrace is within the 30 s that a pod has to stop.
	defaultGrace = 25 * time.Second
	// closing bounds what still has to be said when handlers are told to stop, and the wait for the other side to end a
	// stream that we ended.
	closing = 5 * time.Second
)

type consumeSettings struct {
	concurrency, prefetch int
	windowBytes           uint64
	grace                 time.Duration
	name                  string
}

// ConsumeOption changes how a consumer works.
type ConsumeOption func(*consumeSettings)

// Concurrency runs at most n handlers at once, instead of 16.
func Concurrency(n int) ConsumeOption {
	return func(s *consumeSettings) { s.concurrency = n }
}

// Prefetch takes n messages more than handlers run, so that the next one is there when a handler ends. The default is 0: what
// is waiting here could be processed elsewhere. With many short handlers a few are worth it.
func Prefetch(n int) ConsumeOption {
	return func(s *consumeSettings) { s.prefetch = n }
}

// WindowBytes takes no more than so many bytes of bodies at once, instead of 16 MiB. A single larger message comes alone.
func WindowBytes(bytes uint64) ConsumeOption {
	return func(s *consumeSettings) { s.windowBytes = bytes }
}

// ShutdownGrace lets handlers run so much longer, instead of 25 s, when the context of [Client.Consume] ends.
func ShutdownGrace(grace time.Duration) ConsumeOption {
	return func(s *consumeSettings) { s.grace = grace }
}

// ConsumerName names the consumer in the histories of messages, instead of the client's name.
func ConsumerName(name string) ConsumeOption {
	return func(s *consumeSettings) { s.name = name }
}

// Consumer runs a handler for the messages of a queue.
type Consumer struct {
	client   *Client
	queue    string
	handler  Handler
	settings consumeSettings

	stopOnce, hurryOnce sync.Once
	// stop is closed when nothing new may be begun, hurry when handlers have to end, over when Run has returned.
	stop, hurry, over chan struct{}
}

// NewConsumer makes a consumer, for [Consumer.Run] to run once and [Consumer.Shutdown] to stop.
func (c *Client) NewConsumer(queue string, handler Handler, options ...ConsumeOption) *Consumer {
	settings := consumeSettings{concurrency: defaultConcurrency, grace: defaultGrace}
	for _, option := range options {
		option(&settings)
	}
	settings.concurrency, settings.prefetch = max(settings.concurrency, 1), max(settings.prefetch, 0)
	settings.name = c.consumerName(settings.name)
	return &Consumer{
		client:   c,
		queue:    queue,
		handler:  handler,
		settings: settings,
		stop:     make(chan struct{}),
		hurry:    make(chan struct{}),
		over:     make(chan struct{}),
	}
}

// Consume runs handler for the messages of a queue until ctx ends, and then until what was begun is settled: running handlers
// have the [ShutdownGrace], what waits for one is released. It returns nil after that.
//
// Messages are held as long as their handlers run, up to the queue's maxProcessing. A stream that breaks is opened again, with
// what is held. An error means that the queue does not exist, or that the caller may not consume it.
func (c *Client) Consume(ctx context.Context, queue string, handler Handler, options ...ConsumeOption) error {
	return c.NewConsumer(queue, handler, options...).Run(ctx)
}

// Run is [Client.Consume] for a consumer that is stopped by [Consumer.Shutdown], or when ctx ends. It runs once.
func (c *Consumer) Run(ctx context.Context) error {
	defer close(c.over)
	ended := context.AfterFunc(ctx, func() { c.shutDownWithin(c.settings.grace) })
	defer ended()
	return newWork(c, ctx).run()
}

func (c *Consumer) shutDownWithin(grace time.Duration) {
	c.stopOnce.Do(func() { close(c.stop) })
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-timer.C:
		c.hurryOnce.Do(func() { close(c.hurry) })
	case <-c.over:
	}
}

// Shutdown takes nothing new, and waits until what was begun is settled and Run has returned. When ctx ends before, the
// contexts of running handlers end, their messages are released, and the error is that of ctx.
func (c *Consumer) Shutdown(ctx context.Context) error {
	c.stopOnce.Do(func() { close(c.stop) })
	select {
	case <-c.over:
		return nil
	case <-ctx.Done():
	}
	c.hurryOnce.Do(func() { close(c.hurry) })
	<-c.over
	return ctx.Err()
}
