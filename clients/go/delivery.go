package ackwell

import (
	"context"
	"crypto/rand"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	ackwellv1 "ackwell.dev/ackwell/v1"
)

// Delivery is a message in this program's hands. Of those from [Client.Receive] each has to be settled, or extended, before
// its AckDeadline; a consumer does both by itself.
type Delivery struct {
	Message

	// ID is a UUIDv7, sortable by the time the message was stored.
	ID       string
	Queue    string
	StoredAt time.Time
	// Attempts is how often processing failed, Deliveries how often the message was handed out.
	Attempts, Deliveries uint32
	// History has the newest 16 failed attempts, newest first.
	History []Attempt
	// Receipt is the proof of holding it.
	Receipt []byte
	// AckDeadline is when the broker takes the message back.
	AckDeadline time.Time
	// FencingToken grows with every delivery: it lets a store refuse writes of an earlier holder.
	FencingToken uint64

	client  *Client
	settled atomic.Bool
}

// Receive takes messages as soon as there are some. The zero value is one message, waiting up to 20 s for it.
type Receive struct {
	// MaxMessages are at most 1000; 0 means 1.
	MaxMessages uint32
	// MaxBytes is the sum of the bodies; 0 means 3 MiB. A single larger message comes alone.
	MaxBytes uint64
	// Wait is how long to wait for the first message, at most 60 s: 0 means 20 s, less than 0 not at all.
	Wait time.Duration
	// AckTimeout is how long the messages are held, 1 s to 12 h; 0: as the queue says.
	AckTimeout time.Duration
	// Consumer is a name for the histories of messages, instead of the client's.
	Consumer string
}

const defaultWait = 20 * time.Second

// Receive takes messages of a queue; none when none came in time.
func (c *Client) Receive(ctx context.Context, queue string, receive Receive) ([]*Delivery, error) {
	wait := receive.Wait
	if wait == 0 {
		wait = defaultWait
	}
	wait = max(wait, 0)
	request := &ackwellv1.ReceiveRequest{
		Queue:       queue,
		MaxMessages: receive.MaxMessages,
		MaxBytes:    receive.MaxBytes,
		Wait:        durationpb.New(wait),
		AckTimeout:  duration(receive.AckTimeout),
		RequestId:   rand.Text(),
		Consumer:    c.consumerName(receive.Consumer),
	}
	answer, err := retry(ctx, wait+c.settings.retryLimit, func(ctx context.Context) (*ackwellv1.ReceiveResponse, error) {
		return c.queues.Receive(ctx, request)
	})
	if err != nil {
		return nil, err
	}
	deliveries := make([]*Delivery, len(answer.GetDeliveries()))
	for i, delivery := range answer.GetDeliveries() {
		deliveries[i] = c.deliveryOf(queue, delivery)
	}
	return deliveries, nil
}

func (c *Client) consumerName(name string) string {
	if name == "" {
		name = c.settings.name
	}
	return text(name)
}

func (c *Client) deliveryOf(queue string, delivery *ackwellv1.Delivery) *Delivery {
	message := delivery.GetMessage()
	return &Delivery{
		Message:      messageOf(message),
		ID:           message.GetId(),
		Queue:        queue,
		StoredAt:     message.GetStoredAt().AsTime(),
		Attempts:     message.GetAttempts(),
		Deliveries:   message.GetDeliveries(),
		History:      historyOf(message.GetHistory()),
		Receipt:      delivery.GetReceipt(),
		AckDeadline:  delivery.GetAckDeadline().AsTime(),
		FencingToken: delivery.GetFencingToken(),
		client:       c,
	}
}

// Ack says that processing is done: the message is gone.
func (d *Delivery) Ack(ctx context.Context) error {
	return d.settle(ctx, Settlement{Outcome: Acked})
}

// Nack says that processing failed: the message comes back after the queue's backoff.
func (d *Delivery) Nack(ctx context.Context, reason string) error {
	return d.settle(ctx, Settlement{Outcome: Nacked, Reason: reason})
}

// NackAfter says that processing failed: the message comes back after delay.
func (d *Delivery) NackAfter(ctx context.Context, delay time.Duration, reason string) error {
	return d.settle(ctx, Settlement{Outcome: Nacked, Reason: reason, RetryAfter: &delay})
}

// Release gives the message back unprocessed, free of charge.
func (d *Delivery) Release(ctx context.Context) error {
	return d.settle(ctx, Settlement{Outcome: Released})
}

// Reject says that no attempt will ever succeed: the message is Dead.
func (d *Delivery) Reject(ctx context.Context, reason string) error {
	return d.settle(ctx, Settlement{Outcome: Rejected, Reason: reason})
}

// Extend holds the message for ackTimeout from now; 0: as long as it was granted for.
func (d *Delivery) Extend(ctx context.Context, ackTimeout time.Duration) (time.Time, error) {
	results, err := d.client.Extend(ctx, d.Queue, [][]byte{d.Receipt}, ackTimeout)
	if err != nil {
		return time.Time{}, err
	}
	return results[0].AckDeadline, results[0].Err
}

// Trace gives ctx the trace context of the message; a consumer's handler has it already.
func (d *Delivery) Trace(ctx context.Context) context.Context {
	return d.client.settings.tracing.incoming(ctx, d.Headers)
}

func (d *Delivery) settle(ctx context.Context, settlement Settlement) error {
	settlement.Receipt = d.Receipt
	results, err := d.client.Settle(ctx, d.Queue, []Settlement{settlement})
	if err == nil {
		err = results[0].Err
	}
	if err == nil {
		d.settled.Store(true)
	}
	return err
}

// text is s as gRPC can carry it: reasons come from anywhere, and must not make a settlement fail.
func text(s string) string {
	return strings.ToValidUTF8(s, "\uFFFD")
}
