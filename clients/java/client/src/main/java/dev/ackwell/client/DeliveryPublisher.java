package dev.ackwell.client;

import java.util.concurrent.Flow;

/** Deliveries of a queue for subscribers of {@code java.util.concurrent.Flow}, each with a stream of its own. */
final class DeliveryPublisher implements Flow.Publisher<Delivery> {
    private final AckwellClient client;
    private final String queue;
    private final ConsumerOptions options;

    DeliveryPublisher(AckwellClient client, String queue, ConsumerOptions options) {
        this.client = client;
        this.queue = queue;
        this.options = options;
    }

    @Override
    public void subscribe(Flow.Subscriber<? super Delivery> subscriber) {
        Subscription subscription = new Subscription(subscriber, new Mailbox(client.connection().executor(), () -> { }));
        subscription.consumer = new Consumer(client, queue, subscription, options);
        subscription.calls.execute(() -> subscriber.onSubscribe(subscription));
        subscription.consumer.start();
    }

    /** Hands out as many as are requested. */
    private final class Subscription implements Flow.Subscription, Taker {
        private final Flow.Subscriber<? super Delivery> subscriber;
        /** Of the subscriber, one after the other. */
        private final Mailbox calls;
        private Consumer consumer;
        /** For tasks of the consumer's mailbox. */
        private long demand;
        private boolean isCancelled;

        Subscription(Flow.Subscriber<? super Delivery> subscriber, Mailbox calls) {
            this.subscriber = subscriber;
            this.calls = calls;
        }

        @Override
        public void request(long count) {
            if (count <= 0) {
                calls.execute(() -> subscriber.onError(new IllegalArgumentException("request of " + count)));
                cancel();
                return;
            }
            consumer.post(() -> demand = demand + count < 0 ? Long.MAX_VALUE : demand + count);
        }

        @Override
        public void cancel() {
            consumer.post(() -> isCancelled = true);
            consumer.stopWithin(options.grace());
        }

        @Override
        public boolean hasRoom(int running) {
            return demand > 0;
        }

        @Override
        public Job.Taken take(Job job) {
            demand--;
            job.delivery.whenSettled(() -> job.end(null));
            calls.execute(() -> subscriber.onNext(job.delivery));
            return why -> job.end(Settlement.release(job.delivery.receipt()));
        }

        @Override
        public void close(AckwellException failure) {
            if (isCancelled) {
                return;
            }
            calls.execute(() -> {
                if (failure == null) {
                    subscriber.onComplete();
                } else {
                    subscriber.onError(failure);
                }
            });
        }
    }
}
