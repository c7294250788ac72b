package ackwell

import (
	"google.golang.org/protobuf/proto"

	ackwellv1 "ackwell.dev/ackwell/v1"
)

const (
	// maxBatchMessages are the most messages of one call.
	maxBatchMessages = 1000
	// maxBatchBytes is below the 4 MiB that gRPC servers accept by default. A single larger message goes alone.
	maxBatchBytes = 3 << 20
)

// fits says whether a batch of count messages, with that many bytes, takes one of size more.
func fits(count, bytes, size int) bool {
	return count == 0 || count < maxBatchMessages && bytes+size <= maxBatchBytes
}

// batches cuts messages into those that fit one call each.
func batches(messages []*ackwellv1.Message) [][]*ackwellv1.Message {
	var all [][]*ackwellv1.Message
	start, bytes := 0, 0
	for i, message := range messages {
		size := proto.Size(message)
		if !fits(i-start, bytes, size) {
			all = append(all, messages[start:i])
			start, bytes = i, 0
		}
		bytes += size
	}
	if start < len(messages) {
		all = append(all, messages[start:])
	}
	return all
}
