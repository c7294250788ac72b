package ackwell

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	ackwellv1 "ackwell.dev/ackwell/v1"
)

// Admin is what people, consoles and scripts call: Peek, Get, Explain, Stats, Redrive, Purge, Cancel, Pause. These are the
// generated bindings, but that their errors are [*Error] and that they wait for a broker that is away.
func (c *Client) Admin() ackwellv1.QueueAdminClient {
	return ackwellv1.NewQueueAdminClient(&patient{c})
}

// Stats counts the messages of a queue.
func (c *Client) Stats(ctx context.Context, queue string) (*ackwellv1.StatsResponse, error) {
	return c.Admin().Stats(ctx, &ackwellv1.StatsRequest{Queue: queue})
}

// patient is a connection whose unary calls are repeated and whose errors are ours.
type patient struct{ client *Client }

func (p *patient) Invoke(ctx context.Context, method string, in, out any, options ...grpc.CallOption) error {
	_, err := retry(ctx, p.client.settings.retryLimit, func(ctx context.Context) (any, error) {
		return out, p.client.connection.Invoke(ctx, method, in, out, options...)
	})
	return err
}

func (p *patient) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, options ...grpc.CallOption) (grpc.ClientStream, error) {
	stream, err := p.client.connection.NewStream(ctx, desc, method, options...)
	if err != nil {
		return nil, callError(err)
	}
	return &typed{stream}, nil
}

// typed is a stream whose errors are ours.
type typed struct{ grpc.ClientStream }

func (t *typed) RecvMsg(message any) error {
	err := t.ClientStream.RecvMsg(message)
	if _, refused := status.FromError(err); err == nil || !refused {
		return err // io.EOF stays what it is.
	}
	return callError(err)
}
