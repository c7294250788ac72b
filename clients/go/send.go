package ackwell

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"

	ackwellv1 "ackwell.dev/ackwell/v1"
)

// SendResult is what became of one message of several.
type SendResult struct {
	Sent
	// Err is nil when the message is on disk.
	Err error
}

// Send stores one message. It is on disk when Send returns without an error.
func (c *Client) Send(ctx context.Context, queue string, message Message) (Sent, error) {
	results, err := c.SendMany(ctx, queue, []Message{message})
	if err != nil {
		return Sent{}, err
	}
	return results[0].Sent, results[0].Err
}

// SendMany stores any number of messages, in as many calls as that takes, in order. There is one result for each; the
// messages are stored or refused one by one. An error means that a message could not be encoded and nothing was sent.
func (c *Client) SendMany(ctx context.Context, queue string, messages []Message) ([]SendResult, error) {
	wire, err := c.wire(ctx, messages)
	if err != nil {
		return nil, err
	}
	results := make([]SendResult, 0, len(messages))
	var failed error
	for _, batch := range batches(wire) {
		if failed != nil {
			results = appendFailed(results, len(batch), failed)
			continue
		}
		stored, err := c.sendBatch(ctx, queue, batch, false)
		if err == nil {
			results = append(results, stored...)
			continue
		}
		results = appendFailed(results, len(batch), err)
		if !ofItem(err, len(batch)) {
			failed = err
		}
	}
	return results, nil
}

// SendAtomic stores all of up to 1000 messages, or none of them: then the error is that of the first message that stood in
// the way, and the results have all of them.
func (c *Client) SendAtomic(ctx context.Context, queue string, messages []Message) ([]SendResult, error) {
	wire, err := c.wire(ctx, messages)
	if err != nil {
		return nil, err
	}
	results, err := c.sendBatch(ctx, queue, wire, true)
	if err != nil {
		return nil, err
	}
	return results, refused(results)
}

// refused is the error of the item that stood in the way of the others.
func refused(results []SendResult) error {
	var first error
	for _, result := range results {
		if result.Err != nil && !errors.Is(result.Err, BatchRefused) {
			return result.Err
		}
		if first == nil {
			first = result.Err
		}
	}
	return first
}

// wire encodes the messages, with the trace context of ctx.
func (c *Client) wire(ctx context.Context, messages []Message) ([]*ackwellv1.Message, error) {
	wire := make([]*ackwellv1.Message, len(messages))
	for i := range messages {
		message := messages[i]
		message.Headers = c.settings.tracing.outgoing(ctx, message.Headers)
		encoded, err := message.wire()
		if err != nil && len(messages) > 1 {
			err = fmt.Errorf("message %d: %w", i, err)
		}
		if err != nil {
			return nil, err
		}
		wire[i] = encoded
	}
	return wire, nil
}

func (c *Client) sendBatch(ctx context.Context, queue string, messages []*ackwellv1.Message, atomic bool) ([]SendResult, error) {
	request := &ackwellv1.SendRequest{Queue: queue, Messages: messages, Atomic: atomic, RequestId: rand.Text()}
	answer, err := retry(ctx, c.settings.retryLimit, func(ctx context.Context) (*ackwellv1.SendResponse, error) {
		return c.queues.Send(ctx, request)
	})
	if err != nil {
		return nil, err
	}
	if len(answer.GetResults()) != len(messages) {
		return nil, mismatch(len(messages), len(answer.GetResults()))
	}
	results := make([]SendResult, len(messages))
	for i, result := range answer.GetResults() {
		results[i] = sendResult(result)
	}
	return results, nil
}

func sendResult(result *ackwellv1.SendResult) SendResult {
	return SendResult{
		Sent: Sent{ID: result.GetId(), Duplicate: result.GetDuplicate()},
		Err:  itemError(result.GetError()),
	}
}

// ofItem says whether the failure of a call is that of its only message, so that others can still be stored.
func ofItem(err error, items int) bool {
	failure := callError(err)
	return items == 1 && failure.Reason != "" && !failure.isTemporary() && failure.Code != codes.NotFound
}

func appendFailed(results []SendResult, count int, err error) []SendResult {
	for range count {
		results = append(results, SendResult{Err: err})
	}
	return results
}
