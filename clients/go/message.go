package ackwell

import (
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	ackwellv1 "ackwell.dev/ackwell/v1"
)

// Message is what is sent. Only the body is usual; zero values mean "not set".
type Message struct {
	// Body has at most the queue's maxMessageBytes (1 MiB by default) and may be empty.
	Body []byte
	// Headers are at most 64, with 32 KiB in all; keys and values are UTF-8.
	Headers map[string]string
	// ContentType is that of the body.
	ContentType string
	// OrderingKey: messages with the same one come in the order in which they were stored, one at a time.
	OrderingKey string
	// FairnessKey is the tenant: keys take turns.
	FairnessKey string
	// Priority is 0 to 9, the highest first; nil means 4.
	Priority *uint32
	// DedupID: within the queue's dedup window a second message with the same one stores nothing.
	DedupID string
	// DeliverAt is when consumers get it; not together with Delay.
	DeliverAt time.Time
	// Delay is how long consumers have to wait for it.
	Delay time.Duration
	// TTL is when it expires, from being stored.
	TTL time.Duration
	// MaxAttempts can only lower the queue's own.
	MaxAttempts uint32
}

// Sent is a message that is on disk.
type Sent struct {
	// ID is that of the message, or of the first one with its DedupID.
	ID string
	// Duplicate: the DedupID was known, nothing new was stored.
	Duplicate bool
}

// Attempt is one failed attempt to process a message.
type Attempt struct {
	Started, Ended time.Time
	// Outcome is nack, ack-timeout, consumer-lost or reject.
	Outcome string
	// Reason is what the application said.
	Reason string
	// Consumer is the name the consumer gave itself.
	Consumer string
}

// wire is the message as it is sent. What could not be encoded is refused here.
func (m *Message) wire() (*ackwellv1.Message, error) {
	if !m.DeliverAt.IsZero() && m.Delay != 0 {
		return nil, invalid("a message has DeliverAt or Delay, not both")
	}
	for key, value := range m.Headers {
		if !utf8.ValidString(key) || !utf8.ValidString(value) {
			return nil, invalid("header %q is not UTF-8: encode what is binary, or put it into the body", key)
		}
	}
	for _, text := range []string{m.ContentType, m.OrderingKey, m.FairnessKey, m.DedupID} {
		if !utf8.ValidString(text) {
			return nil, invalid("%q is not UTF-8", text)
		}
	}
	message := &ackwellv1.Message{
		Body:        m.Body,
		Headers:     m.Headers,
		ContentType: m.ContentType,
		OrderingKey: m.OrderingKey,
		FairnessKey: m.FairnessKey,
		Priority:    m.Priority,
		DedupId:     m.DedupID,
		Ttl:         duration(m.TTL),
	}
	if m.MaxAttempts != 0 {
		message.MaxAttempts = &m.MaxAttempts
	}
	switch {
	case !m.DeliverAt.IsZero():
		message.Available = &ackwellv1.Message_DeliverAt{DeliverAt: timestamppb.New(m.DeliverAt)}
	case m.Delay != 0:
		message.Available = &ackwellv1.Message_Delay{Delay: durationpb.New(m.Delay)}
	}
	return message, nil
}

// messageOf reads what the sender of a message set.
func messageOf(message *ackwellv1.Message) Message {
	m := Message{
		Body:        message.GetBody(),
		Headers:     message.GetHeaders(),
		ContentType: message.GetContentType(),
		OrderingKey: message.GetOrderingKey(),
		FairnessKey: message.GetFairnessKey(),
		Priority:    message.Priority,
		DedupID:     message.GetDedupId(),
		TTL:         message.GetTtl().AsDuration(),
		MaxAttempts: message.GetMaxAttempts(),
		Delay:       message.GetDelay().AsDuration(),
	}
	if at := message.GetDeliverAt(); at != nil {
		m.DeliverAt = at.AsTime()
	}
	return m
}

func historyOf(attempts []*ackwellv1.Attempt) []Attempt {
	history := make([]Attempt, len(attempts))
	for i, attempt := range attempts {
		history[i] = Attempt{
			Started:  attempt.GetStarted().AsTime(),
			Ended:    attempt.GetEnded().AsTime(),
			Outcome:  attempt.GetOutcome(),
			Reason:   attempt.GetReason(),
			Consumer: attempt.GetConsumer(),
		}
	}
	return history
}

// duration leaves out what is 0.
func duration(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}
