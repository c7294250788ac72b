package main

import (
	"context"
	"errors"
	"io"
	"log"
	"os"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"ackwell.dev/examples/orders-worker/ackwellv1"
)

const (
	queue = "orders"
	// window bounds how many orders are worked on at once.
	window = 16

	shortestPause = 100 * time.Millisecond
	longestPause  = 5 * time.Second
	// closing bounds the wait for the other side to end a stream that we ended.
	closing = 5 * time.Second
)

// permanent are the failures that trying again does not change.
var permanent = []codes.Code{codes.InvalidArgument, codes.NotFound, codes.PermissionDenied, codes.Unimplemented}

type stream = ackwellv1.Queues_ConsumeClient

// consumer runs process for each delivery of the queue and settles it. Only its own goroutine touches its fields.
type consumer struct {
	queues  ackwellv1.QueuesClient
	process func(context.Context, *ackwellv1.Message) error
	// held has every delivery, by receipt, whose settlement is not confirmed. It outlives a stream that breaks.
	held     map[string]*job
	sequence uint64
	finished chan *ackwellv1.Settlement
}

type job struct {
	cancel context.CancelFunc
	// settlement is nil while the message is being processed.
	settlement *ackwellv1.Settlement
	// sequence is the number under which the settlement was last sent.
	sequence uint64
}

func newConsumer(queues ackwellv1.QueuesClient, process func(context.Context, *ackwellv1.Message) error) *consumer {
	return &consumer{
		queues:   queues,
		process:  process,
		held:     map[string]*job{},
		finished: make(chan *ackwellv1.Settlement),
	}
}

// run consumes until ctx ends and everything held is settled.
func (c *consumer) run(ctx context.Context) error {
	pause := shortestPause
	for ctx.Err() == nil || len(c.held) > 0 {
		opened := time.Now()
		err := c.consume(ctx)
		if slices.Contains(permanent, status.Code(err)) {
			return err
		}
		if err == nil {
			continue
		}
		if time.Since(opened) > longestPause {
			pause = shortestPause
		}
		log.Printf("stream ended, opening it again in %v: %v", pause, err)
		time.Sleep(pause)
		pause = min(2*pause, longestPause)
	}
	return nil
}

// consume lives as long as one stream. It returns nil after an end that both sides agreed on.
func (c *consumer) consume(ctx context.Context) error {
	streamCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stream, err := c.queues.Consume(streamCtx)
	if err != nil {
		return err
	}
	c.open(stream)
	frames, ended := receive(stream)
	stopping, leaving := ctx.Done(), false
	for !leaving || len(c.held) > 0 {
		select {
		case frame := <-frames:
			leaving = c.handle(frame) || leaving
		case err := <-ended:
			return err
		case settlement := <-c.finished:
			c.settle(stream, settlement)
		case <-stopping:
			send(stream, &ackwellv1.ConsumeRequest{Frame: &ackwellv1.ConsumeRequest_Drain{Drain: &ackwellv1.Drain{}}})
			stopping, leaving = nil, true
		}
	}
	return finish(stream, frames, ended, cancel)
}

// open starts the stream, takes along what an earlier one left behind, and repeats settlements that got no answer.
func (c *consumer) open(stream stream) {
	name, _ := os.Hostname()
	open := &ackwellv1.Open{Queue: queue, Consumer: name, Window: &ackwellv1.Window{MaxMessages: window}}
	for receipt := range c.held {
		open.Held = append(open.Held, []byte(receipt))
	}
	send(stream, &ackwellv1.ConsumeRequest{Frame: &ackwellv1.ConsumeRequest_Open{Open: open}})
	for _, job := range c.held {
		if job.settlement != nil {
			c.settle(stream, job.settlement)
		}
	}
}

// handle takes one frame and reports whether the other side is going away.
func (c *consumer) handle(frame *ackwellv1.ConsumeResponse) bool {
	switch frame := frame.Frame.(type) {
	case *ackwellv1.ConsumeResponse_Deliveries:
		for _, delivery := range frame.Deliveries.Deliveries {
			c.start(delivery)
		}
	case *ackwellv1.ConsumeResponse_Settled:
		c.confirm(frame.Settled)
	case *ackwellv1.ConsumeResponse_Revoked:
		for _, receipt := range frame.Revoked.Receipts {
			c.drop(string(receipt))
		}
	case *ackwellv1.ConsumeResponse_GoAway:
		return true
	}
	return false
}

func (c *consumer) start(delivery *ackwellv1.Delivery) {
	ctx, cancel := context.WithCancel(context.Background())
	c.held[string(delivery.Receipt)] = &job{cancel: cancel}
	go func() {
		err := c.process(ctx, delivery.Message)
		c.finished <- settlement(delivery.Receipt, err)
	}()
}

// settlement says to the queue how processing went.
func settlement(receipt []byte, err error) *ackwellv1.Settlement {
	settlement := &ackwellv1.Settlement{Receipt: receipt}
	switch {
	case err == nil:
		settlement.Outcome = &ackwellv1.Settlement_Ack{Ack: &ackwellv1.Ack{}}
	case errors.Is(err, errMalformed):
		settlement.Outcome = &ackwellv1.Settlement_Reject{Reject: &ackwellv1.Reject{Reason: err.Error()}}
	default:
		settlement.Outcome = &ackwellv1.Settlement_Nack{Nack: &ackwellv1.Nack{Reason: err.Error()}}
	}
	return settlement
}

func (c *consumer) settle(stream stream, settlement *ackwellv1.Settlement) {
	job, ok := c.held[string(settlement.Receipt)]
	if !ok {
		return // Revoked meanwhile: another consumer has the message.
	}
	c.sequence++
	job.settlement, job.sequence = settlement, c.sequence
	frame := &ackwellv1.SettleFrame{Seq: c.sequence, Settlements: []*ackwellv1.Settlement{settlement}}
	send(stream, &ackwellv1.ConsumeRequest{Frame: &ackwellv1.ConsumeRequest_Settle{Settle: frame}})
}

func (c *consumer) confirm(settled *ackwellv1.SettledFrame) {
	for receipt, job := range c.held {
		if job.sequence != settled.Seq {
			continue
		}
		if failure := settled.Results[0].Error; failure != nil {
			log.Printf("not settled: %s: %s", failure.Reason, failure.Message)
		}
		c.drop(receipt)
	}
}

func (c *consumer) drop(receipt string) {
	if job, ok := c.held[receipt]; ok {
		job.cancel()
		delete(c.held, receipt)
	}
}

// receive turns the stream's frames into a channel, so that they can be waited for together with other things.
func receive(stream stream) (<-chan *ackwellv1.ConsumeResponse, <-chan error) {
	frames, ended := make(chan *ackwellv1.ConsumeResponse), make(chan error, 1)
	go func() {
		for {
			frame, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			select {
			case frames <- frame:
			case <-stream.Context().Done():
				return
			}
		}
	}()
	return frames, ended
}

// finish closes our side and waits for the other. What is delivered only now goes back to the queue, free of charge.
func finish(stream stream, frames <-chan *ackwellv1.ConsumeResponse, ended <-chan error, cancel context.CancelFunc) error {
	defer time.AfterFunc(closing, cancel).Stop()
	if err := stream.CloseSend(); err != nil {
		return err
	}
	for {
		select {
		case <-frames:
		case err := <-ended:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// send drops its error: a stream that cannot be written to fails at receiving as well, with the true reason.
func send(stream stream, frame *ackwellv1.ConsumeRequest) {
	_ = stream.Send(frame)
}
