package ackwell

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	ackwellv1 "ackwell.dev/ackwell/v1"
)

// producing is a Produce stream as the fake sees it.
type producing struct {
	t    *testing.T
	wire ackwellv1.Queues_ProduceServer
}

func (p producing) opened(window uint32) *ackwellv1.ProduceOpen {
	open := p.next().GetOpen()
	opened := &ackwellv1.ProduceOpened{Producer: "p", Window: &ackwellv1.ProduceWindow{MaxMessages: window, MaxBytes: 1 << 20}}
	p.tell(&ackwellv1.ProduceResponse{Frame: &ackwellv1.ProduceResponse_Opened{Opened: opened}})
	return open
}

func (p producing) next() *ackwellv1.ProduceRequest {
	frame, err := p.wire.Recv()
	if err != nil {
		return &ackwellv1.ProduceRequest{}
	}
	return frame
}

func (p producing) tell(frame *ackwellv1.ProduceResponse) {
	if err := p.wire.Send(frame); err != nil {
		p.t.Error(err)
	}
}

// confirm answers a batch; `refuse` gives the error for a body.
func (p producing) confirm(batch *ackwellv1.ProduceBatch, refuse func(body string) *ackwellv1.ItemError) {
	confirm := &ackwellv1.ProduceConfirm{ThroughSeq: batch.GetSeq()}
	for index, message := range batch.GetMessages() {
		result := &ackwellv1.SendResult{Id: string(message.GetBody()), Error: refuse(string(message.GetBody()))}
		confirm.Results = append(confirm.Results, &ackwellv1.ProduceResult{Seq: batch.GetSeq(), Index: uint32(index), Result: result})
	}
	p.tell(&ackwellv1.ProduceResponse{Frame: &ackwellv1.ProduceResponse_Confirm{Confirm: confirm}})
}

// serve confirms every batch until the client ends the stream, and gives the bodies to seen.
func (p producing) serve(seen func(body string)) {
	for batch := p.next().GetBatch(); batch != nil; batch = p.next().GetBatch() {
		for _, message := range batch.GetMessages() {
			seen(string(message.GetBody()))
		}
		p.confirm(batch, func(string) *ackwellv1.ItemError { return nil })
	}
}

func ignore(string) {}

// producer serves each stream by the next of `streams`.
func producer(t *testing.T, options []ProduceOption, streams ...func(producing)) *Producer {
	t.Helper()
	number := 0
	client := clientOf(t, &fake{produce: func(wire ackwellv1.Queues_ProduceServer) error {
		current := min(number, len(streams)-1)
		number++
		streams[current](producing{t, wire})
		if current < len(streams)-1 {
			return errBroken
		}
		return nil
	}}, quiet)
	producer := client.NewProducer("orders", options...)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), soon)
		defer cancel()
		if err := producer.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return producer
}

func send(t *testing.T, producer *Producer, bodies ...string) []*Confirmation {
	t.Helper()
	var confirmations []*Confirmation
	for _, body := range bodies {
		confirmation, err := producer.Send(t.Context(), Message{Body: []byte(body)})
		if err != nil {
			t.Fatal(err)
		}
		confirmations = append(confirmations, confirmation)
	}
	return confirmations
}

// Every message is confirmed with its id, and they arrive in the order in which they were sent.
func TestProducerConfirmsInOrder(t *testing.T) {
	seen := make(chan string, 5000)
	producer := producer(t, nil, func(p producing) {
		p.opened(1000)
		p.serve(func(body string) { seen <- body })
	})
	var bodies []string
	for i := range 5000 {
		bodies = append(bodies, strconv.Itoa(i))
	}
	for i, confirmation := range send(t, producer, bodies...) {
		sent, err := confirmation.Wait(t.Context())
		if body := <-seen; err != nil || sent.ID != bodies[i] || body != bodies[i] {
			t.Fatal(i, sent, err, body)
		}
	}
}

// One refused message is told so, and the others of its batch are stored.
func TestProducerTellsWhichMessageWasRefused(t *testing.T) {
	producer := producer(t, nil, func(p producing) {
		p.opened(1000)
		for batch := p.next().GetBatch(); batch != nil; batch = p.next().GetBatch() {
			p.confirm(batch, func(body string) *ackwellv1.ItemError {
				if body == "bad" {
					return &ackwellv1.ItemError{Reason: "MESSAGE_TOO_LARGE"}
				}
				return nil
			})
		}
	})
	confirmations := send(t, producer, "a", "bad", "b")
	for i, confirmation := range confirmations {
		if _, err := confirmation.Wait(t.Context()); errors.Is(err, MessageTooLarge) != (i == 1) {
			t.Error(i, err)
		}
	}
}

// What was not confirmed when a stream broke is sent again as it was, so that it is known as a repetition.
func TestProducerSendsUnconfirmedBatchesAgain(t *testing.T) {
	batches := make(chan *ackwellv1.ProduceBatch, 1)
	producer := producer(t, nil, func(p producing) {
		if open := p.opened(1000); open.GetProducer() != "" {
			t.Error(open)
		}
		batches <- p.next().GetBatch()
	}, func(p producing) {
		lost := <-batches
		if again := p.opened(1000); again.GetProducer() != "p" || !again.GetWantIds() {
			t.Error(again)
		}
		batch := p.next().GetBatch()
		if batch.GetSeq() != lost.GetSeq() || batch.String() != lost.String() {
			t.Errorf("%v is sent again as %v", lost, batch)
		}
		p.confirm(batch, func(string) *ackwellv1.ItemError { return nil })
		p.serve(ignore)
	})
	if sent, err := send(t, producer, "a")[0].Wait(t.Context()); err != nil || sent.ID != "a" {
		t.Error(sent, err)
	}
}

