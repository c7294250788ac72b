package ackwell

import (
	"context"

	"google.golang.org/grpc"
)

// pipe is a stream in both directions. Two goroutines of its own read and write it, so that one who also waits for other
// things can use it; both end with the pipe. Its channels, those of a nil pipe too, are never ready when there is nothing.
type pipe[Ask, Told any] struct {
	frames chan *Told
	ended  chan error
	wrote  chan struct{}
	out    chan *Ask
	// isWriting: a frame is with the writer; isClosed: our side has ended.
	isWriting, isClosed bool
	close               func()
}

// openPipe calls open with a context that ends with the pipe.
func openPipe[Ask, Told any](open func(context.Context, ...grpc.CallOption) (grpc.BidiStreamingClient[Ask, Told], error)) (*pipe[Ask, Told], error) {
	ctx, cancel := context.WithCancel(context.Background())
	wire, err := open(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	pipe := &pipe[Ask, Told]{
		frames: make(chan *Told),
		ended:  make(chan error, 1),
		wrote:  make(chan struct{}, 1),
		out:    make(chan *Ask, 1),
	}
	reading, writing := make(chan struct{}), make(chan struct{})
	go func() { defer close(reading); pipe.read(ctx, wire) }()
	go func() { defer close(writing); pipe.write(ctx, wire) }()
	pipe.close = func() {
		cancel()
		<-reading
		<-writing
	}
	return pipe, nil
}

func (p *pipe[Ask, Told]) read(ctx context.Context, wire grpc.BidiStreamingClient[Ask, Told]) {
	for {
		frame, err := wire.Recv()
		if err != nil {
			p.ended <- err
			return
		}
		select {
		case p.frames <- frame:
		case <-ctx.Done():
			return
		}
	}
}

// write drops errors: a stream that cannot be written to fails at reading as well, with the true reason.
func (p *pipe[Ask, Told]) write(ctx context.Context, wire grpc.BidiStreamingClient[Ask, Told]) {
	for {
		select {
		case frame, ok := <-p.out:
			if !ok {
				_ = wire.CloseSend()
				return
			}
			_ = wire.Send(frame)
			p.wrote <- struct{}{}
		case <-ctx.Done():
			return
		}
	}
}

// put does not block: there is room for one, and the one before is written.
func (p *pipe[Ask, Told]) put(frame *Ask) {
	p.isWriting = true
	p.out <- frame
}

// closeSend ends our side. Nothing may be put after it.
func (p *pipe[Ask, Told]) closeSend() {
	p.isClosed = true
	close(p.out)
}

func (p *pipe[Ask, Told]) incoming() <-chan *Told {
	if p == nil {
		return nil
	}
	return p.frames
}

func (p *pipe[Ask, Told]) end() <-chan error {
	if p == nil {
		return nil
	}
	return p.ended
}

func (p *pipe[Ask, Told]) written() <-chan struct{} {
	if p == nil {
		return nil
	}
	return p.wrote
}
