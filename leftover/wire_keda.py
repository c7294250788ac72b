import shutil,os
def sub(path, pairs):
    text=open(path).read()
    for a,b in pairs:
        assert text.count(a)==1,(path,a,text.count(a))
        text=text.replace(a,b)
    open(path,'w').write(text)
shutil.copy('leftover/scaler.rs','crates/broker/src/broker/service/scaler.rs')
shutil.copy('leftover/peers.rs','crates/broker/src/broker/peers.rs')
shutil.copy('leftover/keda.rs','tests/it/keda.rs')
sub('tests/it/main.rs',[("mod keys;\n","mod keda;\nmod keys;\n")])
sub('crates/broker/src/broker.rs',[("mod metrics;\n","mod metrics;\nmod peers;\n"),
("let service = Service { shard: shard.clone(), queues, stopping, sessions, receiving };","let service =\n        Service { shard: shard.clone(), queues, stopping, sessions, receiving, peers: Peers::default() };"),
("use served::Queues;","use peers::Peers;\nuse served::Queues;")])
sub('crates/broker/src/broker/service.rs',[("mod queues;\nmod shard;","mod queues;\nmod scaler;\nmod shard;"),
("    pub(crate) receiving: Receiving,\n}","    pub(crate) receiving: Receiving,\n    /// The other shards.\n    pub(crate) peers: Peers,\n}"),
("            .add_service(ShardServer::new(self.clone()))","            .add_service(ShardServer::new(self.clone()))\n            .add_service(ExternalScalerServer::new(self.clone()))"),
("use ackwell_proto::v1::queue_admin_server","use ackwell_proto::externalscaler::external_scaler_server::ExternalScalerServer;\nuse ackwell_proto::v1::queue_admin_server"),
("use super::served::Queues;","use super::peers::Peers;\nuse super::served::Queues;")])
sub('crates/proto/src/lib.rs',[("pub use name::","""/// KEDA's external scaler, as far as brokers serve it; generated from `proto/externalscaler`.
#[expect(missing_docs, clippy::pedantic, clippy::allow_attributes_without_reason, reason = "generated")]
pub mod externalscaler {
    include!("gen/externalscaler.rs");
}

pub use name::""")])
sub('crates/xtask/src/generate/proto.rs',[
('const FILES: [&str; 4] = ["message", "queues", "admin", "shard"];','const FILES: [&str; 5] = [\n    "ackwell/v1/message",\n    "ackwell/v1/queues",\n    "ackwell/v1/admin",\n    "ackwell/v1/shard",\n    "externalscaler/externalscaler",\n];\n/// What is made of them, one of each package.\nconst BINDINGS: [&str; 2] = ["ackwell.v1.rs", "externalscaler.rs"];'),
('    let files = FILES.map(|name| format!("ackwell/v1/{name}.proto"));','    let files = FILES.map(|name| format!("{name}.proto"));'),
('    Ok(vec![generated("ackwell.v1.rs", bindings?), generated("descriptors.bin", encoded)])','    let mut files = bindings?;\n    files.push(generated("descriptors.bin", encoded));\n    Ok(files)'),
(') -> anyhow::Result<Vec<u8>> {',') -> anyhow::Result<Vec<Generated>> {'),
('    std::fs::read(out.join("ackwell.v1.rs")).context("read the generated bindings")','    let read = |name: &str| {\n        let content = std::fs::read(out.join(name)).context("read the generated bindings")?;\n        Ok(generated(name, content))\n    };\n    BINDINGS.into_iter().map(read).collect()'),
])
sub('tests/src/processes/broker.rs',[("""    /// Starts one on an empty folder.""","""    /// Starts the shards of one queue, each on an empty folder.
    #[track_caller]
    pub fn start_shards(settings: QueueSettings, count: usize) -> Vec<Self> {
        let mut shards: Vec<Self> = (0..count).map(|_| Self::prepare(settings)).collect();
        let addresses: Vec<String> = shards.iter().map(|shard| shard.address.to_string()).collect();
        for shard in &mut shards {
            shard.configure(settings, addresses.clone());
            shard.restart();
        }
        shards
    }

    /// Starts one on an empty folder."""),
("""        let config = QueueConfig {
            namespace: NAMESPACE.to_owned(),
            name: QUEUE.to_owned(),
            generation: 1,
            shard_addresses: vec![address.to_string()],
            settings: Some(settings),
        };
        let json = serde_json::to_vec_pretty(&config).expect("a config is JSON");
        std::fs::write(folder.path().join("queue.json"), json).expect("a test can write into its own folder");
        Self { process: None, address, http, folder }
    }
""","""        let broker = Self { process: None, address, http, folder };
        broker.configure(settings, vec![address.to_string()]);
        broker
    }

    fn configure(&self, settings: QueueSettings, shard_addresses: Vec<String>) {
        let config = QueueConfig {
            namespace: NAMESPACE.to_owned(),
            name: QUEUE.to_owned(),
            generation: 1,
            shard_addresses,
            settings: Some(settings),
        };
        let json = serde_json::to_vec_pretty(&config).expect("a config is JSON");
        std::fs::write(self.path("queue.json"), json).expect("a test can write into its own folder");
    }
"""),
])
