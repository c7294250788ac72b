//! A record survives the round trip; a damaged, shortened or stale one is refused, never misread.

mod commands;
mod speed;

use proptest::prelude::*;

use super::forge::{assert_batch_or_nothing, forge};
use super::*;
use crate::command::{self, NewMessage, Outcome, Send, Settle};
use crate::message::QueueId;
use commands::{batches, every_command, example_message};

const POSITION: Position = Position { segment: 3, offset: 8192, lsn: 77, chain: 0x0a0b_0c0d };

fn encoded(batch: &Batch) -> Bytes {
    let mut buffer = Vec::new();
    encode(&POSITION, batch, &Cover::None, &mut buffer);
    buffer.into()
}

fn batch(commands: Vec<Command>) -> Batch {
    Batch { now: Timestamp(1_764_000_000_000), resumes: true, corrupt: vec![(Seq(5), Epoch(6))], commands }
}

fn send(messages: Vec<NewMessage>) -> Command {
    let batch = command::Batch::Each;
    Command::Send(Send { queue: QueueId(7), messages, batch, request_id: String::new() })
}

/// What lies between the header and the payloads, and the payloads.
fn parts(record: &[u8]) -> (&[u8], &[u8]) {
    let header = Header::read(record).unwrap();
    record[HEADER_BYTES..].split_at(header.commands_bytes as usize)
}

proptest! {
    #[test]
    fn batch_survives_the_round_trip(batch in batches(), behind in prop::collection::vec(any::<u8>(), 0..60)) {
        let mut buffer = b"of an earlier use".to_vec();
        let blobs = encode(&POSITION, &batch, &Cover::None, &mut buffer);
        let record = buffer.len();
        let next = POSITION.after(&buffer);
        buffer.extend(behind);
        let bytes = Bytes::from(buffer);
        let decoded = decode(&POSITION, &bytes, &Cover::None).unwrap();
        prop_assert_eq!(format!("{:?}", decoded.batch), format!("{batch:?}"));
        prop_assert_eq!(&decoded.blobs, &blobs);
        prop_assert_eq!((next.segment, next.offset as usize, next.lsn), (3, 8192 + record, 78));
    }

    /// Promise: a payload can be read where it lies, without the rest of its record and without a copy of its body.
    #[test]
    fn payload_is_read_in_place(batch in batches()) {
        let mut buffer = Vec::new();
        let blobs = encode(&POSITION, &batch, &Cover::None, &mut buffer);
        let bytes = Bytes::from(buffer);
        let mut payloads = Vec::new();
        super::commands::each_message(&batch.commands, |message| payloads.push(&message.payload));
        prop_assert_eq!(payloads.len(), blobs.len());
        for (payload, blob) in payloads.into_iter().zip(&blobs) {
            let read = decode_payload(&bytes.slice(blob.range()), blob.crc).unwrap();
            prop_assert_eq!(&read, payload);
            prop_assert!(read.body.is_empty() || bytes.as_ptr_range().contains(&read.body.as_ptr()));
            prop_assert_eq!(decode_payload(&bytes.slice(blob.range()), blob.crc ^ 1), None);
        }
    }

    /// Promise: whatever a record with the right checksums says, it is read as it was written or not at all.
    #[test]
    fn changed_record_with_right_checksums_is_never_misread(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        moved in -3isize..4,
    ) {
        let record = encoded(&batch(every_command()));
        let mut content = record[HEADER_BYTES..].to_vec();
        for (at, value) in changes {
            let at = at.index(content.len());
            content[at] = value;
        }
        let split = parts(&record).0.len().saturating_add_signed(moved);
        assert_batch_or_nothing(&POSITION, forge(&POSITION, &content[..split], &content[split..]));
    }
}

