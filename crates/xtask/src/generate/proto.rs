//! Rust bindings and the descriptor set (for gRPC reflection) of `proto/`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use prost::Message;

use super::Generated;

const FILES: [&str; 5] = [
    "ackwell/v1/message",
    "ackwell/v1/queues",
    "ackwell/v1/admin",
    "ackwell/v1/shard",
    "externalscaler/externalscaler",
];
/// What is made of them, one of each package.
const BINDINGS: [&str; 2] = ["ackwell.v1.rs", "externalscaler.rs"];
const OUT: &str = "crates/proto/src/gen";

pub(super) fn generate(top: &Path) -> anyhow::Result<Vec<Generated>> {
    let files = FILES.map(|name| format!("{name}.proto"));
    let descriptors = protox::compile(files, [top.join("proto")]).context("compile proto/")?;
    let encoded = descriptors.encode_to_vec();
    let scratch = std::env::temp_dir().join(format!("ackwell-gen-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).context("create a scratch folder")?;
    let bindings = bindings(descriptors, &scratch);
    std::fs::remove_dir_all(&scratch).context("remove the scratch folder")?;
    let mut files = bindings?;
    files.push(generated("descriptors.bin", encoded));
    Ok(files)
}

fn bindings(
    descriptors: protox::prost_reflect::prost_types::FileDescriptorSet,
    out: &Path,
) -> anyhow::Result<Vec<Generated>> {
    let mut config = prost_build::Config::new();
    // Bodies are moved, never copied: the transport's buffer is what the engine stores.
    config.bytes([
        ".ackwell.v1.Message.body",
        ".ackwell.v1.Delivery.receipt",
        ".ackwell.v1.Settlement.receipt",
        ".ackwell.v1.ImportRequest.messages",
        ".ackwell.v1.KeptMessage.body",
    ]);
    tonic_prost_build::configure()
        .out_dir(out)
        .emit_rerun_if_changed(false)
        .type_attribute(".ackwell.v1.QueueConfig", SERDE)
        .type_attribute(".ackwell.v1.QueueSettings", SERDE)
        .type_attribute(".ackwell.v1.Access", SERDE)
        .type_attribute(".ackwell.v1.Grant", SERDE)
        .type_attribute(".ackwell.v1.Placement", SERDE)
        .type_attribute(".ackwell.v1.Backoff", SERDE)
        .compile_fds_with_config(descriptors, config)
        .context("generate bindings")?;
    let read = |name: &str| {
        let content = std::fs::read(out.join(name)).context("read the generated bindings")?;
        Ok(generated(name, content))
    };
    BINDINGS.into_iter().map(read).collect()
}

/// The broker reads its cold-start file as these messages in JSON; fields it lacks or does not know are no error, since
/// operator and broker may differ by one version.
const SERDE: &str =
    "#[derive(serde::Serialize, serde::Deserialize)] #[serde(rename_all = \"camelCase\", default)]";

fn generated(name: &str, content: Vec<u8>) -> Generated {
    Generated { path: PathBuf::from(OUT).join(name), content }
}
