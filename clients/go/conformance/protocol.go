package main

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"ackwell.dev/ackwell"
	ackwellv1 "ackwell.dev/ackwell/v1"
)

type object = map[string]any

// command is any command; which fields it has follows from its op.
type command struct {
	ID             int           `json:"id"`
	Op             string        `json:"op"`
	Queue          string        `json:"queue"`
	Message        message       `json:"message"`
	Messages       []message     `json:"messages"`
	Atomic         bool          `json:"atomic"`
	MaxMessages    uint32        `json:"max_messages"`
	WaitMs         *int64        `json:"wait_ms"`
	AckTimeoutMs   *int64        `json:"ack_timeout_ms"`
	TimeoutMs      *int64        `json:"timeout_ms"`
	RetryLimitMs   *int64        `json:"retry_limit_ms"`
	GraceMs        *int64        `json:"grace_ms"`
	DelayMs        *int64        `json:"delay_ms"`
	Consumer       string        `json:"consumer"`
	Settlements    []settlement  `json:"settlements"`
	Receipts       [][]byte      `json:"receipts"`
	Settle         []settlements `json:"settle"`
	Send           []messages    `json:"send"`
	RequestID      string        `json:"request_id"`
	Limit          uint32        `json:"limit"`
	BodyBytes      uint32        `json:"body_bytes"`
	MessageID      string        `json:"message_id"`
	MessageIDs     []string      `json:"message_ids"`
	Call           int           `json:"call"`
	Producer       string        `json:"producer"`
	MaxOutstanding int           `json:"max_outstanding"`
	Concurrency    int           `json:"concurrency"`
	Prefetch       int           `json:"prefetch"`
	Delivery       string        `json:"delivery"`
	Outcome        string        `json:"outcome"`
	Reason         string        `json:"reason"`
	Traceparent    string        `json:"traceparent"`
	CloudEvent     cloudEvent    `json:"cloud_event"`

	Keys          map[string][]byte `json:"keys"`
	Current       string            `json:"current"`
	AllowUnsealed bool              `json:"allow_unsealed"`
}

func (c *command) keyring() (*ackwell.Keyring, error) {
	ring, err := ackwell.NewKeyring(c.Current, c.Keys)
	if err == nil && c.AllowUnsealed {
		ring = ring.AllowUnsealed()
	}
	return ring, err
}

type settlements struct {
	Queue       string       `json:"queue"`
	Settlements []settlement `json:"settlements"`
}

type messages struct {
	Queue    string    `json:"queue"`
	Messages []message `json:"messages"`
}

type message struct {
	Body        []byte            `json:"body"`
	Headers     map[string]string `json:"headers"`
	ContentType string            `json:"content_type"`
	OrderingKey string            `json:"ordering_key"`
	FairnessKey string            `json:"fairness_key"`
	Priority    *uint32           `json:"priority"`
	DedupID     string            `json:"dedup_id"`
	DelayMs     int64             `json:"delay_ms"`
	DeliverAtMs int64             `json:"deliver_at_ms"`
	TTLMs       int64             `json:"ttl_ms"`
	MaxAttempts uint32            `json:"max_attempts"`
}

func (m message) message() ackwell.Message {
	message := ackwell.Message{
		Body: m.Body, Headers: m.Headers, ContentType: m.ContentType, OrderingKey: m.OrderingKey, FairnessKey: m.FairnessKey,
		Priority: m.Priority, DedupID: m.DedupID, Delay: milliseconds(m.DelayMs), TTL: milliseconds(m.TTLMs), MaxAttempts: m.MaxAttempts,
	}
	if m.DeliverAtMs != 0 {
		message.DeliverAt = time.UnixMilli(m.DeliverAtMs)
	}
	return message
}

func messagesOf(all []message) []ackwell.Message { return list(all, message.message) }

type settlement struct {
	Receipt []byte `json:"receipt"`
	Outcome string `json:"outcome"`
	Reason  string `json:"reason"`
	DelayMs *int64 `json:"delay_ms"`
}

var outcomes = map[string]ackwell.Outcome{
	"ack": ackwell.Acked, "nack": ackwell.Nacked, "release": ackwell.Released, "reject": ackwell.Rejected,
}

func (s settlement) settlement() ackwell.Settlement {
	settlement := ackwell.Settlement{Receipt: s.Receipt, Outcome: outcomes[s.Outcome], Reason: s.Reason}
	if s.DelayMs != nil {
		delay := milliseconds(*s.DelayMs)
		settlement.RetryAfter = &delay
	}
	return settlement
}

func settlementsOf(all []settlement) []ackwell.Settlement { return list(all, settlement.settlement) }

type cloudEvent struct {
	ID              string            `json:"id"`
	Source          string            `json:"source"`
	Type            string            `json:"type"`
	Data            []byte            `json:"data"`
	Subject         string            `json:"subject"`
	Time            time.Time         `json:"time"`
	DataContentType string            `json:"datacontenttype"`
	DataSchema      string            `json:"dataschema"`
	Extensions      map[string]string `json:"extensions"`
}

func (e cloudEvent) event() ackwell.CloudEvent {
	return ackwell.CloudEvent{
		ID: e.ID, Source: e.Source, Type: e.Type, Data: e.Data, Subject: e.Subject, Time: e.Time,
		DataContentType: e.DataContentType, DataSchema: e.DataSchema, Extensions: e.Extensions,
	}
}

