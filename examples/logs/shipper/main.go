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
	"log"
	"math"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"ackwell.dev/examples/logs-shipper/ackwellv1"
)

// line is what is printed for each log line stored.
type line struct {
	Sent   string `json:"sent"`
	SHA256 string `json:"sha256"`
}

// batch is how many lines one call carries: the queue writes them to disk together.
const batch = 100

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
	address := cmp.Or(os.Getenv("ACKWELL_ADDRESS"), "127.0.0.1:7400")
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	return ship(ctx, &sender{queues: ackwellv1.NewQueuesClient(connection), queue: "logs"}, lines, rate)
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
func ship(ctx context.Context, sender *sender, lines []string, rate float64) error {
	out := json.NewEncoder(os.Stdout)
	started, sent := time.Now(), 0
	for lines := range slices.Chunk(lines, batch) {
		messages := toMessages(lines)
		ids, err := sender.send(ctx, messages)
		if err != nil {
			return err
		}
		for i, message := range messages {
			sum := sha256.Sum256(message.Body)
			if err := out.Encode(line{ids[i], hex.EncodeToString(sum[:])}); err != nil {
				return err
			}
		}
		sent += len(lines)
		time.Sleep(time.Until(started.Add(time.Duration(float64(sent) / rate * float64(time.Second)))))
	}
	return out.Encode(map[string]int{"done": sent})
}

func toMessages(lines []string) []*ackwellv1.Message {
	messages := make([]*ackwellv1.Message, len(lines))
	for i, line := range lines {
		messages[i] = &ackwellv1.Message{
			Body:        []byte(line),
			ContentType: "text/plain",
			Headers:     map[string]string{"source": "dpkg.log"},
		}
	}
	return messages
}
