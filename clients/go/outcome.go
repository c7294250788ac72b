package ackwell

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrRelease, returned by a handler, gives the message back unprocessed and free of charge.
var ErrRelease = errors.New("ackwell: release")

// ErrRevoked is the cause of a handler's ended context (context.Cause) when the message is somebody else's now: what the
// handler returns is not used.
var ErrRevoked = errors.New("ackwell: the delivery was revoked")

// ErrShutdown is the cause of a handler's ended context when the grace of a shutdown is over: if it returns an error then,
// the message is released.
var ErrShutdown = errors.New("ackwell: the consumer stops")

type rejectError struct{ reason string }

func (e *rejectError) Error() string { return e.reason }

// Reject, returned by a handler, sets the message aside as Dead: no attempt will ever succeed.
func Reject(reason string) error { return &rejectError{reason} }

type retryError struct {
	after time.Duration
	cause error
}

func (e *retryError) Error() string { return fmt.Sprint(e.cause) }
func (e *retryError) Unwrap() error { return e.cause }

// Retry, returned by a handler, nacks for cause; the message comes back after the given time instead of the queue's backoff.
func Retry(after time.Duration, cause error) error { return &retryError{after, cause} }

// settlementOf says how a handler that returned err ended.
func settlementOf(ctx context.Context, err error) Settlement {
	var reject *rejectError
	var retry *retryError
	switch {
	case err == nil:
		return Settlement{Outcome: Acked}
	case errors.As(err, &reject):
		return Settlement{Outcome: Rejected, Reason: err.Error()}
	case errors.Is(err, ErrRelease), errors.Is(context.Cause(ctx), ErrShutdown):
		return Settlement{Outcome: Released}
	case errors.As(err, &retry):
		return Settlement{Outcome: Nacked, Reason: err.Error(), RetryAfter: &retry.after}
	default:
		return Settlement{Outcome: Nacked, Reason: err.Error()}
	}
}
