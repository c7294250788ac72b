package main

import (
	"context"
	"errors"
	"sync"

	"ackwell.dev/ackwell"
)

// producer hands messages to the library one after the other.
type producer struct {
	library *ackwell.Producer
	queue   chan *command
	once    sync.Once
}

func (p *producer) end() { p.once.Do(func() { close(p.queue) }) }

func (d *driver) openProducer(c *command) {
	var options []ackwell.ProduceOption
	if c.MaxOutstanding > 0 {
		options = append(options, ackwell.MaxOutstanding(c.MaxOutstanding, 64<<20))
	}
	p := &producer{queue: make(chan *command, 100_000)}
	d.withLock(func() {
		p.library = d.client.NewProducer(c.Queue, options...)
		d.producers[c.Producer] = p
	})
	go d.runProducer(p)
	d.answer(c, object{}, nil)
}

func (d *driver) producer(name string) (p *producer) {
	d.withLock(func() { p = d.producers[name] })
	return p
}

func (d *driver) runProducer(p *producer) {
	for c := range p.queue {
		confirmation, err := p.library.Send(context.Background(), c.Message.message())
		if err != nil {
			d.answer(c, nil, err)
			continue
		}
		d.say(object{"event": "accepted", "call": c.ID})
		go func() {
			sent, err := confirmation.Wait(context.Background())
			d.answer(c, sentJSON(sent), err)
		}()
	}
}

func (d *driver) consume(c *command) {
	handler := func(ctx context.Context, delivery *ackwell.Delivery) error {
		return d.handle(ctx, c.Consumer, delivery)
	}
	options := []ackwell.ConsumeOption{ackwell.ConsumerName(c.Consumer)}
	if c.Prefetch > 0 {
		options = append(options, ackwell.Prefetch(c.Prefetch))
	}
	if c.Concurrency > 0 {
		options = append(options, ackwell.Concurrency(c.Concurrency))
	}
	var consumer *ackwell.Consumer
	d.withLock(func() {
		consumer = d.client.NewConsumer(c.Queue, handler, options...)
		d.consumers[c.Consumer] = consumer
	})
	go func() {
		ended := object{"event": "consumer_ended", "consumer": c.Consumer}
		if err := consumer.Run(context.Background()); err != nil {
			ended["error"] = errorJSON(err)
		}
		d.say(ended)
	}()
	d.answer(c, object{}, nil)
}

func (d *driver) stopConsumer(c *command) {
	var consumer *ackwell.Consumer
	d.withLock(func() { consumer = d.consumers[c.Consumer] })
	ctx, cancel := context.WithCancel(context.Background())
	if c.GraceMs != nil {
		ctx, cancel = context.WithTimeout(ctx, milliseconds(*c.GraceMs))
	}
	defer cancel()
	_ = consumer.Shutdown(ctx)
	d.answer(c, object{}, nil)
}

// handle tells the runner, and does what it says.
func (d *driver) handle(ctx context.Context, consumer string, delivery *ackwell.Delivery) error {
	name, finish := d.name(), make(chan *command, 1)
	d.withLock(func() { d.handled[name] = finish })
	event := object{"event": "handle", "consumer": consumer, "delivery": name, "message": deliveredJSON(delivery)}
	if trace, ok := ackwell.TraceOf(ctx); ok {
		event["traceparent"] = trace.Parent
	}
	d.say(event)
	select {
	case c := <-finish:
		return outcome(c)
	case <-ctx.Done():
		d.say(object{"event": "cancelled", "delivery": name})
		return ctx.Err()
	}
}

func (d *driver) finish(c *command) {
	d.withLock(func() {
		if finish := d.handled[c.Delivery]; finish != nil {
			finish <- c
			delete(d.handled, c.Delivery)
		}
	})
	d.answer(c, object{}, nil)
}

func outcome(c *command) error {
	switch c.Outcome {
	case "raise":
		return errors.New(c.Reason)
	case "retry":
		return ackwell.Retry(milliseconds(*c.DelayMs), errors.New(c.Reason))
	case "reject":
		return ackwell.Reject(c.Reason)
	case "release":
		return ackwell.ErrRelease
	default:
		return nil
	}
}
