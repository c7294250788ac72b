package ackwell

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"google.golang.org/grpc/connectivity"

	ackwellv1 "ackwell.dev/ackwell/v1"
)

const (
	// maxSettlements is how many go in one frame.
	maxSettlements = 1000
	// maxUnansweredFrames bounds the frames on their way: with more to say, frames become larger instead of more, and each is a
	// part of one commit.
	maxUnansweredFrames = 8
)

// work is what a consumer has in hand. Only the goroutine of run touches it; handlers tell it by `finished` how they ended.
type work struct {
	*Consumer
	// parent is what the contexts of handlers are made from; cancel ends them all.
	parent context.Context
	cancel context.CancelCauseFunc
	// held has every delivery, by receipt, whose settlement is not confirmed. It outlives a stream that breaks.
	held map[string]*job
	// waiting are deliveries for which no handler runs yet, unsaid those whose settlement has to be sent.
	waiting, unsaid []*job
	running         int
	// asked are the settlements that wait for an answer, by the number of their frame.
	asked      map[uint64][]*job
	sequence   uint64
	isStopping bool
	isHurried  bool
	// gaveUp fires when what is still held has to be left to the broker.
	gaveUp   <-chan time.Time
	isOver   bool
	finished chan finished
	again    chan *job
}

type job struct {
	delivery *Delivery
	cancel   context.CancelCauseFunc
	// settlement is nil while the message waits or is processed.
	settlement *ackwellv1.Settlement
	// isGone: the message is not ours any more.
	isGone bool
}

// finished is how a handler ended.
type finished struct {
	job        *job
	settlement Settlement
}

func newWork(consumer *Consumer, ctx context.Context) *work {
	parent, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	return &work{
		Consumer: consumer,
		parent:   parent,
		cancel:   cancel,
		held:     map[string]*job{},
		finished: make(chan finished),
		again:    make(chan *job),
	}
}

// run consumes over as many streams as that takes.
func (w *work) run() error {
	defer w.cancel(ErrShutdown)
	var pauses pauses
	for !w.isDone() {
		wasOpened, err := w.consume()
		if wasOpened {
			pauses.reset()
		}
		failure := callError(err)
		switch {
		case w.isDone():
			continue
		case failure != nil && failure.isPermanent():
			return w.abandon(failure)
		case w.client.connection.GetState() == connectivity.Shutdown:
			return w.abandon(&Error{Message: "the client is closed", cause: err})
		case failure != nil:
			w.client.settings.logger.Warn("ackwell: stream ended, opening it again", "queue", w.queue, "error", failure)
		}
		w.wait(time.After(pauses.take()), nil)
	}
	if w.running > 0 {
		return &Error{Message: fmt.Sprintf("%d handlers did not end although their contexts did", w.running)}
	}
	return nil
}

func (w *work) isDone() bool {
	return w.isOver || w.isStopping && len(w.held) == 0
}

// abandon ends handlers whose results nobody takes any more.
func (w *work) abandon(failure *Error) error {
	w.cancel(failure)
	w.waiting = nil
	timeout := time.After(closing)
	for w.running > 0 {
		select {
		case end := <-w.finished:
			w.finish(end)
		case <-timeout:
			return failure
		}
	}
	return failure
}

// wait takes what happens beside the stream, until `until` fires. It also returns after one event if there is a stream.
func (w *work) wait(until <-chan time.Time, stream *pipe[ackwellv1.ConsumeRequest, ackwellv1.ConsumeResponse]) (frame *ackwellv1.ConsumeResponse, ended bool, err error) {
	for {
		select {
		case frame := <-stream.incoming():
			return frame, false, nil
		case err := <-stream.end():
			return nil, true, err
		case <-stream.written():
			stream.isWriting = false
		case end := <-w.finished:
			w.finish(end)
		case job := <-w.again:
			w.unsaid = append(w.unsaid, job)
		case <-w.unlessDone(w.stop, w.isStopping):
			w.stopTaking()
		case <-w.unlessDone(w.hurry, w.isHurried):
			w.isHurried = true
			w.stopTaking()
			w.cancel(ErrShutdown)
			w.gaveUp = time.After(closing)
		case <-w.gaveUp:
			w.isOver, w.gaveUp = true, nil
			return nil, true, nil
		case <-until:
			return nil, true, nil
		}
		if stream != nil || w.isDone() {
			return nil, false, nil
		}
	}
}