/// Promise: a corrupt record is refused, never served; of a corrupt payload alone the record says so, and what was decided by
/// the payload it still has.
#[test]
fn damaged_record_is_refused() {
    let record = encoded(&batch(every_command()));
    let whole = decode(&POSITION, &record, &Cover::None).unwrap();
    let payloads_at = record.len() - parts(&record).1.len();
    for bit in 0..record.len() * 8 {
        let mut damaged = record.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let decoded = decode(&POSITION, &damaged.into(), &Cover::None);
        assert_eq!(
            decoded.map(|decoded| decoded.damaged),
            (bit / 8 >= payloads_at).then_some(1),
            "bit {bit}"
        );
    }
    let mut damaged = record.to_vec();
    damaged[payloads_at] ^= 1;
    let (mut kept, mut before) = (Vec::new(), Vec::new());
    decode(&POSITION, &damaged.into(), &Cover::None)
        .unwrap()
        .batch
        .each_message(|message| kept.push(message.payload.clone()));
    whole.batch.each_message(|message| before.push(message.payload.clone()));
    let Payload { body, dedup_id, ordering_key, fairness_key, .. } = &kept[0];
    assert_eq!((body.len(), dedup_id), (before[0].body.len(), &before[0].dedup_id));
    assert_eq!((ordering_key, fairness_key), (&before[0].ordering_key, &before[0].fairness_key));
    assert_eq!(kept[1..], before[1..]);
    for len in 0..record.len() {
        assert!(decode(&POSITION, &record.slice(..len), &Cover::None).is_none(), "length {len}");
    }
}

/// Promise: no byte has two meanings, and none is ignored. Small numbers are where enumerations and lengths are.
#[test]
fn changed_byte_with_right_checksums_is_never_misread() {
    let record = encoded(&batch(every_command()));
    let (commands, payloads) = parts(&record);
    for at in 0..commands.len() {
        for value in (0..20).chain([u8::MAX]) {
            let mut changed = commands.to_vec();
            changed[at] = value;
            assert_batch_or_nothing(&POSITION, forge(&POSITION, &changed, payloads));
        }
    }
}

#[test]
fn damaged_payload_is_refused() {
    let payload = &example_message().payload;
    let mut out = Writer::default();
    let blob = append_payload(&mut out, &POSITION, &Cover::None, payload);
    let bytes = out.finish();
    assert_eq!(decode_payload(&bytes.clone().into(), blob.crc).as_ref(), Some(payload));
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(decode_payload(&damaged.into(), blob.crc), None, "bit {bit}");
    }
    for len in 0..bytes.len() {
        assert_eq!(decode_payload(&bytes[..len].to_vec().into(), blob.crc), None, "length {len}");
    }
}

#[test]
fn record_of_another_place_is_refused() {
    let record = encoded(&batch(every_command()));
    let elsewhere = [
        Position { segment: 2, ..POSITION },
        Position { offset: 4096, ..POSITION },
        Position { lsn: 78, ..POSITION },
        Position { chain: 0, ..POSITION },
    ];
    for position in elsewhere {
        assert!(decode(&position, &record, &Cover::None).is_none(), "{position:?}");
    }
}

/// Promise: what an earlier life of the log left behind the end is not taken for its continuation, although it has the right
/// segment, place and number: neither the first such record nor one behind it.
#[test]
fn stale_records_behind_a_rewritten_one_are_refused() {
    let mut position = POSITION;
    let mut stale = Vec::new();
    for now in [1, 2, 3] {
        let record = encode_at(position, &Batch { now: Timestamp(now), ..batch(Vec::new()) });
        stale.push((position, record.clone()));
        position = position.after(&record);
    }
    let mut position = POSITION;
    for (now, (_, old)) in [(9, &stale[0]), (2, &stale[1])] {
        let record = encode_at(position, &Batch { now: Timestamp(now), ..batch(Vec::new()) });
        assert_eq!(record.len(), old.len());
        assert_ne!(record, *old);
        position = position.after(&record);
        let (_, behind) = stale.iter().find(|(old, _)| old.lsn == position.lsn).unwrap();
        assert!(decode(&position, behind, &Cover::None).is_none());
        assert!(recognize(position.segment, position.offset, behind).is_some());
    }
}

fn encode_at(position: Position, batch: &Batch) -> Bytes {
    let mut buffer = Vec::new();
    encode(&position, batch, &Cover::None, &mut buffer);
    buffer.into()
}

