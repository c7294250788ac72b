package ackwell

import (
	"errors"
	"os"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	ackwellv1 "ackwell.dev/ackwell/v1"
)

// The committed bindings are made from the API as it is; ./generate makes them again.
func TestBindingsAreThoseOfTheAPI(t *testing.T) {
	text, err := os.ReadFile("../../crates/proto/src/gen/descriptors.bin")
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("outside of the repository")
	}
	var files descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(text, &files); err != nil {
		t.Fatal(err)
	}
	current := map[string]*descriptorpb.FileDescriptorProto{}
	for _, file := range files.GetFile() {
		file.SourceCodeInfo = nil
		current[file.GetName()] = file
	}
	for _, bindings := range []protoreflect.FileDescriptor{
		ackwellv1.File_ackwell_v1_message_proto, ackwellv1.File_ackwell_v1_queues_proto, ackwellv1.File_ackwell_v1_admin_proto,
	} {
		if !proto.Equal(protodesc.ToFileDescriptorProto(bindings), current[bindings.Path()]) {
			t.Errorf("the bindings of %s are out of date: run ./generate", bindings.Path())
		}
	}
}
