//! A store that another version wrote.

use std::fs;
use std::path::Path;

use ackwell_proto::exit::OTHER_FORMAT;
use ackwell_tests::caller::delivered;
use ackwell_tests::processes::{Broker, settings};
use redb::{Database, ReadableTable, TableDefinition};

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// Promise: a broker ends with a code by which the operator knows why, says which formats there are, and leaves what is in the
/// store as it is: the version that wrote it goes on with it.
#[tokio::test]
async fn store_of_another_format_is_left_as_it_is() {
    let mut broker = Broker::start(settings());
    let id = broker.caller().await.send_body("kept").await;
    let process = broker.take();
    process.terminate();
    assert!(process.wait().success());
    let format = change_format(&broker.data(), 1);

    let process = broker.spawn();
    let said = process.log();
    assert_eq!(process.wait().code(), Some(i32::from(OTHER_FORMAT)));
    let said = fs::read_to_string(said).unwrap();
    assert!(
        said.contains(&format!("the store has format {format}, this version reads {}", format - 1)),
        "{said}"
    );

    change_format(&broker.data(), -1);
    broker.restart();
    assert_eq!(delivered(&broker.caller().await.receive_one().await).id, id);
}

/// As a version writes it that is so much newer; the format it has now.
fn change_format(data: &Path, by: i8) -> u8 {
    let database = Database::open(data.join("state.redb")).unwrap();
    let write = database.begin_write().unwrap();
    let mut table = write.open_table(META).unwrap();
    let mut row = table.get("shard").unwrap().unwrap().value().to_vec();
    let checksum = row.split_off(row.len() - 4);
    assert_eq!(checksum, crc32c::crc32c(&row).to_le_bytes(), "docs/storage-format.md");
    row[0] = row[0].checked_add_signed(by).unwrap();
    let checksum = crc32c::crc32c(&row);
    row.extend(checksum.to_le_bytes());
    table.insert("shard", row.as_slice()).unwrap();
    drop(table);
    write.commit().unwrap();
    row[0]
}