// A message that is refused only for now is sent again, in a batch of its own number.
func TestProducerSendsAgainWhatIsRefusedForNow(t *testing.T) {
	producer := producer(t, nil, func(p producing) {
		p.opened(1000)
		first := p.next().GetBatch()
		p.confirm(first, func(string) *ackwellv1.ItemError {
			return &ackwellv1.ItemError{Reason: "BUSY", RetryAfter: durationpb.New(time.Millisecond)}
		})
		second := p.next().GetBatch()
		if second.GetSeq() <= first.GetSeq() {
			t.Error(first, second)
		}
		p.confirm(second, func(string) *ackwellv1.ItemError { return nil })
		p.serve(ignore)
	})
	if _, err := send(t, producer, "a")[0].Wait(t.Context()); err != nil {
		t.Error(err)
	}
}

// Send waits when as much is unconfirmed as there may be, and no message of a Send that gave up is stored.
func TestProducerHoldsBackWhenFull(t *testing.T) {
	release := make(chan struct{})
	seen := make(chan string, 10)
	producer := producer(t, []ProduceOption{MaxOutstanding(2, 1<<20)}, func(p producing) {
		p.opened(1000)
		<-release
		p.serve(func(body string) { seen <- body })
	})
	send(t, producer, "a", "b")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := producer.Send(ctx, Message{Body: []byte("c")}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	close(release)
	send(t, producer, "d")
	if err := producer.Flush(t.Context()); err != nil {
		t.Error(err)
	}
	if a, b, d := <-seen, <-seen, <-seen; a != "a" || b != "b" || d != "d" {
		t.Error(a, b, d)
	}
}

// No more is on its way than the other side takes.
func TestProducerKeepsToTheWindow(t *testing.T) {
	producer := producer(t, nil, func(p producing) {
		p.opened(2)
		for batch := p.next().GetBatch(); batch != nil; batch = p.next().GetBatch() {
			if len(batch.GetMessages()) > 2 {
				t.Errorf("%d messages at once", len(batch.GetMessages()))
			}
			p.confirm(batch, func(string) *ackwellv1.ItemError { return nil })
		}
	})
	send(t, producer, "a", "b", "c", "d", "e", "f", "g")
	if err := producer.Flush(t.Context()); err != nil {
		t.Error(err)
	}
}

// A stopping process is left with everything confirmed, and the next stream goes on.
func TestProducerLeavesAStoppingProcess(t *testing.T) {
	begun := make(chan struct{})
	producer := producer(t, nil, func(p producing) {
		p.opened(1000)
		p.tell(&ackwellv1.ProduceResponse{Frame: &ackwellv1.ProduceResponse_GoAway{GoAway: &ackwellv1.GoAway{}}})
		p.serve(ignore)
		close(begun)
	}, func(p producing) {
		p.opened(1000)
		p.serve(ignore)
	})
	first := send(t, producer, "a")
	<-begun
	if _, err := first[0].Wait(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := send(t, producer, "b")[0].Wait(t.Context()); err != nil {
		t.Error(err)
	}
}

// A queue that does not exist is told to each message, and a closed producer takes none.
func TestProducerOfUnknownQueueFails(t *testing.T) {
	client := clientOf(t, &fake{produce: func(ackwellv1.Queues_ProduceServer) error {
		return refusalStatus(QueueNotFound, 0)
	}}, quiet)
	producer := client.NewProducer("nope")
	if _, err := send(t, producer, "a")[0].Wait(t.Context()); !errors.Is(err, QueueNotFound) {
		t.Error(err)
	}
	if err := producer.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := producer.Send(t.Context(), Message{}); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// Closing waits no longer than it may; what is left is told so.
func TestProducerThatIsClosedInHasteTellsWhatIsLeft(t *testing.T) {
	client := clientOf(t, &fake{produce: func(wire ackwellv1.Queues_ProduceServer) error {
		<-wire.Context().Done()
		return nil
	}}, quiet)
	producer := client.NewProducer("orders")
	confirmation := send(t, producer, "a")[0]
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	begun := time.Now()
	if err := producer.Close(ctx); !errors.Is(err, context.Canceled) || time.Since(begun) > soon {
		t.Error(err, time.Since(begun))
	}
	if _, err := confirmation.Wait(t.Context()); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// Messages do not wait longer than calls do for a broker that does not answer.
func TestProducerGivesUpOnSilence(t *testing.T) {
	client := clientOf(t, &fake{produce: func(wire ackwellv1.Queues_ProduceServer) error {
		p := producing{t, wire}
		p.opened(1000)
		p.next()
		<-wire.Context().Done()
		return nil
	}}, quiet, WithRetryLimit(time.Second))
	producer := client.NewProducer("orders")
	begun := time.Now()
	if _, err := send(t, producer, "a")[0].Wait(t.Context()); err == nil || errors.Is(err, ErrClosed) || time.Since(begun) > soon {
		t.Error(err, time.Since(begun))
	}
	if err := producer.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
