package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"ackwell.dev/ackwell"
)

type order struct {
	Order   string `json:"order"`
	Dollars string `json:"dollars"`
}

// line is what is printed for each order booked.
type line struct {
	Processed  string `json:"processed"`
	SHA256     string `json:"sha256"`
	Attempts   uint32 `json:"attempts"`
	Deliveries uint32 `json:"deliveries"`
}

// books holds every order once, however often it is delivered: here in memory, elsewhere in a table with a primary key.
type books struct {
	poison string
	work   time.Duration

	mu     sync.Mutex
	orders map[string]order
	out    *json.Encoder
}

func newBooks(poison string, work time.Duration) *books {
	return &books{poison: poison, work: work, orders: map[string]order{}, out: json.NewEncoder(os.Stdout)}
}

// enter books one order. What it returns decides what becomes of the message: nil acks, an error nacks, and no retry can help a
// malformed order.
func (b *books) enter(ctx context.Context, delivery *ackwell.Delivery) error {
	var entry order
	if err := json.Unmarshal(delivery.Body, &entry); err != nil {
		return ackwell.Reject("malformed order: " + err.Error())
	}
	if entry.Order == "" {
		return ackwell.Reject("malformed order: it has no number")
	}
	if err := b.charge(ctx, delivery.Body); err != nil {
		return err
	}
	return b.record(entry, delivery)
}

// charge stands for the slow part that can fail.
func (b *books) charge(ctx context.Context, body []byte) error {
	select {
	case <-time.After(b.work):
	case <-ctx.Done():
		return ctx.Err()
	}
	if b.poison != "" && bytes.Contains(body, []byte(b.poison)) {
		return fmt.Errorf("payment refused: the order contains %q", b.poison)
	}
	return nil
}

func (b *books) record(entry order, delivery *ackwell.Delivery) error {
	sum := sha256.Sum256(delivery.Body)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.orders[entry.Order] = entry
	return b.out.Encode(line{delivery.ID, hex.EncodeToString(sum[:]), delivery.Attempts, delivery.Deliveries})
}
