//! An API server with Queues in it, started once for all tests of a run, and namespaces in it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fmt::Debug;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Everything here takes a second on an idle machine.
const LIMIT: Duration = Duration::from_secs(90);
const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// What runs as long as this process does.
struct Plane {
    folder: PathBuf,
    _control_plane: (Child, ChildStdin),
}

impl Plane {
    fn get() -> &'static Self {
        static PLANE: OnceLock<Plane> = OnceLock::new();
        PLANE.get_or_init(|| {
            let plane = Self::start();
            plane.kubectl(&["apply", "--server-side", "--filename", &format!("{REPOSITORY}/crds")], "");
            let established = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"];
            plane.kubectl(&established, "");
            plane
        })
    }

    fn start() -> Self {
        let ports = [(); 3].map(|()| free_port().to_string());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cli-{}", ports[2]));
        let mut script = Command::new(format!("{REPOSITORY}/crates/operator/tests/control/control-plane"));
        script.arg(binaries()).arg(&folder).args(&ports).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = script.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "the control plane starts");
        let stdin = child.stdin.take().unwrap();
        Self { folder, _control_plane: (child, stdin) }
    }

    fn kubectl(&self, args: &[&str], stdin: &str) -> String {
        let mut kubectl = Command::new(format!("{}/kubectl", binaries()));
        kubectl.args(args).env("KUBECONFIG", self.folder.join("kubeconfig"));
        let mut child = kubectl.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "kubectl {args:?}\n{stdin}");
        String::from_utf8(output.stdout).unwrap()
    }
}

#[expect(clippy::disallowed_methods, reason = "cargo has no other way to tell a test")]
fn binaries() -> String {
    std::env::var("CLUSTER_BIN").unwrap_or_else(|_| "/tmp/cluster-bin".to_owned())
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// A namespace, and a person at a command line.
pub(crate) struct Shop {
    pub(crate) namespace: String,
    folder: TempDir,
}

impl Shop {
    /// `name` is unique in the run. The person is the administrator.
    pub(crate) fn new(name: &str) -> Self {
        let shop = Self {
            namespace: format!("{name}-{}", std::process::id()),
            folder: tempfile::tempdir().unwrap(),
        };
        Plane::get().kubectl(&["create", "namespace", &shop.namespace], "");
        fs::copy(Plane::get().folder.join("kubeconfig"), shop.kubeconfig()).unwrap();
        shop
    }

    fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// From now on the person may do only this.
    pub(crate) fn restrict(&self, rules: &Value) {
        let name = &self.namespace;
        let (kind, api) = ("Role", "rbac.authorization.k8s.io");
        let metadata = json!({ "name": name });
        self.create(&[
            json!({"apiVersion": format!("{api}/v1"), "kind": kind, "metadata": metadata, "rules": rules}),
            json!({
                "apiVersion": format!("{api}/v1"),
                "kind": "RoleBinding",
                "metadata": metadata,
                "roleRef": {"apiGroup": api, "kind": kind, "name": name},
                "subjects": [{"apiGroup": api, "kind": "User", "name": name}],
            }),
        ]);
        let config = fs::read_to_string(self.kubeconfig()).unwrap();
        let person = config
            .replace("user: {token: admin-token}", &format!("user: {{token: admin-token, as: {name}}}"));
        assert_ne!(config, person);
        fs::write(self.kubeconfig(), person).unwrap();
    }

    pub(crate) fn create(&self, objects: &[Value]) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.kubectl(&["create", "--filename=-"], &list.to_string());
    }

    /// Changes an object, or `status` of it.
    pub(crate) fn patch(&self, kind: &str, name: &str, change: &Value) {
        let change = format!("--patch={change}");
        let mut args = vec!["patch", kind, name, "--type=merge", &change];
        if change.starts_with("--patch={\"status\"") {
            args.push("--subresource=status");
        }
        self.kubectl(&args, "");
    }

    pub(crate) fn get(&self, kind: &str, name: &str) -> Value {
        serde_json::from_str(&self.kubectl(&["get", kind, name, "--output=json"], "")).unwrap()
    }

    /// The names of all objects of a kind.
    pub(crate) fn names(&self, kind: &str) -> Vec<String> {
        let names = self.kubectl(&["get", kind, "--output=jsonpath={.items[*].metadata.name}"], "");
        names.split_whitespace().map(str::to_owned).collect()
    }

    fn kubectl(&self, args: &[&str], stdin: &str) -> String {
        Plane::get().kubectl(&[&["--namespace", &self.namespace], args].concat(), stdin)
    }

    /// Where the person is.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn start(&self, args: &[&str]) -> Child {
        let mut ackwell = Command::new(env!("CARGO_BIN_EXE_ackwell"));
        ackwell.args(args).args(["--namespace", &self.namespace]).current_dir(self.folder());
        ackwell.env("KUBECONFIG", self.kubeconfig()).env("NO_PROXY", "*");
        ackwell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Runs `ackwell` in the namespace, to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        Ended::new(&self.start(args).wait_with_output().unwrap())
    }
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn new(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_owned()).unwrap();
        Self {
            code: output.status.code().unwrap(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }
}

/// Looks until it is so.
#[expect(clippy::disallowed_methods, reason = "a test that waits for other processes")]
pub(crate) fn until<T: Debug>(what: &str, mut look: impl FnMut() -> Result<(), T>) {
    let begun = Instant::now();
    while let Err(last) = look() {
        assert!(begun.elapsed() < LIMIT, "{what}: not within {LIMIT:?}; last: {last:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}
