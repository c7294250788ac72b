package ackwell_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os/signal"
	"syscall"
	"time"

	"ackwell.dev/ackwell"
)

var errBusy = errors.New("the warehouse is busy")

func book(context.Context, []byte) error { return nil }

func Example() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	client, err := ackwell.NewClient()
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	sent, err := client.Send(ctx, "orders", ackwell.Message{Body: []byte("two discs")})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("on disk as", sent.ID)

	err = client.Consume(ctx, "orders", func(ctx context.Context, d *ackwell.Delivery) error {
		if len(d.Body) == 0 {
			return ackwell.Reject("an order needs a body")
		}
		err := book(ctx, d.Body)
		if errors.Is(err, errBusy) {
			return ackwell.Retry(time.Minute, err)
		}
		return err
	}, ackwell.Concurrency(8))
	if err != nil {
		log.Fatal(err)
	}
}

func ExampleProducer() {
	ctx := context.Background()
	client, err := ackwell.NewClient()
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	producer := client.NewProducer("orders")
	var confirmations []*ackwell.Confirmation
	for _, order := range []string{"two discs", "one book"} {
		// Waits when too much is unconfirmed.
		confirmation, err := producer.Send(ctx, ackwell.Message{Body: []byte(order)})
		if err != nil {
			log.Fatal(err)
		}
		confirmations = append(confirmations, confirmation)
	}
	if err := producer.Close(ctx); err != nil {
		log.Fatal(err)
	}
	for _, confirmation := range confirmations {
		sent, err := confirmation.Wait(ctx)
		fmt.Println(sent.ID, err)
	}
}

func ExampleClient_Receive() {
	ctx := context.Background()
	client, err := ackwell.NewClient()
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	deliveries, err := client.Receive(ctx, "orders", ackwell.Receive{MaxMessages: 10})
	if err != nil {
		log.Fatal(err)
	}
	for _, delivery := range deliveries {
		if err := book(ctx, delivery.Body); err != nil {
			err = delivery.Nack(ctx, err.Error())
		} else {
			err = delivery.Ack(ctx)
		}
		if errors.Is(err, ackwell.ReceiptExpired) {
			fmt.Println("it took too long, somebody else gets it:", delivery.ID)
		}
	}
}
