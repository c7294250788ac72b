package ackwell

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"maps"
	"regexp"
	"strings"
)

const (
	// SealedKeyHeader says that a body is sealed, and with the key of which id.
	SealedKeyHeader = "sealed-key"
	// SealedQueueHeader says for which queue it was sealed: for those to which messages of other queues are moved.
	SealedQueueHeader = "sealed-queue"
)

const (
	sealedVersion = 1
	sealingKeyLen = 32
	nonceLen      = 12
	tagLen        = 16
)

var keyID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// Keyring seals bodies end to end: brokers, sidecars and volumes only ever have AES-256-GCM ciphertext. It seals with its
// current key, and opens with every key that it has. docs/reference/sealing.md has the format, the same in every language.
type Keyring struct {
	current       string
	keys          map[string]cipher.AEAD
	allowUnsealed bool
}

// NewKeyring makes a keyring of keys of 32 bytes, by their ids: 1 to 64 of "A-Z a-z 0-9 . _ -".
func NewKeyring(current string, keys map[string][]byte) (*Keyring, error) {
	ring := &Keyring{current: current, keys: map[string]cipher.AEAD{}}
	for id, key := range keys {
		if !keyID.MatchString(id) {
			return nil, invalid("%q is no id of a key: 1 to 64 letters, digits, '.', '_' and '-'", id)
		}
		if len(key) != sealingKeyLen {
			return nil, invalid("key %q has %d bytes: it needs %d, as `openssl rand -base64 32` makes them", id, len(key), sealingKeyLen)
		}
		sealing, err := newGCM(key)
		if err != nil {
			return nil, err
		}
		ring.keys[id] = sealing
	}
	if ring.keys[current] == nil {
		return nil, invalid("the keyring does not have its current key %q", current)
	}
	return ring, nil
}

// ParseSealingKey reads a key of 32 bytes that is written as base64.
func ParseSealingKey(text string) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil {
		return nil, invalid("the key is no base64")
	}
	if len(key) != sealingKeyLen {
		return nil, invalid("the key has %d bytes: it needs %d, as `openssl rand -base64 32` makes them", len(key), sealingKeyLen)
	}
	return key, nil
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// AllowUnsealed is the same keyring, which opens messages that are not sealed as they are: only while senders change over to
// sealing.
func (k *Keyring) AllowUnsealed() *Keyring {
	return &Keyring{current: k.current, keys: k.keys, allowUnsealed: true}
}

// Seal is the message with its body sealed, to be sent to this queue.
func (k *Keyring) Seal(queue string, message Message) (Message, error) {
	var nonce [nonceLen]byte
	rand.Read(nonce[:]) // Never fails: the program ends where the system has no randomness.
	return k.seal(queue, message, nonce)
}

func (k *Keyring) seal(queue string, message Message, nonce [nonceLen]byte) (Message, error) {
	if _, ok := message.Headers[SealedKeyHeader]; ok {
		return Message{}, invalid("the message has a header %s: it is sealed already", SealedKeyHeader)
	}
	sealed := append([]byte{sealedVersion}, nonce[:]...)
	message.Body = k.keys[k.current].Seal(sealed, nonce[:], message.Body, sealedWith(k.current, queue, message.ContentType))
	headers := map[string]string{}
	maps.Copy(headers, message.Headers)
	headers[SealedKeyHeader], headers[SealedQueueHeader] = k.current, queueName(queue)
	message.Headers = headers
	return message, nil
}

// Open is the message that was sealed for this queue; otherwise the error is an [*OpenError].
func (k *Keyring) Open(queue string, message Message) (Message, error) {
	id, ok := message.Headers[SealedKeyHeader]
	switch {
	case !ok && k.allowUnsealed:
		return message, nil
	case !ok:
		return Message{}, &OpenError{Failure: NotSealed}
	case !keyID.MatchString(id):
		return Message{}, &OpenError{Failure: UnknownKey}
	}
	body, failure := k.open(id, message.Body, sealedWith(id, queue, message.ContentType))
	if failure != "" {
		return Message{}, &OpenError{Failure: failure, KeyID: id}
	}
	message.Body, message.Headers = body, maps.Clone(message.Headers)
	delete(message.Headers, SealedKeyHeader)
	delete(message.Headers, SealedQueueHeader)
	return message, nil
}

func (k *Keyring) open(id string, sealed, with []byte) ([]byte, OpenFailure) {
	key := k.keys[id]
	switch {
	case key == nil:
		return nil, UnknownKey
	case len(sealed) > 0 && sealed[0] != sealedVersion:
		return nil, UnknownFormat
	case len(sealed) < 1+nonceLen+tagLen:
		return nil, Changed
	}
	body, err := key.Open(nil, sealed[1:1+nonceLen], sealed[1+nonceLen:], with)
	if err != nil {
		return nil, Changed
	}
	return body, ""
}

// queueName leaves the namespace out, which only those write who are in another one.
func queueName(queue string) string { return queue[strings.LastIndexByte(queue, '/')+1:] }

// sealedWith is what is authenticated besides the body.
func sealedWith(id, queue, contentType string) []byte {
	bound := []byte{sealedVersion}
	for _, text := range []string{id, queueName(queue), contentType} {
		bound = binary.BigEndian.AppendUint32(bound, uint32(len(text)))
		bound = append(bound, text...)
	}
	return bound
}

// OpenFailure is why a message was not opened.
type OpenFailure string

// The failures.
const (
	NotSealed     OpenFailure = "NOT_SEALED"
	UnknownKey    OpenFailure = "UNKNOWN_KEY"
	UnknownFormat OpenFailure = "UNKNOWN_FORMAT"
	// Changed: it is not what was sealed for this queue: changed, cut off, of another queue, or by another key of the same id.
	Changed OpenFailure = "CHANGED"
)

var openFailures = map[OpenFailure]string{
	NotSealed:     "the message is not sealed: it has no header " + SealedKeyHeader,
	UnknownKey:    "the keyring does not have the key that the message was sealed with",
	UnknownFormat: "the message was sealed in a format that this version does not know",
	Changed:       "the message is not what was sealed for this queue with this key",
}

// OpenError says why a message was not opened, and which key it names: nothing of what it contains.
type OpenError struct {
	Failure OpenFailure
	// KeyID is empty where the message names none that could be one.
	KeyID string
}

func (e *OpenError) Error() string {
	if e.KeyID == "" {
		return fmt.Sprintf("ackwell: %s [%s]", openFailures[e.Failure], e.Failure)
	}
	return fmt.Sprintf("ackwell: %s [%s, key %q]", openFailures[e.Failure], e.Failure, e.KeyID)
}