/// Promise: a hole in the log is told from its end by what stands behind it, and no body can pretend to be a record: not
/// even one with a true record in it.
#[test]
fn record_is_recognized_at_its_own_place_only() {
    let record = encoded(&batch(every_command()));
    assert_eq!(recognize(3, 8192, &record), Some(POSITION));
    assert_eq!(recognize(2, 8192, &record), None);
    assert_eq!(recognize(3, 8192 + 512, &record), None);
    let commands_end = HEADER_BYTES + parts(&record).0.len();
    assert_eq!(recognize(3, 8192, &record[..commands_end]), Some(POSITION));
    for len in 0..commands_end {
        assert_eq!(recognize(3, 8192, &record[..len]), None, "length {len}");
    }
    for bit in 0..commands_end * 8 {
        let mut damaged = record.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(recognize(3, 8192, &damaged), None, "bit {bit}");
    }
}

#[test]
fn zeros_are_no_record() {
    let zeros = Bytes::from_static(&[0; 4096]);
    let nowhere = Position { segment: 0, offset: 0, lsn: 0, chain: 0 };
    assert!(decode(&nowhere, &zeros, &Cover::None).is_none());
    assert_eq!(recognize(0, 0, &zeros), None);
}

/// Promise: with checksums that fit, nonsense is refused all the same.
#[test]
fn nonsense_with_right_checksums_is_refused() {
    let record = encoded(&batch(vec![send(vec![example_message()])]));
    let (commands, payloads) = parts(&record);
    let is_read = |commands: &[u8], payloads: &[u8]| {
        decode(&POSITION, &forge(&POSITION, commands, payloads).into(), &Cover::None).is_some()
    };
    let with = |at: usize, value: u8| {
        let mut changed = commands.to_vec();
        changed[at] = value;
        changed
    };
    let resumes_at = 4 + BLOB_BYTES;
    let command_at = resumes_at + 1 + 4 + 16 + 4;
    assert!(is_read(commands, payloads));
    assert!(!is_read(&with(resumes_at, 2), payloads), "not a bool");
    assert!(!is_read(&with(command_at, 17), payloads), "no such command");
    assert!(!is_read(&with(command_at + 43, 3), payloads), "no such availability");
    assert!(!is_read(&with(command_at + 66, 10), payloads), "no such priority");
    assert!(!is_read(&[commands, &[0]].concat(), payloads), "bytes behind the commands");
    assert!(!is_read(&commands[..commands.len() - 1], payloads), "a command cut off");
    assert!(!is_read(commands, &[payloads, &[0]].concat()), "bytes behind the payloads");
    assert!(!is_read(commands, &payloads[..payloads.len() - 1]), "a payload cut off");
    assert!(!is_read(&with(4, commands[4] - 1), &payloads[..payloads.len() - 1]), "a shorter payload");
    assert!(!is_read(&with(4, commands[4] + 1), &[payloads, &[0]].concat()), "bytes behind a payload");
    assert!(!is_read(&with(0, 0), payloads), "a message without a payload");
    let one_more = [&[2, 0, 0, 0], &commands[4..12], &[0; 8], &commands[12..]].concat();
    assert!(!is_read(&one_more, payloads), "a payload without a message");
    assert!(!is_read(&with(3, 0xff), payloads), "as many payloads as no memory could hold");
    assert!(!is_read(&with(command_at - 1, 0xff), payloads), "as many commands");
}

/// Promise: writing a record takes no new memory once the buffer has grown to what is usual.
#[test]
fn buffer_is_used_again() {
    let batch = batch(every_command());
    let mut buffer = Vec::new();
    encode(&POSITION, &batch, &Cover::None, &mut buffer);
    let before = (buffer.as_ptr(), buffer.capacity());
    encode(&POSITION, &batch, &Cover::None, &mut buffer);
    assert_eq!((buffer.as_ptr(), buffer.capacity()), before);
}

/// Promise: the document is true, and a changed layout does not go unnoticed. Whoever changes one changes `MAGIC`.
#[test]
fn examples_of_the_document_are_what_is_written() {
    let document = include_str!("../../../../../docs/storage-format.md");
    let settlements = vec![(Bytes::from_static(b"r1"), Outcome::Ack)];
    let settle = Command::Settle(Settle { queue: QueueId(7), settlements });
    let record = encoded(&batch(vec![send(vec![example_message()]), settle]));
    let all = encoded(&batch(every_command()));
    for (name, bytes) in [("record", &record[..]), ("commands", parts(&all).0)] {
        let written = bytes.chunks(32).map(hex).collect::<Vec<_>>().join("\n");
        assert!(document.contains(&format!("```hex {name}\n{written}\n```")), "{name} is\n{written}");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}
