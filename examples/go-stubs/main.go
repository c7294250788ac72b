// Command go-stubs sends a message and consumes it with nothing but the generated stubs: what the client library does
// without the library. Needs a queue "orders" at ACKWELL_ADDRESS or 127.0.0.1:7400.
//
// It goes without what a program that runs for long needs, and the library has: waiting for a broker that is away, resuming
// a stream that broke with what it held, draining when it is told to stop.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	ackwellv1 "ackwell.dev/ackwell/v1"
)

const queue = "orders"

func main() {
	address := cmp.Or(os.Getenv("ACKWELL_ADDRESS"), "127.0.0.1:7400")
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	queues := ackwellv1.NewQueuesClient(connection)
	if err := send(context.Background(), queues); err != nil {
		log.Fatal(err)
	}
	if err := consumeOne(context.Background(), queues); err != nil {
		log.Fatal(err)
	}
}

func send(ctx context.Context, queues ackwellv1.QueuesClient) error {
	sent, err := queues.Send(ctx, &ackwellv1.SendRequest{
		Queue:    queue,
		Messages: []*ackwellv1.Message{{Body: []byte("two discs"), ContentType: "text/plain"}},
		// The same call again, with the same id, stores nothing twice.
		RequestId: rand.Text(),
	})
	if err != nil {
		return err
	}
	fmt.Println("on disk as", sent.GetResults()[0].GetId())
	return nil
}

// consumeOne opens a stream, acks the first message, and ends the stream in the way that costs nobody an attempt.
func consumeOne(ctx context.Context, queues ackwellv1.QueuesClient) error {
	stream, err := queues.Consume(ctx)
	if err != nil {
		return err
	}
	open := &ackwellv1.Open{Queue: queue, Consumer: "go-stubs", Window: &ackwellv1.Window{MaxMessages: 1}}
	if err := stream.Send(&ackwellv1.ConsumeRequest{Frame: &ackwellv1.ConsumeRequest_Open{Open: open}}); err != nil {
		return err
	}
	for {
		frame, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := handle(stream, frame); err != nil {
			return err
		}
	}
}

func handle(stream ackwellv1.Queues_ConsumeClient, frame *ackwellv1.ConsumeResponse) error {
	switch frame := frame.GetFrame().(type) {
	case *ackwellv1.ConsumeResponse_Deliveries:
		delivery := frame.Deliveries.GetDeliveries()[0]
		fmt.Printf("received %s\n", delivery.GetMessage().GetBody())
		ack := &ackwellv1.Settlement{Receipt: delivery.GetReceipt(), Outcome: &ackwellv1.Settlement_Ack{Ack: &ackwellv1.Ack{}}}
		if err := stream.Send(&ackwellv1.ConsumeRequest{Frame: &ackwellv1.ConsumeRequest_Drain{Drain: &ackwellv1.Drain{}}}); err != nil {
			return err
		}
		settle := &ackwellv1.SettleFrame{Seq: 1, Settlements: []*ackwellv1.Settlement{ack}}
		return stream.Send(&ackwellv1.ConsumeRequest{Frame: &ackwellv1.ConsumeRequest_Settle{Settle: settle}})
	case *ackwellv1.ConsumeResponse_Settled:
		if failure := frame.Settled.GetResults()[0].GetError(); failure != nil {
			return fmt.Errorf("not acked: %s [%s]", failure.GetMessage(), failure.GetReason())
		}
		fmt.Println("acked")
		return stream.CloseSend()
	case *ackwellv1.ConsumeResponse_Revoked:
		return fmt.Errorf("revoked: %s", frame.Revoked.GetReason())
	}
	return nil
}
