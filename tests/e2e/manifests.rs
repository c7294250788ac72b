//! What tests apply besides the examples.

use ackwell_tests::cluster::image;

/// A small Queue `orders`: two attempts, a second apart; the ServiceAccounts of its namespace may do everything.
pub(crate) const ORDERS: &str = "
apiVersion: ackwell.dev/v1alpha1
kind: Queue
metadata: {name: orders}
spec:
  storage: {size: 256Mi}
  clients: [{verbs: [send, consume, peek, admin]}]
  delivery: {maxAttempts: 2, backoff: {policy: Constant, minSeconds: 1, maxSeconds: 1}}
";

/// A pod with a sidecar that is there to be called from outside: its application does nothing.
pub(crate) fn idle_pod(name: &str) -> String {
    // The one program in our images that runs without anything to do: a sidecar that nobody calls.
    let args = ["sidecar", "--namespace=idle", "--listen=127.0.0.1:7401", "--http=127.0.0.1:7411"];
    let spec = spec("ackwelld", &args, 0);
    format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n{}{spec}", metadata(2))
}

/// A pod with a sidecar whose application does not end when it is asked to: as the first process of its container, it does
/// not hear a signal that it did not ask for. It polls the Queue `none`.
pub(crate) fn stubborn_pod(name: &str, grace_seconds: u64) -> String {
    let spec = spec("ackwell", &["receive", "none", "--wait=1h"], 0);
    let spec =
        spec.replacen("spec:\n", &format!("spec:\n  terminationGracePeriodSeconds: {grace_seconds}\n"), 1);
    let metadata = metadata(2).replace("queues: orders", "queues: 'orders,none'");
    format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n{metadata}{spec}")
}

/// A Job with a sidecar whose application is one `ackwell` command; it is not tried again.
pub(crate) fn job(name: &str, args: &[&str]) -> String {
    let template = format!("    metadata:\n{}{}", metadata(6), spec("ackwell", args, 4));
    format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec:\n  backoffLimit: 0\n  template:\n{template}"
    )
}

fn metadata(indent: usize) -> String {
    let pad = " ".repeat(indent);
    format!(
        "{pad}labels: {{ackwell.dev/inject: \"true\"}}\n{pad}annotations: {{ackwell.dev/queues: orders}}\n"
    )
}

fn spec(image_name: &str, args: &[&str], indent: usize) -> String {
    let (pad, image) = (" ".repeat(indent), image(image_name));
    let args = serde_json::to_string(args).unwrap();
    format!(
        "{pad}spec:\n\
         {pad}  restartPolicy: Never\n\
         {pad}  securityContext: {{runAsNonRoot: true, seccompProfile: {{type: RuntimeDefault}}}}\n\
         {pad}  containers:\n\
         {pad}  - name: app\n\
         {pad}    image: {image}\n\
         {pad}    args: {args}\n\
         {pad}    securityContext: {{allowPrivilegeEscalation: false, capabilities: {{drop: [ALL]}}}}\n"
    )
}
