// Package ackwell is the Go client for Ackwell queues.
//
//	client, err := ackwell.NewClient()
//	if err != nil {
//		return err
//	}
//	defer client.Close()
//
//	sent, err := client.Send(ctx, "orders", ackwell.Message{Body: []byte("two discs")})
//
//	err = client.Consume(ctx, "orders", func(ctx context.Context, d *ackwell.Delivery) error {
//		return book(ctx, d.Body) // nil acks, an error nacks, ackwell.Reject and ackwell.Retry say otherwise
//	})
//
// A client talks to the sidecar of its pod, or to a broker such as `ackwell dev`: at ACKWELL_ADDRESS, else at 127.0.0.1:7400.
// It is safe for use by many goroutines; one for each process is enough.
//
// Calls wait for a broker that is away, for 30 s unless their context ends before, and store nothing twice by that. What is
// refused is an [*Error] with a stable [Reason]:
//
//	if errors.Is(err, ackwell.QueueFull) { ... }
//
// The generated bindings are in the package ackwell.dev/ackwell/v1.
package ackwell
