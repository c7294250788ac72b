package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"log"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"ackwell.dev/examples/logs-shipper/ackwellv1"
)

const (
	callTimeout   = 15 * time.Second
	shortestPause = 100 * time.Millisecond
	longestPause  = 5 * time.Second
)

// sender stores messages in a queue, however long that takes.
type sender struct {
	queues ackwellv1.QueuesClient
	queue  string
}

// send returns the ids of the messages, in order. Messages that were refused for now are sent again, the others not.
func (s *sender) send(ctx context.Context, messages []*ackwellv1.Message) ([]string, error) {
	ids := make([]string, len(messages))
	waiting := make([]int, len(messages))
	for i := range messages {
		waiting[i] = i
	}
	for pause := shortestPause; ; pause = min(2*pause, longestPause) {
		results, err := s.call(ctx, pick(messages, waiting))
		if err != nil {
			return nil, err
		}
		var refused []int
		for n, result := range results {
			switch i := waiting[n]; {
			case result.Error == nil:
				ids[i] = result.Id
			case result.Error.RetryAfter != nil:
				refused = append(refused, i)
			default:
				return nil, fmt.Errorf("line %q was refused: %s: %s", messages[i].Body, result.Error.Reason, result.Error.Message)
			}
		}
		if len(refused) == 0 {
			return ids, nil
		}
		waiting = refused
		log.Printf("%d lines were refused for now, sending them again in %v", len(refused), pause)
		if err := sleep(ctx, pause); err != nil {
			return nil, err
		}
	}
}

// call makes one Send, repeated while the other side cannot be reached. The request id makes repeating safe: if only
// the answer was lost, nothing is stored twice.
func (s *sender) call(ctx context.Context, messages []*ackwellv1.Message) ([]*ackwellv1.SendResult, error) {
	request := &ackwellv1.SendRequest{Queue: s.queue, Messages: messages, RequestId: rand.Text()}
	for pause := shortestPause; ; pause = min(2*pause, longestPause) {
		callCtx, cancel := context.WithTimeout(ctx, callTimeout)
		response, err := s.queues.Send(callCtx, request, grpc.WaitForReady(true))
		cancel()
		if err == nil {
			return response.Results, nil
		}
		if !passing(err) {
			return nil, err
		}
		log.Printf("sending again in %v: %v", pause, err)
		if err := sleep(ctx, pause); err != nil {
			return nil, err
		}
	}
}

func passing(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted:
		return true
	default:
		return false
	}
}

func pick(messages []*ackwellv1.Message, indexes []int) []*ackwellv1.Message {
	picked := make([]*ackwellv1.Message, len(indexes))
	for n, i := range indexes {
		picked[n] = messages[i]
	}
	return picked
}

func sleep(ctx context.Context, duration time.Duration) error {
	select {
	case <-time.After(duration):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
