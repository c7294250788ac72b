package ackwell

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	// shortestPause is the first wait before something is tried again; doubled up to longestPause, so that a broker that is
	// back is noticed within that.
	shortestPause, longestPause = 50 * time.Millisecond, 2 * time.Second
)

// pauses are waits that grow.
type pauses struct{ next time.Duration }

// take gives the next wait, between half and all of it, so that clients do not come back as one.
func (p *pauses) take() time.Duration {
	full := max(p.next, shortestPause)
	p.next = min(2*full, longestPause)
	return full/2 + rand.N(full/2)
}

func (p *pauses) reset() { p.next = 0 }

// retry calls until there is an answer other than "not now", for at most limit. The call must have no second effect when it
// is repeated.
func retry[T any](ctx context.Context, limit time.Duration, call func(context.Context) (T, error)) (T, error) {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var last *Error
	var pauses pauses
	for {
		answer, err := call(limited)
		failure := callError(err)
		switch {
		case failure == nil:
			return answer, nil
		case ctx.Err() != nil:
			return answer, ended(ctx, refusal(failure, last))
		case limited.Err() != nil:
			return answer, refusal(failure, last)
		case !failure.isTemporary():
			return answer, failure
		}
		last = failure
		pause := max(failure.RetryAfter, pauses.take())
		if end, _ := limited.Deadline(); time.Until(end) <= pause {
			return answer, last
		}
		if !sleep(limited, pause) {
			return answer, ended(ctx, last)
		}
	}
}

// refusal is what to report when time ran out: why, if that is known, not only that it did.
func refusal(failure, last *Error) *Error {
	if failure.Reason == "" && last != nil {
		return last
	}
	return failure
}

// sleep reports whether ctx lasted as long.
func sleep(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
