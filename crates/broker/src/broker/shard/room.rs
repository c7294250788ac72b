//! Memory for commands that carry messages: from before they wait in the mailbox until they are answered.

use std::sync::Arc;

use ackwell_engine::Command;
use ackwell_engine::command::NewMessage;
use ackwell_engine::moving::Traveller;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// All of them together, whoever sends: what one commit may hold four times over, so that the next commits are complete
/// while one is written and one is applied. More would only wait here instead of with its sender.
const TOTAL_KIB: usize = 64 << 10;
/// Fields of a message beside its body and headers.
const MESSAGE_BYTES: usize = 256;

#[derive(Clone)]
pub(crate) struct Room(Arc<Semaphore>);

/// Of one command; given back when dropped.
pub(crate) type Taken = OwnedSemaphorePermit;

impl Room {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(TOTAL_KIB)))
    }

    /// Room for the command, unless others have it. `Ok(None)`: it needs none.
    pub(super) fn take(&self, command: &Command) -> Result<Option<Taken>, Full> {
        match kib(command) {
            0 => Ok(None),
            kib => Arc::clone(&self.0).try_acquire_many_owned(kib).map(Some).map_err(|_| Full),
        }
    }

    /// The same, waiting for it.
    pub(super) async fn wait(&self, command: &Command) -> Option<Taken> {
        match kib(command) {
            0 => None,
            kib => Arc::clone(&self.0).acquire_many_owned(kib).await.ok(),
        }
    }

    /// How much is taken.
    pub(crate) fn bytes(&self) -> u64 {
        (TOTAL_KIB.saturating_sub(self.0.available_permits()) as u64) << 10
    }
}

/// Others have all of it.
pub(super) struct Full;

/// What the command needs. What settles or reads is small, and must get through.
fn kib(command: &Command) -> u32 {
    let bytes: usize = match command {
        Command::Send(send) => send.messages.iter().map(bytes).sum(),
        Command::Commit(commit) => commit.send.iter().flat_map(|send| &send.messages).map(bytes).sum(),
        Command::Import(import) => import.messages.iter().map(Traveller::message).map(bytes).sum(),
        _ => 0,
    };
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

fn bytes(message: &NewMessage) -> usize {
    let headers = message.payload.headers.iter().map(|(key, value)| key.len() + value.len());
    MESSAGE_BYTES + message.payload.body.len() + headers.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use ackwell_engine::command::{Batch, Send, Settle};
    use ackwell_engine::message::{Payload, QueueId};

    use super::*;

    fn send(body_bytes: usize) -> Command {
        let payload = Payload { body: vec![0; body_bytes].into(), ..Payload::default() };
        let messages = vec![NewMessage { payload, ..NewMessage::default() }];
        Command::Send(Send { queue: QueueId(1), messages, batch: Batch::Each, request_id: String::new() })
    }

    /// Promise: memory for what waits is bounded; it is refused beyond, while settling always gets through.
    #[test]
    fn sends_beyond_the_room_are_refused() {
        let room = Room::new();
        let mut taken = Vec::new();
        while let Ok(permit) = room.take(&send(1 << 20)) {
            taken.push(permit);
        }
        assert_eq!(taken.len(), 63, "64 MiB, less what the fields need");
        assert!(room.bytes() <= 64 << 20);
        let settle = Command::Settle(Settle { queue: QueueId(1), settlements: Vec::new() });
        assert!(room.take(&settle).is_ok_and(|permit| permit.is_none()));
        drop(taken.pop());
        assert!(room.take(&send(1 << 20)).is_ok());
    }
}
