//! What the messages of a batch say about the traces that they belong to.

use ackwell_proto::v1::Message;

use super::context::{Context, TRACEPARENT};

/// A batch may have a thousand messages, each of a trace of its own; what a span says about them is bounded.
pub(super) const MAX_LINKS: usize = 32;

/// Of one batch.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Batch {
    pub(super) count: usize,
    /// Of the only one.
    pub(super) id: Option<String>,
    pub(super) body_bytes: Option<usize>,
    /// That all of them share.
    pub(super) common: Option<Context>,
    /// Of those that are recorded, each once.
    pub(super) links: Vec<Context>,
    pub(super) dropped_links: u32,
    /// Whether those who wrote the contexts record any; `None`: no message has one.
    pub(super) decided: Option<bool>,
}

impl Batch {
    pub(super) fn of<'a>(messages: impl ExactSizeIterator<Item = &'a Message>) -> Self {
        let (mut batch, mut is_mixed) = (Self { count: messages.len(), ..Self::default() }, false);
        for (index, message) in messages.enumerate() {
            let context = context_of(message);
            is_mixed |= index > 0 && batch.common != context;
            batch.common = context;
            batch.add(context);
            if batch.count == 1 {
                batch.id = (!message.id.is_empty()).then(|| message.id.clone());
                batch.body_bytes = Some(message.body.len());
            }
        }
        batch.common = batch.common.filter(|_| !is_mixed);
        batch
    }

    /// Of messages that are known by their contexts only.
    pub(super) fn of_contexts(count: usize, contexts: &[(Context, String)]) -> Self {
        let mut batch = Self { count, ..Self::default() };
        let first = contexts.first().map(|(context, _)| *context);
        let is_common =
            contexts.len() == count && contexts.iter().all(|(context, _)| Some(*context) == first);
        batch.common = first.filter(|_| is_common);
        contexts.iter().for_each(|(context, _)| batch.add(Some(*context)));
        if let (1, [(_, id)]) = (count, contexts) {
            batch.id = Some(id.clone());
        }
        batch
    }

    /// What one call does with both.
    pub(super) fn join(&mut self, other: Self) {
        self.common = match (self.count, other.count) {
            (_, 0) => self.common,
            (0, _) => other.common,
            _ => self.common.filter(|common| other.common == Some(*common)),
        };
        self.count += other.count;
        (self.id, self.body_bytes) = (None, None);
        self.dropped_links += other.dropped_links;
        let decided = [self.decided, other.decided].into_iter().flatten().reduce(|one, other| one || other);
        other.links.into_iter().for_each(|context| self.add(Some(context)));
        self.decided = decided;
    }

    fn add(&mut self, context: Option<Context>) {
        let Some(context) = context else { return };
        self.decided = Some(context.is_sampled || self.decided == Some(true));
        if !context.is_sampled || self.links.contains(&context) {
            return;
        }
        if self.links.len() < MAX_LINKS {
            self.links.push(context);
        } else {
            self.dropped_links += 1;
        }
    }
}

/// The context that its sender gave a message.
pub(super) fn context_of(message: &Message) -> Option<Context> {
    message.headers.get(TRACEPARENT).and_then(|text| Context::parse(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(context: Option<Context>) -> Message {
        let headers = context.map(|context| (TRACEPARENT.to_owned(), context.to_string()));
        Message { headers: headers.into_iter().collect(), ..Message::default() }
    }

    fn batch(contexts: &[Option<Context>]) -> Batch {
        let messages: Vec<_> = contexts.iter().copied().map(message).collect();
        Batch::of(messages.iter())
    }

    fn context(is_sampled: bool) -> Context {
        Context { is_sampled, ..Context::root() }
    }

    /// A batch joins a trace only if all of it belongs there; otherwise it points to those that are recorded.
    #[test]
    fn batch_tells_what_its_messages_share() {
        let (one, other, silent) = (context(true), context(true), context(false));
        let same = batch(&[Some(one), Some(one)]);
        assert_eq!((same.common, same.links, same.decided), (Some(one), vec![one], Some(true)));
        let mixed = batch(&[Some(silent), Some(one), Some(other), None]);
        assert_eq!((mixed.common, mixed.links, mixed.decided), (None, vec![one, other], Some(true)));
        assert_eq!(batch(&[None, Some(one)]).common, None);
        let unsampled = batch(&[Some(silent)]);
        assert_eq!(
            (unsampled.common, unsampled.links, unsampled.decided),
            (Some(silent), vec![], Some(false))
        );
        assert_eq!((batch(&[None]).decided, batch(&[]).common), (None, None));
    }

    #[test]
    fn links_are_bounded() {
        let contexts: Vec<_> = (0..100).map(|_| Some(context(true))).collect();
        let batch = batch(&contexts);
        assert_eq!((batch.links.len(), batch.dropped_links), (MAX_LINKS, 100 - 32));
    }
}