func eventJSON(e ackwell.CloudEvent) object {
	event := object{"id": e.ID, "source": e.Source, "type": e.Type, "data": e.Data}
	put(event, "subject", e.Subject)
	put(event, "datacontenttype", e.DataContentType)
	put(event, "dataschema", e.DataSchema)
	if !e.Time.IsZero() {
		event["time"] = e.Time.Format(time.RFC3339Nano)
	}
	if len(e.Extensions) > 0 {
		event["extensions"] = e.Extensions
	}
	return event
}

func milliseconds(ms int64) time.Duration { return time.Duration(ms) * time.Millisecond }

func list[A, B any](all []A, each func(A) B) []B {
	results := make([]B, len(all))
	for i, one := range all {
		results[i] = each(one)
	}
	return results
}

// put leaves out what has no value.
func put[T comparable](to object, name string, value T) {
	var none T
	if value != none {
		to[name] = value
	}
}

func sentJSON(sent ackwell.Sent) object { return object{"id": sent.ID, "duplicate": sent.Duplicate} }

func sendResultsJSON(results []ackwell.SendResult) []object {
	return list(results, func(result ackwell.SendResult) object {
		if result.Err != nil {
			return object{"error": errorJSON(result.Err)}
		}
		return sentJSON(result.Sent)
	})
}

func settleResultJSON(result ackwell.SettleResult) object {
	if result.Err != nil {
		return object{"error": errorJSON(result.Err)}
	}
	settled := object{}
	if result.State != 0 {
		settled["state"] = stateName(result.State)
	}
	if !result.NextAttemptAt.IsZero() {
		settled["next_attempt_at_ms"] = result.NextAttemptAt.UnixMilli()
	}
	return settled
}

func extendResultJSON(result ackwell.ExtendResult) object {
	if result.Err != nil {
		return object{"error": errorJSON(result.Err)}
	}
	return object{"ack_deadline_at_ms": result.AckDeadline.UnixMilli()}
}

func stateName(state ackwell.State) string { return strings.TrimPrefix(state.String(), "STATE_") }

func deliveryJSON(d *ackwell.Delivery) object {
	return object{
		"receipt": d.Receipt, "message": deliveredJSON(d), "ack_deadline_at_ms": d.AckDeadline.UnixMilli(), "fencing_token": d.FencingToken,
	}
}

func deliveredJSON(d *ackwell.Delivery) object {
	message := messageJSON(d.Message)
	message["id"], message["stored_at_ms"] = d.ID, d.StoredAt.UnixMilli()
	message["attempts"], message["deliveries"] = d.Attempts, d.Deliveries
	message["history"] = list(d.History, func(a ackwell.Attempt) object {
		return object{"outcome": a.Outcome, "reason": a.Reason, "consumer": a.Consumer}
	})
	return message
}

func messageJSON(m ackwell.Message) object {
	message := object{"body": append([]byte{}, m.Body...), "headers": m.Headers}
	if m.Headers == nil {
		message["headers"] = object{}
	}
	put(message, "content_type", m.ContentType)
	put(message, "ordering_key", m.OrderingKey)
	put(message, "fairness_key", m.FairnessKey)
	put(message, "dedup_id", m.DedupID)
	put(message, "delay_ms", m.Delay.Milliseconds())
	put(message, "ttl_ms", m.TTL.Milliseconds())
	put(message, "max_attempts", m.MaxAttempts)
	if m.Priority != nil {
		message["priority"] = *m.Priority
	}
	if !m.DeliverAt.IsZero() {
		message["deliver_at_ms"] = m.DeliverAt.UnixMilli()
	}
	return message
}

// storedJSON is a message as the generated bindings have it.
func storedJSON(m *ackwellv1.Message) object {
	message := object{
		"body": append([]byte{}, m.GetBody()...), "id": m.GetId(), "stored_at_ms": m.GetStoredAt().AsTime().UnixMilli(),
		"state": stateName(m.GetState()), "attempts": m.GetAttempts(), "deliveries": m.GetDeliveries(),
	}
	if len(m.GetHeaders()) > 0 {
		message["headers"] = m.GetHeaders()
	}
	put(message, "content_type", m.GetContentType())
	put(message, "ordering_key", m.GetOrderingKey())
	put(message, "fairness_key", m.GetFairnessKey())
	put(message, "dedup_id", m.GetDedupId())
	put(message, "dead_reason", m.GetDeadReason())
	if at := m.GetNextAttemptAt(); at != nil {
		message["next_attempt_at_ms"] = at.AsTime().UnixMilli()
	}
	message["history"] = list(m.GetHistory(), func(a *ackwellv1.Attempt) object {
		return object{"outcome": a.GetOutcome(), "reason": a.GetReason(), "consumer": a.GetConsumer()}
	})
	return message
}

var wordStart = regexp.MustCompile("([a-z])([A-Z])")

func codeName(code codes.Code) string {
	if code == codes.Canceled {
		return "CANCELLED"
	}
	return strings.ToUpper(wordStart.ReplaceAllString(code.String(), "${1}_$2"))
}

func errorJSON(err error) object {
	failure := &ackwell.Error{}
	isOurs := errors.As(err, &failure)
	answer := object{"message": err.Error()}
	switch {
	case errors.Is(err, context.Canceled):
		answer["code"] = "CANCELLED"
	case isOurs:
		answer["code"] = codeName(failure.Code)
	case errors.Is(err, context.DeadlineExceeded):
		answer["code"] = "DEADLINE_EXCEEDED"
	default:
		answer["code"] = "CLIENT"
	}
	put(answer, "reason", string(failure.Reason))
	put(answer, "retry_after_ms", failure.RetryAfter.Milliseconds())
	return answer
}
