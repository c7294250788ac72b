package ackwell

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ackwellv1 "ackwell.dev/ackwell/v1"
)

// domain is that of every refusal by Ackwell.
const domain = "ackwell.dev"

// Reason is the stable word for why something was refused. It is itself an error, for errors.Is:
//
//	errors.Is(err, ackwell.QueueFull)
//
// docs/reference/errors.md says for each what to do. New versions may add some.
type Reason string

// The reasons.
const (
	InvalidArgument    Reason = "INVALID_ARGUMENT"
	MessageTooLarge    Reason = "MESSAGE_TOO_LARGE"
	BatchTooLarge      Reason = "BATCH_TOO_LARGE"
	InvalidReceipt     Reason = "INVALID_RECEIPT"
	BatchRefused       Reason = "BATCH_REFUSED"
	CrossShard         Reason = "CROSS_SHARD"
	Unauthenticated    Reason = "UNAUTHENTICATED"
	PermissionDenied   Reason = "PERMISSION_DENIED"
	QueueNotFound      Reason = "QUEUE_NOT_FOUND"
	MessageNotFound    Reason = "MESSAGE_NOT_FOUND"
	MessageInFlight    Reason = "MESSAGE_IN_FLIGHT"
	ReceiptExpired     Reason = "RECEIPT_EXPIRED"
	SettledOtherwise   Reason = "SETTLED_OTHERWISE"
	AlreadySettled     Reason = "ALREADY_SETTLED"
	QueueFull          Reason = "QUEUE_FULL"
	Busy               Reason = "BUSY"
	DiskFull           Reason = "DISK_FULL"
	StorageUnavailable Reason = "STORAGE_UNAVAILABLE"
	TokenExpired       Reason = "TOKEN_EXPIRED"
	ShardMoved         Reason = "SHARD_MOVED"
	ShuttingDown       Reason = "SHUTTING_DOWN"
	BrokerUnavailable  Reason = "BROKER_UNAVAILABLE"
	Corrupt            Reason = "CORRUPT"
)

func (r Reason) Error() string { return string(r) }

// Error says why a call, or one item of it, failed.
type Error struct {
	// Reason is empty when the failure is not a refusal by Ackwell: no connection, no answer in time.
	Reason Reason
	// Code is that of gRPC.
	Code codes.Code
	// Message is for people: what was wrong and what to do.
	Message string
	// RetryAfter is above 0 where trying again later can help.
	RetryAfter time.Duration

	cause error
}

func (e *Error) Error() string {
	switch {
	case e.Reason != "":
		return fmt.Sprintf("ackwell: %s [%s]", e.Message, e.Reason)
	case e.Code != codes.OK:
		return fmt.Sprintf("ackwell: %s [%s]", e.Message, e.Code)
	default:
		return "ackwell: " + e.Message
	}
}

// Is tells errors.Is about the reason.
func (e *Error) Is(target error) bool {
	reason, ok := target.(Reason)
	return ok && reason == e.Reason
}

// Unwrap gives context.Canceled or context.DeadlineExceeded where the caller's context ended the call.
func (e *Error) Unwrap() error { return e.cause }

// GRPCStatus keeps status.Code working.
func (e *Error) GRPCStatus() *status.Status { return status.New(e.Code, e.Message) }

// isTemporary says whether the same call can succeed a little later, without anybody doing anything.
func (e *Error) isTemporary() bool {
	switch e.Reason {
	case Busy, StorageUnavailable, ShardMoved, ShuttingDown, BrokerUnavailable:
		return true
	default:
		// Canceled, where the caller's context goes on, is a connection that broke.
		return e.Code == codes.Unavailable || e.Reason == "" && e.Code == codes.Canceled
	}
}

// isPermanent says whether opening the same stream again is of no use.
func (e *Error) isPermanent() bool {
	switch e.Code {
	case codes.InvalidArgument, codes.NotFound, codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented, codes.DataLoss:
		return true
	default:
		return false
	}
}

// ErrInvalid is what errors wrap that the client finds itself, before anything is sent.
var ErrInvalid = errors.New("ackwell: invalid argument")

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrInvalid, fmt.Errorf(format, args...))
}

// callError reads what gRPC answered; nil for no error.
func callError(err error) *Error {
	if err == nil {
		return nil
	}
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	answer := status.Convert(err)
	failure := &Error{Code: answer.Code(), Message: answer.Message()}
	for _, detail := range answer.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.GetDomain() == domain {
				failure.Reason = Reason(detail.GetReason())
			}
		case *errdetails.RetryInfo:
			failure.RetryAfter = detail.GetRetryDelay().AsDuration()
		}
	}
	return failure
}

// itemError reads the error of one item of a batch; nil for none.
func itemError(item *ackwellv1.ItemError) error {
	if item == nil {
		return nil
	}
	return &Error{
		Reason:     Reason(item.GetReason()),
		Code:       code(Reason(item.GetReason())),
		Message:    item.GetMessage(),
		RetryAfter: item.GetRetryAfter().AsDuration(),
	}
}

// code is that of a call that fails for the reason.
func code(reason Reason) codes.Code {
	switch reason {
	case InvalidArgument, MessageTooLarge, BatchTooLarge, InvalidReceipt:
		return codes.InvalidArgument
	case BatchRefused, CrossShard, MessageInFlight, ReceiptExpired, SettledOtherwise, AlreadySettled:
		return codes.FailedPrecondition
	case Unauthenticated:
		return codes.Unauthenticated
	case PermissionDenied:
		return codes.PermissionDenied
	case QueueNotFound, MessageNotFound:
		return codes.NotFound
	case QueueFull, Busy, DiskFull:
		return codes.ResourceExhausted
	case StorageUnavailable, TokenExpired, ShardMoved, ShuttingDown, BrokerUnavailable:
		return codes.Unavailable
	case Corrupt:
		return codes.DataLoss
	default:
		return codes.Unknown
	}
}

// ended is the error of a call whose context ended: with the last failure, if there was one.
func ended(ctx context.Context, last *Error) *Error {
	if last == nil {
		last = callError(status.FromContextError(ctx.Err()).Err())
	}
	failure := *last
	failure.cause = ctx.Err()
	return &failure
}

func mismatch(expected, got int) error {
	return &Error{
		Code:    codes.Internal,
		Message: fmt.Sprintf("the answer has %d results for %d items: client and broker do not match", got, expected),
	}
}
