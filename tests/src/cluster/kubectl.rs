//! kubectl, with a limit on every call.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use super::setting;
use crate::wait;

/// A call that only reads or writes objects. The API server answers within milliseconds, a busy machine later.
const CALL: Duration = Duration::from_mins(1);
/// Beyond the time that kubectl itself was given to wait.
const MARGIN: Duration = Duration::from_secs(15);

/// kubectl in one namespace.
#[derive(Clone, Debug)]
pub struct Kubectl {
    namespace: String,
}

impl Kubectl {
    /// For objects of this namespace, and those of none.
    pub fn in_namespace(namespace: &str) -> Self {
        Self { namespace: namespace.to_owned() }
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// What it prints; an error says what it complained about.
    pub fn run(&self, args: &[&str]) -> anyhow::Result<String> {
        self.limited(args, "", CALL)
    }

    /// What it prints, where it must succeed.
    #[track_caller]
    pub fn expect(&self, args: &[&str]) -> String {
        self.run(args).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Applies manifests.
    #[track_caller]
    pub fn apply(&self, manifests: &str) {
        self.try_apply(manifests).unwrap_or_else(|error| panic!("{error:#}\n{manifests}"));
    }

    /// The same where a refusal is expected.
    pub fn try_apply(&self, manifests: &str) -> anyhow::Result<String> {
        self.limited(&["apply", "--filename=-"], manifests, CALL)
    }

    /// Asks the API server whether it would take manifests; nothing is stored.
    pub fn dry_run(&self, manifests: &str) -> anyhow::Result<String> {
        self.limited(&["apply", "--dry-run=server", "--filename=-"], manifests, CALL)
    }

    /// The same for manifests that name the namespaces of their objects. What is not a field is refused.
    pub fn dry_run_of_all(manifests: &str) -> anyhow::Result<String> {
        let mut command = Command::new(setting("ACKWELL_KUBECTL", "kubectl"));
        command.args(["apply", "--dry-run=server", "--validate=strict", "--filename=-"]);
        run_limited(command, manifests, CALL)
    }

    /// An object, as JSON.
    pub fn get(&self, kind: &str, name: &str) -> anyhow::Result<Value> {
        let json = self.run(&["get", kind, name, "--output=json"])?;
        serde_json::from_str(&json).context("read the object")
    }

    /// A token by which brokers know a ServiceAccount.
    #[track_caller]
    pub fn token(&self, service_account: &str) -> String {
        self.expect(&["create", "token", service_account, "--audience=ackwell.dev"]).trim().to_owned()
    }

    /// All objects of a kind that a label selects, as JSON.
    pub fn list(&self, kind: &str, selector: &str) -> anyhow::Result<Vec<Value>> {
        let json = self.run(&["get", kind, "--selector", selector, "--output=json"])?;
        let mut list: Value = serde_json::from_str(&json).context("read the list")?;
        match list["items"].take() {
            Value::Array(items) => Ok(items),
            other => bail!("not a list: {other}"),
        }
    }

    /// Watches until the object (`pod/app`), or all of a kind (`pods --all`), is as `condition` says (`condition=Ready`,
    /// `delete`, `jsonpath=...`).
    #[track_caller]
    pub fn wait(&self, object: &str, condition: &str, limit: Duration) {
        let (condition, seconds) = (format!("--for={condition}"), format!("--timeout={}s", limit.as_secs()));
        let mut args = vec!["wait", &condition, &seconds];
        args.extend(object.split(' '));
        self.limited(&args, "", limit + MARGIN).unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// A command that the caller runs and ends.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(setting("ACKWELL_KUBECTL", "kubectl"));
        command.arg("--namespace").arg(&self.namespace).args(args).stdin(Stdio::null());
        command
    }

    fn limited(&self, args: &[&str], input: &str, limit: Duration) -> anyhow::Result<String> {
        run_limited(self.command(args), input, limit).with_context(|| format!("kubectl {}", args.join(" ")))
    }
}

/// Runs a command to its end, or ends it after `limit`.
pub(super) fn run_limited(mut command: Command, input: &str, limit: Duration) -> anyhow::Result<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {}", command.get_program().display()))?;
    let mut stdin = child.stdin.take().context("it has an input")?;
    let stdout = read(child.stdout.take());
    let stderr = read(child.stderr.take());
    // One that reads nothing closes its input, and says why on its stderr.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let ended = wait_limited(&mut child, limit);
    let printed = |reader: std::thread::JoinHandle<String>| reader.join().expect("reading does not panic");
    let (stdout, stderr) = (printed(stdout), printed(stderr));
    if ended? { Ok(stdout) } else { bail!("{}", stderr.trim()) }
}

/// Whether it succeeded.
fn wait_limited(child: &mut Child, limit: Duration) -> anyhow::Result<bool> {
    let ended = wait::try_until(limit, || child.try_wait().context("wait for it")?.context("it still runs"));
    if let Ok(status) = ended {
        return Ok(status.success());
    }
    child.kill().context("end it")?;
    child.wait().context("wait for its end")?;
    bail!("no end within {limit:?}");
}

fn read(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is still worth showing.
        let _ = pipe.expect("it was piped").read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
