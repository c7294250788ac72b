// Asks a broker what KEDA asks an external scaler, by the client that KEDA publishes, and prints each answer as a line of JSON:
// keda ADDRESS CA NAME=VALUE... - polls once, then prints what is pushed until its input ends. CA is a file with the authority of the
// broker, or - for a plain connection. The connection is made as KEDA makes it of the trigger's caCert.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"time"

	pb "github.com/kedacore/keda/v2/pkg/scalers/externalscaler"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

const (
	// For a machine that is busy.
	patience = 60 * time.Second
	// As KEDA has it.
	roundRobin = `{"loadBalancingConfig": [{"round_robin":{}}]}`
)

func main() {
	log.SetFlags(0)
	conn, err := grpc.NewClient(os.Args[1], grpc.WithDefaultServiceConfig(roundRobin),
		grpc.WithTransportCredentials(transport(os.Args[2])))
	if err != nil {
		log.Fatal(err)
	}
	ref := &pb.ScaledObjectRef{Name: "worker", Namespace: "shop", ScalerMetadata: metadata(os.Args[3:])}
	client := pb.NewExternalScalerClient(conn)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	poll(ctx, client, ref)
	push(client, ref)
}

// As KEDA's buildGRPCConnection and util.NewTLSConfig do it.
func transport(ca string) credentials.TransportCredentials {
	if ca == "-" {
		return insecure.NewCredentials()
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		log.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		log.Fatalf("%s has no certificate", ca)
	}
	return credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots})
}

func metadata(pairs []string) map[string]string {
	metadata := map[string]string{}
	for _, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		metadata[name] = value
	}
	return metadata
}

// In KEDA's order: what to scale by, how much of it there is, whether there should be anybody at all.
func poll(ctx context.Context, client pb.ExternalScalerClient, ref *pb.ScaledObjectRef) {
	spec, err := client.GetMetricSpec(ctx, ref)
	if err != nil {
		tell("refused", status.Code(err).String(), "message", status.Convert(err).Message())
		return
	}
	name := spec.MetricSpecs[0].MetricName
	values, err := client.GetMetrics(ctx, &pb.GetMetricsRequest{ScaledObjectRef: ref, MetricName: name})
	if err != nil {
		tell("refused", status.Code(err).String(), "message", status.Convert(err).Message())
		return
	}
	active, err := client.IsActive(ctx, ref)
	if err != nil {
		log.Fatal(err)
	}
	tell("metric", name, "target", spec.MetricSpecs[0].TargetSizeFloat, "value", values.MetricValues[0].MetricValueFloat,
		"active", active.Result)
	if _, err := stream(ctx, client, ref); status.Code(err) != codes.Unimplemented {
		log.Fatalf("StreamMetricSpec: %v", err)
	}
}

// KEDA asks for this too, and does without where it is Unimplemented.
func stream(ctx context.Context, client pb.ExternalScalerClient, ref *pb.ScaledObjectRef) (*pb.GetMetricSpecResponse, error) {
	specs, err := client.StreamMetricSpec(ctx, ref)
	if err != nil {
		return nil, err
	}
	return specs.Recv()
}

func push(client pb.ExternalScalerClient, ref *pb.ScaledObjectRef) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	stream, err := client.StreamIsActive(ctx, ref)
	if err != nil {
		log.Fatal(err)
	}
	for {
		pushed, err := stream.Recv()
		if err != nil {
			return
		}
		tell("pushed", pushed.Result)
	}
}

func tell(pairs ...any) {
	fields := map[string]any{}
	for i := 0; i < len(pairs); i += 2 {
		fields[fmt.Sprint(pairs[i])] = pairs[i+1]
	}
	line, err := json.Marshal(fields)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(line))
}
