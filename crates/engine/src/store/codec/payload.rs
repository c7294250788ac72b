//! What the sender gave.

use bytes::Bytes;

use crate::message::Payload;
use crate::store::encoding::{Reader, Writer};

/// Its checksum lies with the commands of its record.
pub(in crate::store) fn write_payload(out: &mut Writer, payload: &Payload) {
    let Payload { body, headers, content_type, dedup_id, ordering_key, fairness_key } = payload;
    out.bytes(body).text(content_type).text(dedup_id).text(ordering_key).text(fairness_key);
    out.list(headers, |out, (key, value)| _ = out.text(key).text(value));
}

/// `body` makes one of where it lies: by copying, or without.
pub(in crate::store) fn read_payload(
    input: &mut Reader<'_>,
    body: impl FnOnce(&[u8]) -> Bytes,
) -> Option<Payload> {
    Some(Payload {
        body: body(input.bytes()?),
        content_type: input.text()?,
        dedup_id: input.text()?,
        ordering_key: input.text()?,
        fairness_key: input.text()?,
        headers: input.list(usize::MAX, |input| Some((input.text()?, input.text()?)))?,
    })
}
