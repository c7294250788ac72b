package ackwell

import (
	"maps"
	"strings"
	"time"
)

// cePrefix begins the headers of CloudEvents attributes.
const cePrefix = "ce-"

// CloudEvent is an event of CloudEvents 1.0. As a message it is in binary mode: the data is the body, its type the content
// type, and each other attribute a header "ce-NAME".
type CloudEvent struct {
	ID     string
	Source string
	Type   string
	// SpecVersion is "1.0" when empty.
	SpecVersion     string
	Subject         string
	Time            time.Time
	DataContentType string
	DataSchema      string
	// Extensions are other attributes: names of lower-case letters and digits.
	Extensions map[string]string
	Data       []byte
}

// Message is the event as a message; add what the queue needs, such as an OrderingKey.
func (e CloudEvent) Message() (Message, error) {
	if e.ID == "" || e.Source == "" || e.Type == "" {
		return Message{}, invalid("a CloudEvent needs an id, a source and a type")
	}
	headers := map[string]string{}
	for name, value := range e.Extensions {
		if !isAttribute(name) {
			return Message{}, invalid("CloudEvents extension %q is not lower-case letters and digits", name)
		}
		headers[cePrefix+name] = value
	}
	attributes := map[string]string{
		"id": e.ID, "source": e.Source, "type": e.Type, "specversion": "1.0", "subject": e.Subject, "dataschema": e.DataSchema,
	}
	if e.SpecVersion != "" {
		attributes["specversion"] = e.SpecVersion
	}
	if !e.Time.IsZero() {
		attributes["time"] = e.Time.Format(time.RFC3339Nano)
	}
	for name, value := range attributes {
		if value != "" {
			headers[cePrefix+name] = value
		}
	}
	return Message{Body: e.Data, ContentType: e.DataContentType, Headers: headers}, nil
}

func isAttribute(name string) bool {
	return name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789") == ""
}

// CloudEvent reads the message as an event in binary mode.
func (m Message) CloudEvent() (CloudEvent, error) {
	attributes := map[string]string{}
	for name, value := range m.Headers {
		if rest, ok := strings.CutPrefix(name, cePrefix); ok {
			attributes[rest] = value
		}
	}
	event := CloudEvent{
		ID:              attributes["id"],
		Source:          attributes["source"],
		Type:            attributes["type"],
		SpecVersion:     attributes["specversion"],
		Subject:         attributes["subject"],
		DataSchema:      attributes["dataschema"],
		DataContentType: m.ContentType,
		Data:            m.Body,
	}
	if event.ID == "" || event.Source == "" || event.Type == "" || event.SpecVersion == "" {
		return CloudEvent{}, invalid("the message is no CloudEvent: it lacks ce-id, ce-source, ce-type or ce-specversion")
	}
	if text, ok := attributes["time"]; ok {
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			return CloudEvent{}, invalid("the header ce-time is no RFC 3339 time: %v", err)
		}
		event.Time = at
	}
	for _, name := range []string{"id", "source", "type", "specversion", "subject", "dataschema", "time"} {
		delete(attributes, name)
	}
	if len(attributes) > 0 {
		event.Extensions = maps.Clone(attributes)
	}
	return event, nil
}
