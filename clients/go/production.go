package ackwell

import (
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"

	ackwellv1 "ackwell.dev/ackwell/v1"
)

// maxUnconfirmedBatches bounds the batches on their way: with more to send, batches become larger instead of more.
const maxUnconfirmedBatches = 8

type producePipe = pipe[ackwellv1.ProduceRequest, ackwellv1.ProduceResponse]

// production is a producer at work. Only the goroutine of run touches it.
type production struct {
	*Producer
	// name is empty until the other side gave one: it knows then that nothing was sent under it.
	name string
	// batches are unconfirmed, the oldest first: those of before a stream broke are sent again. unsent counts those that the
	// current stream has not seen.
	batches  []*batch
	unsent   int
	sequence uint64

	pipe      *producePipe
	window    *ackwellv1.ProduceWindow
	isOpened  bool
	isLeaving bool
	pauses    pauses
	// heard is when there was progress last.
	heard time.Time
	// resume fires when what was refused for now may be sent again.
	resume <-chan time.Time
}

type batch struct {
	sequence      uint64
	confirmations []*Confirmation
	bytes         int
}

func newProduction(p *Producer) *production { return &production{Producer: p, heard: time.Now()} }

// run produces over as many streams as that takes.
func (p *production) run() {
	defer close(p.over)
	for p.awaitWork() {
		err := p.produce()
		failure := callError(err)
		switch {
		case failure == nil:
			continue
		case failure.isPermanent():
			p.failOlder(time.Time{}, failure)
		case p.client.connection.GetState() == connectivity.Shutdown:
			p.failOlder(time.Time{}, &Error{Message: "the client is closed", cause: ErrClosed})
		default:
			if p.isStuck() {
				p.failOlder(time.Now().Add(-p.client.settings.retryLimit), failure)
			}
			p.client.settings.logger.Warn("ackwell: stream ended, opening it again", "queue", p.queue, "error", failure)
			p.pause()
		}
	}
	p.failOlder(time.Time{}, ErrClosed)
}

// awaitWork reports whether there is something to produce; not, when the producer is closed.
func (p *production) awaitWork() bool {
	for {
		select {
		case <-p.abandoned:
			return false
		default:
		}
		if len(p.batches) > 0 || p.hasFresh() {
			return true
		}
		select {
		case <-p.more:
			p.heard = time.Now()
		case <-p.closing:
			return p.hasFresh()
		}
	}
}

func (p *production) pause() {
	select {
	case <-time.After(p.pauses.take()):
	case <-p.abandoned:
	}
}

// produce lives as long as one stream. It returns nil after an end that both sides agreed on, and when it gives up.
func (p *production) produce() error {
	pipe, err := openPipe(p.client.queues.Produce)
	if err != nil {
		return err
	}
	defer pipe.close()
	p.pipe, p.window, p.isOpened, p.isLeaving = pipe, nil, false, false
	p.unsent = len(p.batches)
	open := &ackwellv1.ProduceOpen{Queue: p.queue, Producer: p.name, WantIds: true}
	pipe.put(&ackwellv1.ProduceRequest{Frame: &ackwellv1.ProduceRequest_Open{Open: open}})
	return p.serve()
}

func (p *production) serve() error {
	closed := p.Producer.closing
	var timeout <-chan time.Time
	check := time.NewTicker(time.Second)
	defer check.Stop()
	for {
		p.say(closed == nil)
		if p.pipe.isClosed && timeout == nil {
			timeout = time.After(closing)
		}
		select {
		case frame := <-p.pipe.incoming():
			p.read(frame)
		case err := <-p.pipe.end():
			if p.pipe.isClosed && len(p.batches) == 0 {
				return nil
			}
			return err
		case <-p.pipe.written():
			p.pipe.isWriting = false
		case <-p.more:
		case <-p.resume:
			p.resume = nil
		case <-check.C:
			if p.isStuck() {
				return &Error{Code: codes.DeadlineExceeded, Message: "there is no answer to messages on their way"}
			}
		case <-closed:
			closed = nil
		case <-p.abandoned:
			return nil
		case <-timeout:
			return nil
		}
	}
}

// say sends the next batch, if there is one, and room for it.
func (p *production) say(isClosing bool) {
	if p.pipe.isWriting || p.pipe.isClosed || !p.isOpened {
		return
	}
	if p.isLeaving || isClosing && len(p.batches) == 0 && !p.hasFresh() {
		if len(p.batches) == p.unsent {
			p.pipe.closeSend()
		}
		return
	}
	if p.unsent == 0 {
		p.fill()
	}
	if p.unsent == 0 {
		return
	}
	batch := p.batches[len(p.batches)-p.unsent]
	if !p.hasRoom(batch) {
		return
	}
	p.unsent--
	p.pipe.put(&ackwellv1.ProduceRequest{Frame: &ackwellv1.ProduceRequest_Batch{Batch: batch.wire()}})
}

