// Command shipper sends the lines of a log to the queue "logs" and prints one line of JSON for each that is stored.
//
// Settings, all optional: ACKWELL_ADDRESS, LOG (the file), FIRST and COUNT (which of its lines), RATE (lines a second).
package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"math"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"ackwell.dev/ackwell"
)

// line is what is printed for each log line stored.
type line struct {
	Sent   string `json:"sent"`
	SHA256 string `json:"sha256"`
}

const (
	// batch is how many lines one call carries: the queue writes them to disk together.
	batch = 100
	// retryLimit is how long a call is repeated: below the two minutes for which brokers know a repetition from a new call.
	retryLimit = 100 * time.Second
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	lines, err := readLines()
	if err != nil {
		return err
	}
	rate, err := strconv.ParseFloat(cmp.Or(os.Getenv("RATE"), "inf"), 64)
	if err != nil {
		return err
	}
	client, err := ackwell.NewClient(ackwell.WithRetryLimit(retryLimit))
	if err != nil {
		return err
	}
	defer client.Close()
	return ship(ctx, client, lines, rate)
}

// readLines returns COUNT lines of the log, after the first FIRST.
func readLines() ([]string, error) {
	text, err := os.ReadFile(cmp.Or(os.Getenv("LOG"), "../data/dpkg.log"))
	if err != nil {
		return nil, err
	}
	first, err := strconv.Atoi(cmp.Or(os.Getenv("FIRST"), "0"))
	if err != nil {
		return nil, err
	}
	count, err := strconv.Atoi(cmp.Or(os.Getenv("COUNT"), strconv.Itoa(math.MaxInt32)))
	if err != nil {
		return nil, err
	}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	lines = lines[min(max(first, 0), len(lines)):]
	return lines[:min(max(count, 0), len(lines))], nil
}

// ship sends all lines in batches, no faster than rate.
func ship(ctx context.Context, client *ackwell.Client, lines []string, rate float64) error {
	out := json.NewEncoder(os.Stdout)
	started, sent := time.Now(), 0
	for lines := range slices.Chunk(lines, batch) {
		if err := store(ctx, client, toMessages(lines), out); err != nil {
			return err
		}
		sent += len(lines)
		time.Sleep(time.Until(started.Add(time.Duration(float64(sent) / rate * float64(time.Second)))))
	}
	return out.Encode(map[string]int{"done": sent})
}

// store sends the messages, those that are refused for now again.
func store(ctx context.Context, client *ackwell.Client, messages []ackwell.Message, out *json.Encoder) error {
	for len(messages) > 0 {
		results, err := client.SendMany(ctx, "logs", messages)
		if err != nil {
			return err
		}
		var refused []ackwell.Message
		var pause time.Duration
		for i, result := range results {
			sum := sha256.Sum256(messages[i].Body)
			reason := (*ackwell.Error)(nil)
			switch {
			case result.Err == nil:
				err = out.Encode(line{result.ID, hex.EncodeToString(sum[:])})
			case errors.As(result.Err, &reason) && reason.RetryAfter > 0:
				refused, pause = append(refused, messages[i]), max(pause, reason.RetryAfter)
			default:
				err = fmt.Errorf("line %q was refused: %w", messages[i].Body, result.Err)
			}
			if err != nil {
				return err
			}
		}
		if messages = refused; len(refused) > 0 {
			log.Printf("%d lines were refused for now, sending them again in %v", len(refused), pause)
			if err := sleep(ctx, pause); err != nil {
				return err
			}
		}
	}
	return nil
}

func sleep(ctx context.Context, duration time.Duration) error {
	select {
	case <-time.After(duration):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func toMessages(lines []string) []ackwell.Message {
	messages := make([]ackwell.Message, len(lines))
	for i, line := range lines {
		messages[i] = ackwell.Message{
			Body:        []byte(line),
			ContentType: "text/plain",
			Headers:     map[string]string{"source": "dpkg.log"},
		}
	}
	return messages
}
