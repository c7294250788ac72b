package ackwell

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	ackwellv1 "ackwell.dev/ackwell/v1"
)

// Outcome is how the processing of a delivery ended.
type Outcome int

const (
	// Acked: done, the message is gone.
	Acked Outcome = iota + 1
	// Nacked: failed; counts an attempt and comes back.
	Nacked
	// Released: not processed; back to its place, free of charge.
	Released
	// Rejected: never again; Dead at once.
	Rejected
)

// Settlement says how the processing of a delivery ended.
type Settlement struct {
	// Receipt is that of the delivery.
	Receipt []byte
	Outcome Outcome
	// Reason is kept in the message's history, where it was Nacked or Rejected.
	Reason string
	// RetryAfter is when a Nacked message comes back; nil: after the queue's backoff.
	RetryAfter *time.Duration
}

// State is where a stored message stands.
type State = ackwellv1.State

// The states of a message that is not gone.
const (
	Ready    = ackwellv1.State_STATE_READY
	Delayed  = ackwellv1.State_STATE_DELAYED
	InFlight = ackwellv1.State_STATE_IN_FLIGHT
	Dead     = ackwellv1.State_STATE_DEAD
)

// SettleResult is what became of one delivery.
type SettleResult struct {
	// State is where the message is now; STATE_UNSPECIFIED when it is gone.
	State State
	// NextAttemptAt is set where it is Delayed.
	NextAttemptAt time.Time
	// Err is nil when the delivery is settled.
	Err error
}

// ExtendResult is what became of one extension.
type ExtendResult struct {
	AckDeadline time.Time
	// Err is nil when the delivery is held until AckDeadline.
	Err error
}

// Settle settles up to 1000 deliveries of a queue, each by itself; it is safe to repeat. There is one result for each.
func (c *Client) Settle(ctx context.Context, queue string, settlements []Settlement) ([]SettleResult, error) {
	request := &ackwellv1.SettleRequest{Queue: queue, Settlements: wireSettlements(settlements)}
	answer, err := retry(ctx, c.settings.retryLimit, func(ctx context.Context) (*ackwellv1.SettleResponse, error) {
		return c.queues.Settle(ctx, request)
	})
	if err != nil {
		return nil, err
	}
	if len(answer.GetResults()) != len(settlements) {
		return nil, mismatch(len(settlements), len(answer.GetResults()))
	}
	return settleResults(answer.GetResults()), nil
}

// Extend holds up to 1000 deliveries of a queue for ackTimeout from now; 0: as long as they were granted for.
func (c *Client) Extend(ctx context.Context, queue string, receipts [][]byte, ackTimeout time.Duration) ([]ExtendResult, error) {
	request := &ackwellv1.ExtendRequest{Queue: queue, Receipts: receipts, AckTimeout: duration(ackTimeout)}
	answer, err := retry(ctx, c.settings.retryLimit, func(ctx context.Context) (*ackwellv1.ExtendResponse, error) {
		return c.queues.Extend(ctx, request)
	})
	if err != nil {
		return nil, err
	}
	if len(answer.GetResults()) != len(receipts) {
		return nil, mismatch(len(receipts), len(answer.GetResults()))
	}
	results := make([]ExtendResult, len(receipts))
	for i, result := range answer.GetResults() {
		results[i] = ExtendResult{AckDeadline: result.GetAckDeadline().AsTime(), Err: itemError(result.GetError())}
	}
	return results, nil
}

func wireSettlements(settlements []Settlement) []*ackwellv1.Settlement {
	wire := make([]*ackwellv1.Settlement, len(settlements))
	for i, settlement := range settlements {
		wire[i] = settlement.wire()
	}
	return wire
}

// wire leaves the outcome empty where it is none of ours: the broker refuses that.
func (s Settlement) wire() *ackwellv1.Settlement {
	wire := &ackwellv1.Settlement{Receipt: s.Receipt}
	switch s.Outcome {
	case Acked:
		wire.Outcome = &ackwellv1.Settlement_Ack{Ack: &ackwellv1.Ack{}}
	case Nacked:
		nack := &ackwellv1.Nack{Reason: text(s.Reason)}
		if s.RetryAfter != nil {
			nack.Delay = durationpb.New(*s.RetryAfter)
		}
		wire.Outcome = &ackwellv1.Settlement_Nack{Nack: nack}
	case Released:
		wire.Outcome = &ackwellv1.Settlement_Release{Release: &ackwellv1.Release{}}
	case Rejected:
		wire.Outcome = &ackwellv1.Settlement_Reject{Reject: &ackwellv1.Reject{Reason: text(s.Reason)}}
	}
	return wire
}

func settleResults(results []*ackwellv1.SettleResult) []SettleResult {
	read := make([]SettleResult, len(results))
	for i, result := range results {
		read[i] = SettleResult{State: result.GetState(), Err: itemError(result.GetError())}
		if at := result.GetNextAttemptAt(); at != nil {
			read[i].NextAttemptAt = at.AsTime()
		}
	}
	return read
}
