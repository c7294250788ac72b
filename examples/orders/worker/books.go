package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"ackwell.dev/examples/orders-worker/ackwellv1"
)

// errMalformed marks orders that no retry can help.
var errMalformed = errors.New("malformed order")

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

// enter books one order. What it returns decides whether the message is acked, nacked or rejected.
func (b *books) enter(ctx context.Context, message *ackwellv1.Message) error {
	var entry order
	if err := json.Unmarshal(message.Body, &entry); err != nil {
		return fmt.Errorf("%w: %w", errMalformed, err)
	}
	if entry.Order == "" {
		return fmt.Errorf("%w: it has no number", errMalformed)
	}
	if err := b.charge(ctx, message.Body); err != nil {
		return err
	}
	return b.record(entry, message)
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

func (b *books) record(entry order, message *ackwellv1.Message) error {
	sum := sha256.Sum256(message.Body)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.orders[entry.Order] = entry
	return b.out.Encode(line{message.Id, hex.EncodeToString(sum[:]), message.Attempts, message.Deliveries})
}
