package ackwell

import (
	"context"
	"log/slog"
	"os"
	"time"

	"google.golang.org/grpc"

	ackwellv1 "ackwell.dev/ackwell/v1"
)

// retryLimit is how long a call is repeated while the broker is away: well below the two minutes for which brokers remember
// request ids, so that a repeated call has no second effect.
const retryLimit = 30 * time.Second

// Client is a connection to a sidecar or broker. It is made by [NewClient] and ended by [Client.Close].
type Client struct {
	connection *grpc.ClientConn
	queues     ackwellv1.QueuesClient
	admin      ackwellv1.QueueAdminClient
	settings   settings
}

type settings struct {
	address    string
	name       string
	retryLimit time.Duration
	tracing    Tracing
	logger     *slog.Logger
	dial       []grpc.DialOption
}

// Option changes how a client works.
type Option func(*settings)

// WithAddress connects to "host:port" instead of ACKWELL_ADDRESS or 127.0.0.1:7400.
func WithAddress(address string) Option {
	return func(s *settings) { s.address = address }
}

// WithName names the consumers of this client in the histories of messages, instead of the host's name.
func WithName(name string) Option {
	return func(s *settings) { s.name = name }
}

// WithRetryLimit repeats calls for at most limit while the broker is away, instead of for 30 s. From two minutes on a
// repeated send can store twice.
func WithRetryLimit(limit time.Duration) Option {
	return func(s *settings) { s.retryLimit = limit }
}

// WithTracing carries trace context by an OpenTelemetry propagator, instead of passing on what came in; see [Tracing].
func WithTracing(tracing Tracing) Option {
	return func(s *settings) { s.tracing = tracing }
}

// WithLogger tells logger what no caller is there to be told: streams that break, settlements that come too late.
func WithLogger(logger *slog.Logger) Option {
	return func(s *settings) { s.logger = logger }
}

// WithDialOptions adds options of gRPC, such as interceptors.
func WithDialOptions(options ...grpc.DialOption) Option {
	return func(s *settings) { s.dial = append(s.dial, options...) }
}

// NewClient makes a client. It connects with the first call, which waits for the sidecar or broker to come up.
func NewClient(options ...Option) (*Client, error) {
	settings := defaults()
	for _, option := range options {
		option(&settings)
	}
	connection, err := connect(settings)
	if err != nil {
		return nil, err
	}
	return &Client{
		connection: connection,
		queues:     ackwellv1.NewQueuesClient(connection),
		admin:      ackwellv1.NewQueueAdminClient(connection),
		settings:   settings,
	}, nil
}

func defaults() settings {
	host, _ := os.Hostname()
	return settings{
		address:    os.Getenv("ACKWELL_ADDRESS"),
		name:       host,
		retryLimit: retryLimit,
		tracing:    passOn,
		logger:     slog.Default(),
	}
}

// Close ends the connection, and with it calls and consumers that are still under way: end those first.
func (c *Client) Close() error {
	return c.connection.Close()
}

// Ready waits until the sidecar or broker answers, or ctx ends.
func (c *Client) Ready(ctx context.Context) error {
	c.connection.Connect()
	for state := c.connection.GetState(); state != ready; state = c.connection.GetState() {
		if !c.connection.WaitForStateChange(ctx, state) {
			return &Error{Message: "nobody answers at " + c.connection.Target(), cause: ctx.Err()}
		}
		c.connection.Connect()
	}
	return nil
}
