package ackwell

import (
	"context"
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ackwellv1 "ackwell.dev/ackwell/v1"
)

// An address that cannot be meant is refused where it is given, not by calls that fail later.
func TestAddressNeedsHostAndPort(t *testing.T) {
	for _, good := range []string{"", "127.0.0.1:7400", "http://localhost:7400/", "[::1]:7400", "orders.shop.svc:7400", "unix:/run/a"} {
		if _, err := NewClient(WithAddress(good)); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"localhost", ":7400", "localhost:", "localhost:0", "localhost:70000", "https://a:1", "a b:1"} {
		if _, err := NewClient(WithAddress(bad)); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// Every documented reason has a constant, with the documented code.
func TestReasonsAreThoseOfTheReference(t *testing.T) {
	text, err := os.ReadFile("../../docs/reference/errors.md")
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("outside of the repository")
	}
	rows := regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\| `([A-Z_]+)` \\|").FindAllStringSubmatch(string(text), -1)
	if len(rows) < 19 {
		t.Fatalf("only %d reasons are found", len(rows))
	}
	for _, row := range rows {
		got := strings.ToUpper(regexp.MustCompile("([a-z])([A-Z])").ReplaceAllString(code(Reason(row[1])).String(), "${1}_$2"))
		if got != row[2] {
			t.Errorf("%s is %s, documented as %s", row[1], got, row[2])
		}
	}
}

// Ready tells whether somebody answers, and waits no longer than it may.
func TestReadyWaitsForAnAnswer(t *testing.T) {
	if err := clientOf(t, &fake{}).Ready(t.Context()); err != nil {
		t.Error(err)
	}
	nobody, err := NewClient(WithAddress("127.0.0.1:9"))
	if err != nil {
		t.Fatal(err)
	}
	defer nobody.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := nobody.Ready(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// A broker that restarts is a pause, and the repeated call is recognised by its request id.
func TestUnavailableBrokerIsWaitedFor(t *testing.T) {
	var ids []string
	client := clientOf(t, &fake{send: func(request *ackwellv1.SendRequest) (*ackwellv1.SendResponse, error) {
		ids = append(ids, request.GetRequestId())
		switch len(ids) {
		case 1:
			return nil, refusalStatus(BrokerUnavailable, time.Millisecond)
		case 2:
			return nil, errBroken
		default:
			return stored(request), nil
		}
	}})
	sent, err := client.Send(t.Context(), "orders", Message{Body: []byte("a")})
	if err != nil || sent.ID != "a" {
		t.Fatal(sent, err)
	}
	if len(ids) != 3 || ids[0] == "" || ids[0] != ids[1] || ids[1] != ids[2] {
		t.Errorf("request ids: %q", ids)
	}
}

// A refusal reaches the caller with its reason and its hint, and is not repeated.
func TestRefusalHasReasonAndHint(t *testing.T) {
	calls := 0
	client := clientOf(t, &fake{send: func(*ackwellv1.SendRequest) (*ackwellv1.SendResponse, error) {
		calls++
		return nil, refusalStatus(QueueFull, 1500*time.Millisecond)
	}})
	_, err := client.Send(t.Context(), "orders", Message{})
	var failure *Error
	if !errors.As(err, &failure) || !errors.Is(err, QueueFull) || errors.Is(err, Busy) {
		t.Fatal(err)
	}
	if failure.RetryAfter != 1500*time.Millisecond || status.Code(err) != codes.ResourceExhausted || calls != 1 {
		t.Errorf("%+v after %d calls", failure, calls)
	}
}

// Who waits no longer learns why there was no answer, not only that there was none.
func TestCancelledCallReportsTheLastReason(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	client := clientOf(t, &fake{send: func(*ackwellv1.SendRequest) (*ackwellv1.SendResponse, error) {
		if calls++; calls == 2 {
			cancel()
		}
		return nil, refusalStatus(BrokerUnavailable, 0)
	}})
	_, err := client.Send(ctx, "orders", Message{})
	if !errors.Is(err, context.Canceled) || !errors.Is(err, BrokerUnavailable) {
		t.Error(err)
	}
}

// The same, while it waits before the call is repeated.
func TestCancelledPauseReportsTheLastReason(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	client := clientOf(t, &fake{send: func(*ackwellv1.SendRequest) (*ackwellv1.SendResponse, error) {
		time.AfterFunc(100*time.Millisecond, cancel)
		return nil, refusalStatus(BrokerUnavailable, soon)
	}})
	_, err := client.Send(ctx, "orders", Message{})
	if !errors.Is(err, context.Canceled) || !errors.Is(err, BrokerUnavailable) {
		t.Error(err)
	}
}

// A hint to wait for longer than there is time is an answer at once.
func TestHintPastTheLimitEndsTheCall(t *testing.T) {
	client := clientOf(t, &fake{send: func(*ackwellv1.SendRequest) (*ackwellv1.SendResponse, error) {
		return nil, refusalStatus(BrokerUnavailable, 2*retryLimit)
	}})
	begun := time.Now()
	_, err := client.Send(t.Context(), "orders", Message{})
	if !errors.Is(err, BrokerUnavailable) || time.Since(begun) > soon {
		t.Error(err, time.Since(begun))
	}
}

// A client with a limit of its own does not wait longer, and says why.
func TestRetryLimitReportsTheLastReason(t *testing.T) {
	impatient := clientOf(t, &fake{send: func(*ackwellv1.SendRequest) (*ackwellv1.SendResponse, error) {
		return nil, refusalStatus(BrokerUnavailable, 0)
	}}, WithRetryLimit(time.Second))
	if err := impatient.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := impatient.Send(t.Context(), "orders", Message{}); !errors.Is(err, BrokerUnavailable) {
		t.Error(err)
	}
}

// Calls stay below the limits of brokers, and a refused message does not keep others from being stored.
func TestManyMessagesGoInBatches(t *testing.T) {
	var sizes []int
	client := clientOf(t, &fake{send: func(request *ackwellv1.SendRequest) (*ackwellv1.SendResponse, error) {
		sizes = append(sizes, len(request.GetMessages()))
		if len(request.GetMessages()) == 1 && len(request.GetMessages()[0].GetBody()) > 3<<20 {
			return nil, refusalStatus(MessageTooLarge, 0)
		}
		return stored(request), nil
	}})
	messages := make([]Message, 2502)
	messages[2500].Body = make([]byte, 4<<20-100)
	results, err := client.SendMany(t.Context(), "orders", messages)
	if err != nil || len(results) != len(messages) || !slices.Equal(sizes, []int{1000, 1000, 500, 1, 1}) {
		t.Fatal(sizes, err)
	}
	for i, result := range results {
		if refused := errors.Is(result.Err, MessageTooLarge); refused != (i == 2500) {
			t.Errorf("message %d: %v", i, result.Err)
		}
	}
}

// What cannot be put on the wire is refused before anything is sent.
func TestUnencodableMessageIsRefused(t *testing.T) {
	client := clientOf(t, &fake{})
	for name, message := range map[string]Message{
		"binary header": {Headers: map[string]string{"k": "\xff"}},
		"binary name":   {Headers: map[string]string{"\xff": "v"}},
		"binary key":    {OrderingKey: "\xff"},
		"two times":     {Delay: time.Second, DeliverAt: time.Now()},
	} {
		if _, err := client.Send(t.Context(), "orders", message); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What a sender sets is what a consumer sees.
func TestMessageSurvivesTheWire(t *testing.T) {
	priority := uint32(0)
	message := Message{
		Body: []byte{0, 255}, Headers: map[string]string{"ключ": "значение"}, ContentType: "a/b", OrderingKey: "o",
		FairnessKey: "f", Priority: &priority, DedupID: "d", Delay: time.Second, TTL: time.Minute, MaxAttempts: 3,
	}
	wire, err := message.wire()
	if err != nil {
		t.Fatal(err)
	}
	back := messageOf(wire)
	if *back.Priority != 0 {
		t.Error("priority 0 is lost")
	}
	again, _ := back.wire()
	if wire.String() != again.String() {
		t.Errorf("%v became %v", wire, again)
	}
}

// The trace of a handled message goes on in what is sent with its context, and a trace that is set stays.
func TestTraceIsPassedOn(t *testing.T) {
	parent := "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	ctx := passOn.incoming(t.Context(), map[string]string{"traceparent": parent, "tracestate": "a=b"})
	if got := passOn.outgoing(ctx, map[string]string{"k": "v"}); got["traceparent"] != parent || got["tracestate"] != "a=b" || got["k"] != "v" {
		t.Error(got)
	}
	if got := passOn.outgoing(ctx, map[string]string{"traceparent": "mine"}); got["traceparent"] != "mine" || got["tracestate"] != "" {
		t.Error(got)
	}
	if got := passOn.outgoing(t.Context(), nil); got != nil {
		t.Error(got)
	}
}

// An event survives being a message, and what is none is refused.
func TestCloudEventSurvivesBeingAMessage(t *testing.T) {
	event := CloudEvent{
		ID: "1", Source: "/shop", Type: "order.placed", Subject: "ключ", Time: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC),
		DataContentType: "application/json", DataSchema: "urn:x", Extensions: map[string]string{"tenant": "a"}, Data: []byte("{}"),
	}
	message, err := event.Message()
	if err != nil || message.Headers["ce-specversion"] != "1.0" || message.ContentType != "application/json" {
		t.Fatal(message, err)
	}
	back, err := message.CloudEvent()
	if err != nil || back.Extensions["tenant"] != "a" || back.Subject != "ключ" || !back.Time.Equal(event.Time) || back.SpecVersion != "1.0" {
		t.Errorf("%+v %v", back, err)
	}
	if _, err := (Message{}).CloudEvent(); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	if _, err := (CloudEvent{ID: "1", Source: "s", Type: "t", Extensions: map[string]string{"A-b": ""}}).Message(); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}