// hasRoom says whether the window takes the batch besides what is on its way. A batch that is alone is always taken.
func (p *production) hasRoom(next *batch) bool {
	messages, bytes := len(next.confirmations), next.bytes
	onTheWay := p.batches[:len(p.batches)-p.unsent]
	for _, batch := range onTheWay {
		messages += len(batch.confirmations)
		bytes += batch.bytes
	}
	return len(onTheWay) == 0 || uint64(messages) <= uint64(p.window.GetMaxMessages()) && uint64(bytes) <= p.window.GetMaxBytes()
}

// fill makes a batch of what is fresh.
func (p *production) fill() {
	if len(p.batches) >= maxUnconfirmedBatches || p.resume != nil {
		return
	}
	p.lock.Lock()
	defer p.lock.Unlock()
	most := min(len(p.fresh), max(int(p.window.GetMaxMessages()), 1))
	next := &batch{}
	count := 0
	for count < most && fits(count, next.bytes, p.fresh[count].size) {
		next.bytes += p.fresh[count].size
		count++
	}
	if count == 0 {
		return
	}
	p.sequence++
	next.sequence, next.confirmations = p.sequence, p.fresh[:count:count]
	p.fresh = p.fresh[count:]
	p.batches = append(p.batches, next)
	p.unsent++
}

func (b *batch) wire() *ackwellv1.ProduceBatch {
	messages := make([]*ackwellv1.Message, len(b.confirmations))
	for i, confirmation := range b.confirmations {
		messages[i] = confirmation.message
	}
	return &ackwellv1.ProduceBatch{Seq: b.sequence, Messages: messages}
}

func (p *production) hasFresh() bool {
	p.lock.Lock()
	defer p.lock.Unlock()
	return len(p.fresh) > 0
}

// isStuck: what is unconfirmed has waited for too long without any progress.
func (p *production) isStuck() bool {
	isWaiting := !p.isOpened || len(p.batches) > p.unsent
	return isWaiting && time.Since(p.heard) > p.client.settings.retryLimit
}

func (p *production) read(frame *ackwellv1.ProduceResponse) {
	p.heard = time.Now()
	switch frame := frame.GetFrame().(type) {
	case *ackwellv1.ProduceResponse_Opened:
		p.isOpened, p.name, p.window = true, frame.Opened.GetProducer(), frame.Opened.GetWindow()
		p.pauses.reset()
	case *ackwellv1.ProduceResponse_Window:
		p.window = frame.Window
	case *ackwellv1.ProduceResponse_Confirm:
		p.confirmThrough(frame.Confirm)
	case *ackwellv1.ProduceResponse_GoAway:
		p.isLeaving = true
	}
}

// confirmThrough ends the wait for all batches up to one. What was refused only for now is sent again in a later one.
func (p *production) confirmThrough(confirm *ackwellv1.ProduceConfirm) {
	results := confirm.GetResults()
	var again []*Confirmation
	var after time.Duration
	for len(p.batches) > p.unsent && p.batches[0].sequence <= confirm.GetThroughSeq() {
		batch := p.batches[0]
		p.batches = p.batches[1:]
		for index, confirmation := range batch.confirmations {
			result := SendResult{}
			if len(results) > 0 && results[0].GetSeq() == batch.sequence && int(results[0].GetIndex()) == index {
				result = sendResult(results[0].GetResult())
				results = results[1:]
			}
			if failure := callError(result.Err); failure != nil && failure.isTemporary() && p.isYoung(confirmation) {
				again, after = append(again, confirmation), max(after, failure.RetryAfter)
				continue
			}
			p.confirm(confirmation, result.Sent, result.Err)
		}
	}
	if len(again) > 0 {
		p.sendAgain(again, after)
	}
}

func (p *production) sendAgain(again []*Confirmation, after time.Duration) {
	p.resume = time.After(max(after, p.pauses.take()))
	p.lock.Lock()
	defer p.lock.Unlock()
	p.fresh = append(again, p.fresh...)
}

func (p *production) isYoung(confirmation *Confirmation) bool {
	return time.Since(confirmation.taken) < p.client.settings.retryLimit
}

// failOlder gives up on what was taken before a time; the zero time means all. A batch is given up as a whole.
func (p *production) failOlder(than time.Time, failure error) {
	isOld := func(c *Confirmation) bool { return than.IsZero() || c.taken.Before(than) }
	var failed []*Confirmation
	for len(p.batches) > 0 && isOld(p.batches[0].confirmations[0]) {
		failed = append(failed, p.batches[0].confirmations...)
		p.batches = p.batches[1:]
	}
	p.lock.Lock()
	for len(p.fresh) > 0 && isOld(p.fresh[0]) {
		failed = append(failed, p.fresh[0])
		p.fresh = p.fresh[1:]
	}
	p.lock.Unlock()
	for _, confirmation := range failed {
		p.confirm(confirmation, Sent{}, failure)
	}
}
