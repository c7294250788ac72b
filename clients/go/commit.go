package ackwell

import (
	"context"
	"crypto/rand"

	ackwellv1 "ackwell.dev/ackwell/v1"
)

// Commit settles and sends in one step: all of it is done, or nothing. It is one commit of one shard; docs/delivery.md says
// what that allows.
type Commit struct {
	Settle []QueueSettlements
	Send   []QueueMessages
	// RequestID makes a later call with the same one a repetition; empty: a new one.
	RequestID string
}

// QueueSettlements are settlements of one queue.
type QueueSettlements struct {
	Queue       string
	Settlements []Settlement
}

// QueueMessages are messages for one queue.
type QueueMessages struct {
	Queue    string
	Messages []Message
}

// Committed has the results of a Commit, in its order, none of them with an error.
type Committed struct {
	Settled [][]SettleResult
	Sent    [][]SendResult
}

// Commit does all of commit, or nothing.
func (c *Client) Commit(ctx context.Context, commit Commit) (Committed, error) {
	request, err := c.commitRequest(ctx, commit)
	if err != nil {
		return Committed{}, err
	}
	answer, err := retry(ctx, c.settings.retryLimit, func(ctx context.Context) (*ackwellv1.CommitResponse, error) {
		return c.queues.Commit(ctx, request)
	})
	if err != nil {
		return Committed{}, err
	}
	return committed(answer), nil
}

func (c *Client) commitRequest(ctx context.Context, commit Commit) (*ackwellv1.CommitRequest, error) {
	request := &ackwellv1.CommitRequest{RequestId: commit.RequestID}
	if request.RequestId == "" {
		request.RequestId = rand.Text()
	}
	for _, settle := range commit.Settle {
		settlements := wireSettlements(settle.Settlements)
		request.Settle = append(request.Settle, &ackwellv1.SettleRequest{Queue: settle.Queue, Settlements: settlements})
	}
	for _, send := range commit.Send {
		messages, err := c.wire(ctx, send.Messages)
		if err != nil {
			return nil, err
		}
		request.Send = append(request.Send, &ackwellv1.SendRequest{Queue: send.Queue, Messages: messages})
	}
	return request, nil
}

func committed(answer *ackwellv1.CommitResponse) Committed {
	var committed Committed
	for _, settled := range answer.GetSettled() {
		committed.Settled = append(committed.Settled, settleResults(settled.GetResults()))
	}
	for _, sent := range answer.GetSent() {
		results := make([]SendResult, len(sent.GetResults()))
		for i, result := range sent.GetResults() {
			results[i] = sendResult(result)
		}
		committed.Sent = append(committed.Sent, results)
	}
	return committed
}
