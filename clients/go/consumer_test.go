package ackwell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	ackwellv1 "ackwell.dev/ackwell/v1"
)

var quiet = WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil)))

// consumer serves each stream by the next of `streams`, and stops the consumer when the last one is done.
func consumer(t *testing.T, handler Handler, options []ConsumeOption, streams ...func(held)) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	number := 0
	client := clientOf(t, &fake{consume: func(wire ackwellv1.Queues_ConsumeServer) error {
		stream := held{t, wire}
		current := number
		number++
		if current >= len(streams) {
			stream.opened()
			stream.drained()
			return nil
		}
		streams[current](stream)
		if current == len(streams)-1 {
			cancel()
			stream.drained()
			return nil
		}
		return errBroken
	}}, quiet)
	return client.Consume(ctx, "orders", handler, options...)
}

// What a handler returns decides what becomes of the message.
func TestOutcomeFollowsTheHandler(t *testing.T) {
	handler := func(_ context.Context, d *Delivery) error {
		switch string(d.Body) {
		case "ack":
			return nil
		case "nack":
			return errors.New("no stock\xff")
		case "panic":
			panic("out of bounds")
		case "reject":
			return fmt.Errorf("order: %w", Reject("malformed"))
		case "retry":
			return Retry(0, errors.New("busy"))
		default:
			return ErrRelease
		}
	}
	var got map[string]*ackwellv1.Settlement
	err := consumer(t, handler, nil, func(h held) {
		h.opened()
		h.deliver("ack", "nack", "panic", "reject", "retry", "release")
		got = h.settled(6)
	})
	if err != nil {
		t.Fatal(err)
	}
	nack := got["nack"].GetNack()
	if got["ack"].GetAck() == nil || nack.GetReason() != "no stock\uFFFD" || nack.GetDelay() != nil || got["release"].GetRelease() == nil {
		t.Error(got)
	}
	if got["reject"].GetReject().GetReason() != "order: malformed" || !strings.Contains(got["panic"].GetNack().GetReason(), "out of bounds") {
		t.Error(got)
	}
	if retry := got["retry"].GetNack(); retry.GetDelay() == nil || retry.GetReason() != "busy" {
		t.Error(retry)
	}
}

// A stream that broke goes on with the receipts that are held, and with settlements that got no answer.
func TestBrokenStreamIsResumedWithWhatIsHeld(t *testing.T) {
	resumed := make(chan struct{})
	handler := func(_ context.Context, d *Delivery) error {
		if string(d.Body) == "slow" {
			<-resumed
		}
		return nil
	}
	err := consumer(t, handler, nil, func(h held) {
		h.opened()
		h.deliver("slow", "done")
		for h.next().GetSettle() == nil {
		}
	}, func(h held) {
		open := h.opened()
		if len(open.GetHeld()) != 2 {
			t.Errorf("held: %q", open.GetHeld())
		}
		if got := h.settled(1); got["done"].GetAck() == nil {
			t.Error(got)
		}
		close(resumed)
		if got := h.settled(1); got["slow"].GetAck() == nil {
			t.Error(got)
		}
	})
	if err != nil {
		t.Error(err)
	}
}

// A settlement that cannot be stored now is repeated, not lost.
func TestTemporaryRefusalOfASettlementIsRepeated(t *testing.T) {
	err := consumer(t, func(context.Context, *Delivery) error { return nil }, nil, func(h held) {
		h.opened()
		h.deliver("a")
		busy := &ackwellv1.ItemError{Reason: "STORAGE_UNAVAILABLE", RetryAfter: durationpb.New(time.Millisecond)}
		h.confirm(h.next().GetSettle(), busy)
		if got := h.settled(1); got["a"].GetAck() == nil {
			t.Error(got)
		}
	})
	if err != nil {
		t.Error(err)
	}
}

// A handler whose message is somebody else's now is told so, and its result is not sent.
func TestRevokedDeliveryEndsTheHandlersContext(t *testing.T) {
	causes, begun := make(chan error, 1), make(chan struct{})
	handler := func(ctx context.Context, d *Delivery) error {
		if string(d.Body) == "next" {
			return nil
		}
		close(begun)
		<-ctx.Done()
		causes <- context.Cause(ctx)
		return nil
	}
	err := consumer(t, handler, nil, func(h held) {
		h.opened()
		h.deliver("a")
		<-begun
		h.tell(&ackwellv1.ConsumeResponse{Frame: &ackwellv1.ConsumeResponse_Revoked{Revoked: &ackwellv1.Revoked{Receipts: [][]byte{[]byte("a")}}}})
		if cause := <-causes; !errors.Is(cause, ErrRevoked) {
			t.Error(cause)
		}
		h.deliver("next")
		if got := h.settled(1); got["next"] == nil {
			t.Error(got)
		}
	})
	if err != nil {
		t.Error(err)
	}
}

