//! Settle and extend frames of the application that are not answered yet.
//!
//! Each is taken apart by shard and answered once, in the order in which the application sent them.

use std::collections::VecDeque;

use ackwell_proto::v1::consume_response::Frame;
use ackwell_proto::v1::{ExtendResult, ExtendedFrame, ItemError, SettleResult, SettledFrame};
use tokio::time::Instant;

use crate::sidecar::settle::{extend_refusal, settle_refusal};
use crate::traces::{self, Open};

/// Names a frame of the application within its stream.
pub(crate) type FrameId = u64;

/// The results of one frame, or of one shard's part of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Results {
    Settle(Vec<SettleResult>),
    Extend(Vec<ExtendResult>),
}

/// The frames in their order.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    pending: VecDeque<Pending>,
    next: FrameId,
}

#[derive(Debug)]
struct Pending {
    id: FrameId,
    seq: u64,
    results: Results,
    /// Places that no shard has answered.
    missing: Vec<usize>,
    until: Instant,
    /// Of a settle frame that is recorded.
    span: Option<Open>,
}

impl Results {
    /// Of a settle frame before any shard answered.
    pub(crate) fn settle(count: usize) -> Self {
        Self::Settle(vec![SettleResult::default(); count])
    }

    /// Of an extend frame before any shard answered.
    pub(crate) fn extend(count: usize) -> Self {
        Self::Extend(vec![ExtendResult::default(); count])
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Settle(items) => items.len(),
            Self::Extend(items) => items.len(),
        }
    }

    pub(crate) fn errors(&self) -> impl Iterator<Item = &ItemError> {
        let (settled, extended): (&[SettleResult], &[ExtendResult]) = match self {
            Self::Settle(items) => (items, &[]),
            Self::Extend(items) => (&[], items),
        };
        let settled = settled.iter().filter_map(|result| result.error.as_ref());
        settled.chain(extended.iter().filter_map(|result| result.error.as_ref()))
    }

    fn put(&mut self, positions: &[usize], part: Self) {
        match (self, part) {
            (Self::Settle(all), Self::Settle(part)) => put(all, positions, part),
            (Self::Extend(all), Self::Extend(part)) => put(all, positions, part),
            (Self::Settle(_), Self::Extend(_)) | (Self::Extend(_), Self::Settle(_)) => {}
        }
    }

    fn refuse(&mut self, positions: &[usize], error: &ItemError) {
        let count = positions.len();
        let part = match self {
            Self::Settle(_) => Self::Settle(vec![settle_refusal(error.clone()); count]),
            Self::Extend(_) => Self::Extend(vec![extend_refusal(error.clone()); count]),
        };
        self.put(positions, part);
    }

    fn frame(self, seq: u64) -> Frame {
        match self {
            Self::Settle(results) => Frame::Settled(SettledFrame { seq, results }),
            Self::Extend(results) => Frame::Extended(ExtendedFrame { seq, results }),
        }
    }
}

impl Answers {
    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Begins a frame whose items are all unanswered.
    pub(crate) fn begin(&mut self, seq: u64, results: Results, until: Instant) -> FrameId {
        self.next += 1;
        let missing = (0..results.len()).collect();
        self.pending.push_back(Pending { id: self.next, seq, results, missing, until, span: None });
        self.next
    }

    /// The frame is recorded until it is answered.
    pub(crate) fn trace(&mut self, id: FrameId, span: Option<Open>) {
        if let Some(pending) = self.find(id) {
            pending.span = span;
        }
    }

    /// A shard answered its part.
    pub(crate) fn fill(&mut self, id: FrameId, positions: &[usize], part: Results) {
        if let Some(pending) = self.find(id) {
            pending.results.put(positions, part);
            pending.missing.retain(|position| !positions.contains(position));
        }
    }

    /// These items are refused.
    pub(crate) fn refuse(&mut self, id: FrameId, positions: &[usize], error: &ItemError) {
        if let Some(pending) = self.find(id) {
            pending.results.refuse(positions, error);
            pending.missing.retain(|position| !positions.contains(position));
        }
    }

    /// When the oldest frame must be answered, come what may.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.pending.front().map(|pending| pending.until)
    }

    /// Gives up on frames whose time is over; the ids of those.
    pub(crate) fn expire(&mut self, now: Instant, error: &ItemError) -> Vec<FrameId> {
        let mut expired = Vec::new();
        for pending in self.pending.iter_mut().filter(|pending| pending.until <= now) {
            let missing = std::mem::take(&mut pending.missing);
            pending.results.refuse(&missing, error);
            expired.push(pending.id);
        }
        expired
    }

    /// The next answer that is complete and whose turn it is.
    pub(crate) fn pop(&mut self) -> Option<Frame> {
        if !self.pending.front()?.missing.is_empty() {
            return None;
        }
        let Pending { seq, results, span, .. } = self.pending.pop_front()?;
        if let Results::Settle(results) = &results {
            traces::answered(span, results);
        }
        Some(results.frame(seq))
    }

    fn find(&mut self, id: FrameId) -> Option<&mut Pending> {
        self.pending.iter_mut().find(|pending| pending.id == id)
    }
}

fn put<T>(all: &mut [T], positions: &[usize], part: Vec<T>) {
    for (position, result) in positions.iter().zip(part) {
        all[*position] = result;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ackwell_proto::v1::State;

    use super::*;

    fn dead() -> SettleResult {
        SettleResult { state: State::Dead.into(), ..SettleResult::default() }
    }

    /// Answers come in the order of the frames, each once, with every shard's items in their places.
    #[tokio::test]
    async fn frames_are_answered_in_order() {
        let mut answers = Answers::default();
        let until = Instant::now() + Duration::from_mins(1);
        let first = answers.begin(7, Results::settle(2), until);
        let second = answers.begin(8, Results::extend(1), until);
        answers.fill(second, &[0], Results::extend(1));
        assert_eq!(answers.pop(), None);
        answers.fill(first, &[1], Results::Settle(vec![dead()]));
        assert_eq!(answers.pop(), None);
        answers.fill(first, &[0], Results::settle(1));
        let results = vec![SettleResult::default(), dead()];
        assert_eq!(answers.pop(), Some(Frame::Settled(SettledFrame { seq: 7, results })));
        assert!(matches!(answers.pop(), Some(Frame::Extended(ExtendedFrame { seq: 8, .. }))));
        assert_eq!((answers.pop(), answers.len()), (None, 0));
    }

    /// A shard that stays away does not leave the application without an answer.
    #[tokio::test]
    async fn expired_frame_is_refused_where_unanswered() {
        let mut answers = Answers::default();
        let id = answers.begin(7, Results::settle(2), Instant::now());
        answers.fill(id, &[1], Results::Settle(vec![dead()]));
        let error = ItemError { reason: "BROKER_UNAVAILABLE".to_owned(), ..ItemError::default() };
        assert_eq!(answers.expire(Instant::now(), &error), [id]);
        let results = vec![settle_refusal(error), dead()];
        assert_eq!(answers.pop(), Some(Frame::Settled(SettledFrame { seq: 7, results })));
    }
}
