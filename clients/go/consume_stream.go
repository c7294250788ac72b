package ackwell

import (
	"slices"
	"time"

	ackwellv1 "ackwell.dev/ackwell/v1"
)

// stream is one Consume stream.
type stream struct {
	*pipe[ackwellv1.ConsumeRequest, ackwellv1.ConsumeResponse]
	// first are the frames to write before settlements.
	first []*ackwellv1.ConsumeRequest
	// isDrained: the other side was told to deliver nothing more; isLeaving: it will deliver nothing more.
	isOpened, isDrained, isLeaving bool
}

// consume lives as long as one stream, and reports whether it was opened.
func (w *work) consume() (wasOpened bool, err error) {
	pipe, err := openPipe(w.client.queues.Consume)
	if err != nil {
		return false, err
	}
	defer pipe.close()
	stream := &stream{pipe: pipe}
	w.open(stream)
	err = w.serve(stream)
	return stream.isOpened, err
}

// serve returns nil after an end that both sides agreed on, and when it gives up.
func (w *work) serve(stream *stream) error {
	var timeout <-chan time.Time
	for {
		w.start()
		w.say(stream)
		if stream.isClosed && timeout == nil {
			timeout = time.After(closing)
		}
		frame, ended, err := w.wait(timeout, stream.pipe)
		switch {
		case ended && stream.isClosed:
			return nil
		case ended:
			return err
		case frame != nil:
			w.read(stream, frame)
		}
	}
}

// open takes along what an earlier stream left behind, and repeats settlements that got no answer.
func (w *work) open(stream *stream) {
	window := &ackwellv1.Window{
		MaxMessages: uint32(w.settings.concurrency + w.settings.prefetch),
		MaxBytes:    w.settings.windowBytes,
	}
	open := &ackwellv1.Open{Queue: w.queue, Consumer: w.settings.name, Window: window}
	w.asked, w.unsaid = map[uint64][]*job{}, nil
	for receipt, job := range w.held {
		open.Held = append(open.Held, []byte(receipt))
		if job.settlement != nil {
			w.unsaid = append(w.unsaid, job)
		}
	}
	stream.first = append(stream.first, &ackwellv1.ConsumeRequest{Frame: &ackwellv1.ConsumeRequest_Open{Open: open}})
}

// say writes the next frame, if there is one and the last one is written: settlements that come meanwhile share a frame.
func (w *work) say(stream *stream) {
	if w.isStopping && !stream.isDrained {
		stream.isDrained, stream.isLeaving = true, true
		stream.first = append(stream.first, &ackwellv1.ConsumeRequest{Frame: &ackwellv1.ConsumeRequest_Drain{Drain: &ackwellv1.Drain{}}})
	}
	w.unsaid = slices.DeleteFunc(w.unsaid, func(job *job) bool { return job.isGone })
	switch {
	case stream.isWriting || stream.isClosed:
	case len(stream.first) > 0:
		stream.put(stream.first[0])
		stream.first = stream.first[1:]
	case len(w.unsaid) > 0 && len(w.asked) < maxUnansweredFrames:
		stream.put(w.settleFrame())
	case stream.isLeaving && len(w.held) == 0:
		// What is delivered only now goes back to the queue, free of charge.
		stream.closeSend()
	}
}

func (w *work) settleFrame() *ackwellv1.ConsumeRequest {
	jobs := w.unsaid[:min(len(w.unsaid), maxSettlements)]
	w.unsaid = w.unsaid[len(jobs):]
	w.sequence++
	w.asked[w.sequence] = jobs
	frame := &ackwellv1.SettleFrame{Seq: w.sequence}
	for _, job := range jobs {
		frame.Settlements = append(frame.Settlements, job.settlement)
	}
	return &ackwellv1.ConsumeRequest{Frame: &ackwellv1.ConsumeRequest_Settle{Settle: frame}}
}

func (w *work) read(stream *stream, frame *ackwellv1.ConsumeResponse) {
	switch frame := frame.GetFrame().(type) {
	case *ackwellv1.ConsumeResponse_Opened:
		stream.isOpened = true
	case *ackwellv1.ConsumeResponse_Deliveries:
		if stream.isClosed {
			return
		}
		for _, delivery := range frame.Deliveries.GetDeliveries() {
			w.take(delivery)
		}
	case *ackwellv1.ConsumeResponse_Settled:
		w.confirm(frame.Settled)
	case *ackwellv1.ConsumeResponse_Revoked:
		w.revoke(frame.Revoked.GetReceipts())
	case *ackwellv1.ConsumeResponse_GoAway:
		stream.isLeaving = true
	}
}
