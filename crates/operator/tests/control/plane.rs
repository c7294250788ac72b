//! The control plane, started once for all tests of a run.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;

use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::client::ClientBuilder;
use kube::config::AuthInfo;
use kube::{Api, Client, Config, ResourceExt};
use serde_json::json;

use crate::faults::Faults;
use crate::late::late;
use crate::{broker, node};

/// Classes by what their storage can do.
const CLASSES: [(&str, bool); 3] = [("standard", true), ("fixed", false), (node::LIMITED_CLASS, true)];

/// What runs as long as this process does.
pub(crate) struct Plane {
    config: Config,
    _control_plane: (Child, ChildStdin),
}

impl Plane {
    /// The one of this run.
    pub(crate) fn get() -> &'static Self {
        static PLANE: OnceLock<Plane> = OnceLock::new();
        PLANE.get_or_init(|| {
            let plane = Self::start();
            // A runtime of its own: that of a test ends with it.
            let (config, (ready, is_ready)) = (plane.config.clone(), std::sync::mpsc::channel());
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Runtime::new().unwrap();
                runtime.block_on(async {
                    let client = Client::try_from(config).unwrap();
                    prepare(&client).await;
                    ready.send(()).unwrap();
                    tokio::join!(
                        broker::serve(node::ADDRESS, &client),
                        node::kubelet(&client),
                        node::storage(&client)
                    );
                });
            });
            is_ready.recv().expect("the thread prepares the API server");
            plane
        })
    }

    fn start() -> Self {
        let [etcd, peer, api] = [(); 3].map(|()| free_port());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("control-{api}"));
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/control/control-plane");
        let mut command = Command::new(script);
        command.arg(binaries()).arg(folder).args([etcd, peer, api].map(|port| port.to_string()));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "the control plane starts");
        let stdin = child.stdin.take().unwrap();
        Self { config: config(api), _control_plane: (child, stdin) }
    }

    /// A client of the test's own.
    pub(crate) fn client(&self) -> Client {
        Client::try_from(self.config.clone()).unwrap()
    }

    /// A client whose requests go through `faults`.
    pub(crate) fn faulty_client(&self, faults: &Faults) -> Client {
        let client = ClientBuilder::try_from(self.config.clone()).unwrap().with_layer(faults).build();
        match faults.hears_late() {
            Some(plural) => late(client, plural),
            None => client,
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "cargo has no other way to tell a test")]
fn binaries() -> String {
    std::env::var("CLUSTER_BIN").unwrap_or_else(|_| "/tmp/cluster-bin".to_owned())
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn config(port: u16) -> Config {
    let mut config = Config::new(format!("https://127.0.0.1:{port}").parse().unwrap());
    config.accept_invalid_certs = true;
    config.auth_info = AuthInfo { token: Some("admin-token".to_owned().into()), ..AuthInfo::default() };
    config
}

async fn prepare(client: &Client) {
    let parameters = PatchParams::apply("test").force();
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in ackwell_api::crds() {
        let name = &crd.name_any();
        crds.patch(name, &parameters, &Patch::Apply(&crd)).await.unwrap();
        let established = kube::runtime::wait::conditions::is_crd_established();
        kube::runtime::wait::await_condition(crds.clone(), name, established).await.unwrap();
    }
    let classes: Api<StorageClass> = Api::all(client.clone());
    for (name, growable) in CLASSES {
        let default = (name == "standard").to_string();
        let class = json!({
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {
                "name": name,
                "annotations": {"storageclass.kubernetes.io/is-default-class": default},
            },
            "provisioner": "played.test",
            "allowVolumeExpansion": growable,
        });
        classes.patch(name, &parameters, &Patch::Apply(class)).await.unwrap();
    }
}
