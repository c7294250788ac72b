package ackwell

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"strings"
	"testing"
)

// vectors are those that every language seals and opens.
type vectors struct {
	Keys   map[string]string
	Sealed []struct {
		Name, Queue         string
		KeyID               string `json:"key_id"`
		ContentType         string `json:"content_type"`
		Headers             map[string]string
		Nonce, Body, Sealed []byte
	}
	Refused []struct {
		Name, Queue string
		ContentType string `json:"content_type"`
		Headers     map[string]string
		Body        []byte
		Failure     OpenFailure
		KeyID       string `json:"key_id"`
	}
}

func readVectors(t *testing.T) vectors {
	t.Helper()
	text, err := os.ReadFile("../../tests/conformance/sealing/vectors.json")
	if err != nil {
		t.Skip("outside of the repository")
	}
	var known vectors
	if err := json.Unmarshal(text, &known); err != nil {
		t.Fatal(err)
	}
	return known
}

func (v *vectors) keyring(t *testing.T, current string) *Keyring {
	t.Helper()
	keys := map[string][]byte{}
	for id, text := range v.Keys {
		key, err := ParseSealingKey(text)
		if err != nil {
			t.Fatal(err)
		}
		keys[id] = key
	}
	ring, err := NewKeyring(current, keys)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// Every language seals to the same bytes, and opens what another one sealed.
func TestSealedBodiesAreThoseOfEveryLanguage(t *testing.T) {
	known := readVectors(t)
	for _, vector := range known.Sealed {
		ring := known.keyring(t, vector.KeyID)
		plain := Message{Body: vector.Body, ContentType: vector.ContentType, Headers: map[string]string{"a": "b"}}
		sealed, err := ring.seal(vector.Queue, plain, [nonceLen]byte(vector.Nonce))
		if err != nil || !bytes.Equal(sealed.Body, vector.Sealed) || !maps.Equal(sealed.Headers, vector.Headers) {
			t.Errorf("%s: %+v %v", vector.Name, sealed, err)
		}
		opened, err := known.keyring(t, "2026-q3").Open(vector.Queue, sealed)
		if err != nil || !bytes.Equal(opened.Body, vector.Body) || len(opened.Headers) != 1 || opened.Headers["a"] != "b" {
			t.Errorf("%s: %+v %v", vector.Name, opened, err)
		}
	}
	if len(known.Sealed) == 0 {
		t.Error("no vectors")
	}
}

// What was changed, or is for somebody else, is refused by a typed error that names the key and nothing else.
func TestWhatWasNotSealedSoIsRefused(t *testing.T) {
	known := readVectors(t)
	ring := known.keyring(t, "2026-q4")
	for _, vector := range known.Refused {
		opened, err := ring.Open(vector.Queue, Message{Body: vector.Body, ContentType: vector.ContentType, Headers: vector.Headers})
		var refused *OpenError
		if !errors.As(err, &refused) || refused.Failure != vector.Failure || refused.KeyID != vector.KeyID || opened.Body != nil {
			t.Errorf("%s: %+v %v", vector.Name, opened, err)
			continue
		}
		if text := err.Error(); strings.Contains(text, "two discs") || !strings.Contains(text, vector.KeyID) {
			t.Errorf("%s: %s", vector.Name, text)
		}
	}
	if len(known.Refused) == 0 {
		t.Error("no vectors")
	}
}

// Each seal has a nonce of its own, and costs 29 bytes; the message that was given stays as it was.
func TestNoNonceComesTwice(t *testing.T) {
	known := readVectors(t)
	ring := known.keyring(t, "2026-q4")
	plain := Message{Body: []byte("two discs"), OrderingKey: "k", Headers: map[string]string{"a": "b"}}
	seen := map[string]bool{}
	for range 100 {
		sealed, err := ring.Seal("orders", plain)
		if err != nil || len(sealed.Body) != len(plain.Body)+29 || sealed.OrderingKey != "k" {
			t.Fatalf("%+v %v", sealed, err)
		}
		seen[string(sealed.Body[1:13])] = true
	}
	if len(seen) != 100 || len(plain.Headers) != 1 || string(plain.Body) != "two discs" {
		t.Error(len(seen), plain)
	}
}

// A migration lets through what is not sealed, and nothing that claims to be.
func TestUnsealedMessagesAreOpenedWhereThatIsAllowed(t *testing.T) {
	known := readVectors(t)
	ring := known.keyring(t, "2026-q4").AllowUnsealed()
	opened, err := ring.Open("orders", Message{Body: []byte("plain")})
	if err != nil || string(opened.Body) != "plain" {
		t.Error(opened, err)
	}
	if _, err = ring.Open("orders", Message{Body: []byte("plain"), Headers: map[string]string{SealedKeyHeader: "2026-q4"}}); err == nil {
		t.Error("opened")
	}
}

// A key that cannot be meant is refused where it is given.
func TestBadKeysAreRefused(t *testing.T) {
	key := make([]byte, 32)
	for current, keys := range map[string]map[string][]byte{
		"none":     {},
		"other":    {"a": key},
		"short":    {"short": key[:31]},
		"long":     {"long": make([]byte, 33)},
		"":         {"": key},
		"a b":      {"a b": key},
		"new\n":    {"new\n": key},
		"größe":    {"größe": key},
		"too-long": {"too-long": key, strings.Repeat("x", 65): key},
	} {
		if _, err := NewKeyring(current, keys); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v", current, err)
		}
	}
	for _, text := range []string{"", "AAAA", "no base64!", strings.Repeat("A", 43)} {
		if _, err := ParseSealingKey(text); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v", text, err)
		}
	}
	ring, err := NewKeyring("a", map[string][]byte{"a": key})
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := ring.Seal("orders", Message{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ring.Seal("orders", sealed); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}