// A stopping consumer drains: what runs may end, what was not begun is released, and the stream is closed after that.
func TestShutdownFinishesWhatRunsAndReleasesTheRest(t *testing.T) {
	begun, finish := make(chan struct{}), make(chan struct{})
	client := clientOf(t, &fake{consume: func(wire ackwellv1.Queues_ConsumeServer) error {
		h := held{t, wire}
		h.opened()
		h.deliver("running", "waiting")
		<-begun
		if h.next().GetDrain() == nil {
			t.Error("no drain")
		}
		if got := h.settled(1); got["waiting"].GetRelease() == nil {
			t.Error(got)
		}
		close(finish)
		if got := h.settled(1); got["running"].GetAck() == nil {
			t.Error(got)
		}
		h.drained()
		return nil
	}}, quiet)
	consumer := client.NewConsumer("orders", func(context.Context, *Delivery) error {
		close(begun)
		<-finish
		return nil
	}, Concurrency(1))
	ended := make(chan error)
	go func() { ended <- consumer.Run(t.Context()) }()
	<-begun
	if err := consumer.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// When the grace is over handlers are told, and messages whose handlers fail by that are released without blame.
func TestShutdownThatTakesTooLongReleases(t *testing.T) {
	begun := make(chan struct{})
	client := clientOf(t, &fake{consume: func(wire ackwellv1.Queues_ConsumeServer) error {
		h := held{t, wire}
		h.opened()
		h.deliver("endless")
		if got := h.settled(1); got["endless"].GetRelease() == nil {
			t.Error(got)
		}
		h.drained()
		return nil
	}}, quiet)
	ctx, cancel := context.WithCancel(t.Context())
	handler := func(ctx context.Context, _ *Delivery) error {
		close(begun)
		<-ctx.Done()
		return ctx.Err()
	}
	go func() { <-begun; cancel() }()
	if err := client.Consume(ctx, "orders", handler, ShutdownGrace(time.Millisecond)); err != nil {
		t.Error(err)
	}
}

// A queue that does not exist is an error, not an endless repetition.
func TestPermanentRefusalEndsTheConsumer(t *testing.T) {
	client := clientOf(t, &fake{consume: func(ackwellv1.Queues_ConsumeServer) error {
		return refusalStatus(QueueNotFound, 0)
	}}, quiet)
	err := client.Consume(t.Context(), "nope", func(context.Context, *Delivery) error { return nil })
	if !errors.Is(err, QueueNotFound) {
		t.Error(err)
	}
}

// No more handlers run at once than were asked for, and the window says so to the other side.
func TestConcurrencyIsBounded(t *testing.T) {
	var running, most atomic.Int64
	begun, finish := make(chan struct{}, 4), make(chan struct{})
	handler := func(context.Context, *Delivery) error {
		if now := running.Add(1); now > most.Load() {
			most.Store(now)
		}
		defer running.Add(-1)
		begun <- struct{}{}
		<-finish
		return nil
	}
	err := consumer(t, handler, []ConsumeOption{Concurrency(2), Prefetch(2)}, func(h held) {
		if open := h.opened(); open.GetWindow().GetMaxMessages() != 4 || open.GetConsumer() != "test" {
			t.Error(open)
		}
		h.deliver("a", "b", "c", "d")
		<-begun
		<-begun
		for range 2 {
			finish <- struct{}{}
			h.settled(1)
			<-begun
		}
		close(finish)
		h.settled(2)
	})
	if err != nil || most.Load() != 2 {
		t.Error(err, most.Load())
	}
}

// A message that its handler settled itself is left alone.
func TestHandlerMaySettleItself(t *testing.T) {
	client := clientOf(t, &fake{
		settle: func(request *ackwellv1.SettleRequest) (*ackwellv1.SettleResponse, error) {
			return &ackwellv1.SettleResponse{Results: []*ackwellv1.SettleResult{{}}}, nil
		},
		consume: func(wire ackwellv1.Queues_ConsumeServer) error {
			h := held{t, wire}
			h.opened()
			h.deliver("a")
			for frame := h.next(); frame.GetFrame() != nil; frame = h.next() {
				if frame.GetSettle() != nil {
					t.Error("settled twice")
				}
			}
			return nil
		},
	}, quiet)
	ctx, cancel := context.WithCancel(t.Context())
	err := client.Consume(ctx, "orders", func(_ context.Context, d *Delivery) error {
		defer cancel()
		return d.Reject(context.Background(), "malformed")
	})
	if err != nil {
		t.Error(err)
	}
}
