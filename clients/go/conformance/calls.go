package main

import (
	"context"

	"ackwell.dev/ackwell"
	ackwellv1 "ackwell.dev/ackwell/v1"
)

type call func(ctx context.Context, client *ackwell.Client, c *command) (object, error)

var calls = map[string]call{
	"send":           send,
	"send_many":      sendMany,
	"receive":        receive,
	"settle":         settle,
	"extend":         extend,
	"commit":         commit,
	"stats":          stats,
	"peek":           peek,
	"get":            get,
	"cancel":         cancelMessages,
	"to_message":     toMessage,
	"to_cloud_event": toCloudEvent,
	"seal":           seal,
	"open":           open,
}

func send(ctx context.Context, client *ackwell.Client, c *command) (object, error) {
	if c.Traceparent != "" {
		ctx = ackwell.ContextWithTrace(ctx, ackwell.Trace{Parent: c.Traceparent})
	}
	sent, err := client.Send(ctx, c.Queue, c.Message.message())
	return sentJSON(sent), err
}

func sendMany(ctx context.Context, client *ackwell.Client, c *command) (object, error) {
	sendAll := client.SendMany
	if c.Atomic {
		sendAll = client.SendAtomic
	}
	results, err := sendAll(ctx, c.Queue, messagesOf(c.Messages))
	if results == nil && err != nil {
		return nil, err
	}
	return object{"results": sendResultsJSON(results)}, nil
}

func receive(ctx context.Context, client *ackwell.Client, c *command) (object, error) {
	how := ackwell.Receive{MaxMessages: c.MaxMessages, Consumer: c.Consumer}
	if c.WaitMs != nil {
		how.Wait = milliseconds(*c.WaitMs)
		if *c.WaitMs == 0 {
			how.Wait = -1
		}
	}
	if c.AckTimeoutMs != nil {
		how.AckTimeout = milliseconds(*c.AckTimeoutMs)
	}
	deliveries, err := client.Receive(ctx, c.Queue, how)
	return object{"deliveries": list(deliveries, deliveryJSON)}, err
}

func settle(ctx context.Context, client *ackwell.Client, c *command) (object, error) {
	results, err := client.Settle(ctx, c.Queue, settlementsOf(c.Settlements))
	return object{"results": list(results, settleResultJSON)}, err
}

func extend(ctx context.Context, client *ackwell.Client, c *command) (object, error) {
	ackTimeout := int64(0)
	if c.AckTimeoutMs != nil {
		ackTimeout = *c.AckTimeoutMs
	}
	results, err := client.Extend(ctx, c.Queue, c.Receipts, milliseconds(ackTimeout))
	return object{"results": list(results, extendResultJSON)}, err
}

func commit(ctx context.Context, client *ackwell.Client, c *command) (object, error) {
	commit := ackwell.Commit{RequestID: c.RequestID}
	for _, settle := range c.Settle {
		commit.Settle = append(commit.Settle, ackwell.QueueSettlements{Queue: settle.Queue, Settlements: settlementsOf(settle.Settlements)})
	}
	for _, send := range c.Send {
		commit.Send = append(commit.Send, ackwell.QueueMessages{Queue: send.Queue, Messages: messagesOf(send.Messages)})
	}
	done, err := client.Commit(ctx, commit)
	settled := list(done.Settled, func(results []ackwell.SettleResult) []object { return list(results, settleResultJSON) })
	return object{"settled": settled, "sent": list(done.Sent, sendResultsJSON)}, err
}

func stats(ctx context.Context, client *ackwell.Client, c *command) (object, error) {
	stats, err := client.Stats(ctx, c.Queue)
	if err != nil {
		return nil, err
	}
	return object{
		"ready": stats.GetReady(), "delayed": stats.GetDelayed(), "in_flight": stats.GetInFlight(), "dead": stats.GetDead(),
		"consumers": stats.GetConsumers(),
	}, nil
}

func peek(ctx context.Context, client *ackwell.Client, c *command) (object, error) {
	answer, err := client.Admin().Peek(ctx, &ackwellv1.PeekRequest{Queue: c.Queue, Limit: c.Limit, BodyBytes: c.BodyBytes})
	return object{"messages": list(answer.GetMessages(), storedJSON)}, err
}

func get(ctx context.Context, client *ackwell.Client, c *command) (object, error) {
	answer, err := client.Admin().Get(ctx, &ackwellv1.GetRequest{Queue: c.Queue, Id: c.MessageID})
	return object{"message": storedJSON(answer.GetMessage())}, err
}

func cancelMessages(ctx context.Context, client *ackwell.Client, c *command) (object, error) {
	answer, err := client.Admin().Cancel(ctx, &ackwellv1.CancelRequest{Queue: c.Queue, Ids: c.MessageIDs})
	result := func(result *ackwellv1.CancelResult) object {
		if result.GetError() == nil {
			return object{}
		}
		return object{"error": object{"reason": result.GetError().GetReason(), "message": result.GetError().GetMessage()}}
	}
	return object{"results": list(answer.GetResults(), result)}, err
}

func toMessage(_ context.Context, _ *ackwell.Client, c *command) (object, error) {
	message, err := c.CloudEvent.event().Message()
	return object{"message": messageJSON(message)}, err
}

func toCloudEvent(_ context.Context, _ *ackwell.Client, c *command) (object, error) {
	event, err := c.Message.message().CloudEvent()
	return object{"cloud_event": eventJSON(event)}, err
}

func seal(_ context.Context, _ *ackwell.Client, c *command) (object, error) {
	ring, err := c.keyring()
	if err != nil {
		return nil, err
	}
	sealed, err := ring.Seal(c.Queue, c.Message.message())
	return object{"message": messageJSON(sealed)}, err
}

func open(_ context.Context, _ *ackwell.Client, c *command) (object, error) {
	ring, err := c.keyring()
	if err != nil {
		return nil, err
	}
	opened, err := ring.Open(c.Queue, c.Message.message())
	return object{"message": messageJSON(opened)}, err
}
