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

	"ackwell.dev/ackwell"
)

// concurrency is how many orders are worked on at once.
const concurrency = 16

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
	client, err := ackwell.NewClient()
	if err != nil {
		return err
	}
	defer client.Close()

	books := newBooks(os.Getenv("POISON"), time.Duration(work)*time.Millisecond)
	return client.Consume(ctx, "orders", books.enter, ackwell.Concurrency(concurrency))
}
