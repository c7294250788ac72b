package main

import (
	"context"
	"fmt"
	"log"

	ackwell "ackwell.dev/examples/quickstart/ackwellv1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

func main() {
	ctx := context.Background()
	connection, _ := grpc.NewClient("127.0.0.1:7400", grpc.WithTransportCredentials(insecure.NewCredentials()))
	queues := ackwell.NewQueuesClient(connection)

	sent, err := queues.Send(ctx, &ackwell.SendRequest{Queue: "orders", Messages: []*ackwell.Message{{Body: []byte("two discs")}}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("on disk as", sent.Results[0].Id)

	received, err := queues.Receive(ctx, &ackwell.ReceiveRequest{Queue: "orders"})
	if err != nil {
		log.Fatal(err)
	}
	for _, delivery := range received.Deliveries {
		fmt.Printf("received %s\n", delivery.Message.Body)
		done := &ackwell.Settlement{Receipt: delivery.Receipt, Outcome: &ackwell.Settlement_Ack{Ack: &ackwell.Ack{}}}
		queues.Settle(ctx, &ackwell.SettleRequest{Queue: "orders", Settlements: []*ackwell.Settlement{done}})
	}
}
