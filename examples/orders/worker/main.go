// Command worker books the orders of the queue "orders" and prints one line of JSON for each.
//
// Settings, all optional: ACKWELL_ADDRESS, POISON (a text; orders that contain it fail), WORK_MS (time per order).
package main

import (
	"cmp"
	"context"
	"log"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"ackwell.dev/examples/orders-worker/ackwellv1"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	work, err := strconv.Atoi(cmp.Or(os.Getenv("WORK_MS"), "0"))
	if err != nil {
		return err
	}
	address := cmp.Or(os.Getenv("ACKWELL_ADDRESS"), "127.0.0.1:7400")
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()

	books := newBooks(os.Getenv("POISON"), time.Duration(work)*time.Millisecond)
	return newConsumer(ackwellv1.NewQueuesClient(connection), books.enter).run(ctx)
}
