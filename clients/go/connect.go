package ackwell

import (
	"cmp"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// DefaultAddress is where a sidecar, or `ackwell dev`, listens.
const DefaultAddress = "127.0.0.1:7400"

const (
	ready = connectivity.Ready
	// maxAnswerBytes are 16 MiB of bodies, and as much again for each of headers and histories.
	maxAnswerBytes = 64 << 20
	// connectTimeout is enough for a handshake over any network; a host that drops packets must not hold callers for long.
	connectTimeout = 5 * time.Second
	// A peer that vanished without a word is noticed within the sum.
	keepaliveInterval, keepaliveTimeout = 10 * time.Second, 5 * time.Second
)

// reconnect comes back within the 5 s in which a broken stream may be resumed; gRPC's own waits grow to two minutes.
var reconnect = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: shortestPause, Multiplier: 2, Jitter: 0.2, MaxDelay: longestPause},
	MinConnectTimeout: connectTimeout,
}

func connect(settings settings) (*grpc.ClientConn, error) {
	target, err := target(cmp.Or(settings.address, DefaultAddress))
	if err != nil {
		return nil, err
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(reconnect),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveInterval, Timeout: keepaliveTimeout}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswerBytes)),
		grpc.WithNoProxy(),
	}
	return grpc.NewClient(target, append(options, settings.dial...)...)
}

// target reads "host:port", with or without "http://", or "unix:PATH".
func target(address string) (string, error) {
	if strings.HasPrefix(address, "unix:") {
		return address, nil
	}
	authority := strings.TrimSuffix(strings.TrimPrefix(address, "http://"), "/")
	host, port, err := net.SplitHostPort(authority)
	number, numberErr := strconv.ParseUint(port, 10, 16)
	if err != nil || numberErr != nil || number == 0 || host == "" || strings.ContainsAny(host, "/ ") {
		return "", fmt.Errorf("ackwell: address %q is not valid: use host:port, like %s", address, DefaultAddress)
	}
	return "dns:///" + authority, nil
}
