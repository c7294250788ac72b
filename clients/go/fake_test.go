package ackwell

import (
	"context"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	ackwellv1 "ackwell.dev/ackwell/v1"
)

// soon is when everything that is waited for has long come.
const soon = 10 * time.Second

// fake answers as its functions say.
type fake struct {
	ackwellv1.UnimplementedQueuesServer
	send    func(*ackwellv1.SendRequest) (*ackwellv1.SendResponse, error)
	settle  func(*ackwellv1.SettleRequest) (*ackwellv1.SettleResponse, error)
	consume func(ackwellv1.Queues_ConsumeServer) error
	produce func(ackwellv1.Queues_ProduceServer) error
}

func (f *fake) Send(_ context.Context, request *ackwellv1.SendRequest) (*ackwellv1.SendResponse, error) {
	return f.send(request)
}

func (f *fake) Settle(_ context.Context, request *ackwellv1.SettleRequest) (*ackwellv1.SettleResponse, error) {
	return f.settle(request)
}

func (f *fake) Consume(stream ackwellv1.Queues_ConsumeServer) error { return f.consume(stream) }

func (f *fake) Produce(stream ackwellv1.Queues_ProduceServer) error { return f.produce(stream) }

// clientOf is a client of the fake; both end with the test, which fails if the client leaves goroutines behind.
func clientOf(t *testing.T, fake *fake, options ...Option) *Client {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	ackwellv1.RegisterQueuesServer(server, fake)
	go func() { _ = server.Serve(listener) }()
	options = append([]Option{WithAddress(listener.Addr().String()), WithName("test")}, options...)
	client, err := NewClient(options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close()
		server.Stop()
		expectNoGoroutines(t)
	})
	return client
}

func expectNoGoroutines(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(soon)
	for {
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		left := 0
		for _, stack := range strings.Split(string(stacks), "\n\n") {
			if strings.Contains(stack, "ackwell.(*") || strings.Contains(stack, "internal/transport") {
				left++
			}
		}
		if left == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines are left:\n%s", left, stacks)
		}
		runtime.Gosched()
	}
}

// refusal is a status as brokers and sidecars make it.
func refusalStatus(reason Reason, retryAfter time.Duration) error {
	answer := status.New(code(reason), "what to do")
	detailed, _ := answer.WithDetails(&errdetails.ErrorInfo{Reason: string(reason), Domain: domain})
	if retryAfter > 0 {
		detailed, _ = detailed.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(retryAfter)})
	}
	return detailed.Err()
}

func stored(request *ackwellv1.SendRequest) *ackwellv1.SendResponse {
	answer := &ackwellv1.SendResponse{}
	for _, message := range request.GetMessages() {
		answer.Results = append(answer.Results, &ackwellv1.SendResult{Id: string(message.GetBody())})
	}
	return answer
}

// held is a Consume stream as the fake sees it.
type held struct {
	t    *testing.T
	wire ackwellv1.Queues_ConsumeServer
}

// opened reads the first frame and answers it.
func (h held) opened() *ackwellv1.Open {
	open := h.next().GetOpen()
	if open == nil {
		h.t.Error("the first frame is not open")
	}
	h.tell(&ackwellv1.ConsumeResponse{Frame: &ackwellv1.ConsumeResponse_Opened{Opened: &ackwellv1.Opened{}}})
	return open
}

func (h held) next() *ackwellv1.ConsumeRequest {
	frame, err := h.wire.Recv()
	if err != nil {
		return &ackwellv1.ConsumeRequest{}
	}
	return frame
}

func (h held) tell(frame *ackwellv1.ConsumeResponse) {
	if err := h.wire.Send(frame); err != nil {
		h.t.Error(err)
	}
}

func (h held) deliver(bodies ...string) {
	frame := &ackwellv1.Deliveries{}
	for _, body := range bodies {
		message := &ackwellv1.Message{Id: body, Body: []byte(body)}
		frame.Deliveries = append(frame.Deliveries, &ackwellv1.Delivery{Receipt: []byte(body), Message: message})
	}
	h.tell(&ackwellv1.ConsumeResponse{Frame: &ackwellv1.ConsumeResponse_Deliveries{Deliveries: frame}})
}

// settled reads settlements until there are so many, and confirms them.
func (h held) settled(count int) map[string]*ackwellv1.Settlement {
	all := map[string]*ackwellv1.Settlement{}
	for len(all) < count {
		frame := h.next()
		if frame.GetFrame() == nil {
			return all
		}
		settle := frame.GetSettle()
		if settle == nil {
			continue
		}
		h.confirm(settle, nil)
		for _, settlement := range settle.GetSettlements() {
			all[string(settlement.GetReceipt())] = settlement
		}
	}
	return all
}

func (h held) confirm(settle *ackwellv1.SettleFrame, failure *ackwellv1.ItemError) {
	answer := &ackwellv1.SettledFrame{Seq: settle.GetSeq()}
	for range settle.GetSettlements() {
		answer.Results = append(answer.Results, &ackwellv1.SettleResult{Error: failure})
	}
	h.tell(&ackwellv1.ConsumeResponse{Frame: &ackwellv1.ConsumeResponse_Settled{Settled: answer}})
}

// drained reads until the client has closed its side.
func (h held) drained() {
	for h.next().GetFrame() != nil {
	}
}

var errBroken = status.Error(codes.Unavailable, "the connection broke")