func (w *work) unlessDone(signal chan struct{}, isDone bool) <-chan struct{} {
	if isDone {
		return nil
	}
	return signal
}

// stopTaking gives back what no handler has begun.
func (w *work) stopTaking() {
	w.isStopping = true
	for _, job := range w.waiting {
		w.settle(job, Settlement{Outcome: Released})
	}
	w.waiting = nil
}

// take begins with a delivery, as soon as there is a free handler.
func (w *work) take(delivery *ackwellv1.Delivery) {
	receipt := string(delivery.GetReceipt())
	if _, ok := w.held[receipt]; ok {
		return
	}
	job := &job{delivery: w.client.deliveryOf(w.queue, delivery)}
	w.held[receipt] = job
	if w.isStopping {
		w.settle(job, Settlement{Outcome: Released})
		return
	}
	w.waiting = append(w.waiting, job)
}

// start runs handlers for what waits, as many as there may be.
func (w *work) start() {
	for w.running < w.settings.concurrency && len(w.waiting) > 0 {
		job := w.waiting[0]
		w.waiting = w.waiting[1:]
		if job.isGone {
			continue
		}
		ctx, cancel := context.WithCancelCause(w.parent)
		job.cancel = cancel
		w.running++
		go w.handle(job.delivery.Trace(ctx), job)
	}
}

// handle runs in a goroutine of its own.
func (w *work) handle(ctx context.Context, job *job) {
	err := errors.New("the handler ended its goroutine")
	defer func() {
		if value := recover(); value != nil {
			err = fmt.Errorf("panic: %v", value)
			w.client.settings.logger.Error("ackwell: handler panicked", "queue", w.queue, "id", job.delivery.ID,
				"error", err, "stack", string(debug.Stack()))
		}
		select {
		case w.finished <- finished{job, settlementOf(ctx, err)}:
		case <-w.over:
		}
	}()
	err = w.handler(ctx, job.delivery)
}

func (w *work) finish(end finished) {
	w.running--
	end.job.cancel(nil)
	switch {
	case end.job.isGone:
	case end.job.delivery.settled.Load():
		w.drop(end.job)
	default:
		w.settle(end.job, end.settlement)
	}
}

func (w *work) settle(job *job, settlement Settlement) {
	settlement.Receipt = job.delivery.Receipt
	job.settlement = settlement.wire()
	w.unsaid = append(w.unsaid, job)
}

// drop ends our interest in a message.
func (w *work) drop(job *job) {
	job.isGone = true
	delete(w.held, string(job.delivery.Receipt))
	if job.cancel != nil {
		job.cancel(ErrRevoked)
	}
}

// confirm takes the answers to a frame of settlements. What cannot be done now is asked for again.
func (w *work) confirm(settled *ackwellv1.SettledFrame) {
	jobs := w.asked[settled.GetSeq()]
	delete(w.asked, settled.GetSeq())
	for i, job := range jobs {
		if job.isGone || i >= len(settled.GetResults()) {
			continue
		}
		failure := callError(itemError(settled.GetResults()[i].GetError()))
		if failure != nil && failure.isTemporary() {
			w.askAgain(job, failure.RetryAfter)
			continue
		}
		if failure != nil {
			w.client.settings.logger.Warn("ackwell: not settled", "queue", w.queue, "id", job.delivery.ID, "error", failure)
		}
		w.drop(job)
	}
}

func (w *work) askAgain(job *job, after time.Duration) {
	time.AfterFunc(max(after, shortestPause), func() {
		select {
		case w.again <- job:
		case <-w.over:
		}
	})
}

func (w *work) revoke(receipts [][]byte) {
	for _, receipt := range receipts {
		if job, ok := w.held[string(receipt)]; ok {
			w.drop(job)
		}
	}
}
