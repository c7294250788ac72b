//! The cluster, asked as `kubectl` would ask it: with the person's own kubeconfig and rights.
//!
//! Objects are JSON as the API server has it, not types: a cluster that is newer or older than this program can be looked
//! at all the same.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use ackwell_proto::QueueName;
use anyhow::{Context, anyhow, bail};
use clap::Args;
use http::Request;
use kube::config::KubeConfigOptions;
use kube::{Client, Config, Error};
use serde_json::Value;

/// An API server answers within a second; one that is far away and busy, later.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often an object is made, where it is not known whether it was.
const CREATE_ATTEMPTS: u32 = 3;
/// Between two of these.
const PAUSE: Duration = Duration::from_secs(1);
/// Objects in one answer.
const PAGE: usize = 500;
/// Answers to one question: 20,000 objects.
const MAX_PAGES: usize = 40;
/// Who wrote a field, as `kubectl get --show-managed-fields` tells.
const FIELD_MANAGER: &str = "ackwell-cli";

/// Which cluster, and where in it.
#[derive(Args, Clone)]
pub(crate) struct Place {
    /// Namespace of the queue; else that of its name (shop/orders), else that of the context.
    #[arg(long, short, value_name = "NAME", value_parser = namespace)]
    namespace: Option<String>,

    /// Context of the kubeconfig; else the current one.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

/// A namespace of a cluster.
#[derive(Clone)]
pub(crate) struct Cluster {
    client: Client,
    namespace: String,
}

/// What the API server calls a kind of objects.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    api: &'static str,
    plural: &'static str,
}

pub(crate) const QUEUES: Kind = Kind::new("apis/ackwell.dev/v1alpha1", "queues");
pub(crate) const TASKS: Kind = Kind::new("apis/ackwell.dev/v1alpha1", "queuetasks");
pub(crate) const PODS: Kind = Kind::new("api/v1", "pods");
pub(crate) const CLAIMS: Kind = Kind::new("api/v1", "persistentvolumeclaims");
pub(crate) const EVENTS: Kind = Kind::new("api/v1", "events");

impl Kind {
    pub(crate) const fn new(api: &'static str, plural: &'static str) -> Self {
        Self { api, plural }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.plural)
    }
}

/// A namespace becomes a part of a path.
fn namespace(text: &str) -> Result<String, String> {
    let is_name = !text.contains('/') && QueueName::parse(&format!("{text}/queue"), "").is_ok();
    if is_name { Ok(text.to_owned()) } else { Err("use the name of a namespace, like shop".to_owned()) }
}

/// `orders` of `orders` and of `shop/orders`.
pub(crate) fn short_name(queue: &str) -> &str {
    queue.rsplit('/').next().unwrap_or(queue)
}

impl Place {
    /// Whether a cluster is meant at all.
    pub(crate) fn is_named(&self) -> bool {
        self.namespace.is_some() || self.context.is_some()
    }

    /// Reads the kubeconfig; nobody is asked yet.
    pub(crate) async fn open(&self, queue: Option<&str>) -> anyhow::Result<Cluster> {
        let of_name = queue.and_then(|queue| Some(queue.split_once('/')?.0));
        if let (Some(said), Some(named)) = (&self.namespace, of_name)
            && said != named
        {
            bail!("--namespace says {said}, and the name of the queue says {named}: use one of them");
        }
        let config = self.config().await?;
        let of_line = self.namespace.as_deref().or(of_name);
        let namespace = of_line.unwrap_or(&config.default_namespace).to_owned();
        let client = Client::try_from(config).context("use the kubeconfig")?;
        Ok(Cluster { client, namespace })
    }

    async fn config(&self) -> anyhow::Result<Config> {
        if self.context.is_none() {
            // Why this is no pod of a cluster either is of no use to a person.
            return Config::infer().await.map_err(|error| no_cluster(error.source().unwrap_or(&error)));
        }
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        Config::from_kubeconfig(&options).await.map_err(|error| no_cluster(&error))
    }
}

impl Cluster {
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(crate) fn in_namespace(&self, namespace: &str) -> Self {
        Self { client: self.client.clone(), namespace: namespace.to_owned() }
    }

    /// An object, if there is one of this name.
    pub(crate) async fn find(&self, kind: Kind, name: &str) -> anyhow::Result<Option<Value>> {
        let request = Request::get(self.path(kind, name)).body(Vec::new())?;
        match limited(self.client.request(request)).await? {
            Ok(object) => Ok(Some(object)),
            Err(Error::Api(status)) if status.code == 404 && status.reason == "NotFound" => Ok(None),
            Err(error) => Err(told(error)),
        }
    }

    /// The queue of this name, without which there is nothing to do.
    pub(crate) async fn queue(&self, queue: &str) -> anyhow::Result<Value> {
        let name = short_name(queue);
        self.find(QUEUES, name).await?.with_context(|| no_queue(&self.namespace, name))
    }

    /// Those with these labels; all, if there are none.
    pub(crate) async fn list(&self, kind: Kind, labels: &str) -> anyhow::Result<Vec<Value>> {
        let (mut items, mut next) = (Vec::new(), String::new());
        for _ in 0..MAX_PAGES {
            let query = format!("?limit={PAGE}&labelSelector={labels}&continue={next}");
            let request = Request::get(self.path(kind, &query)).body(Vec::new())?;
            let mut page: Value = limited(self.client.request(request)).await?.map_err(told)?;
            if let Value::Array(more) = page["items"].take() {
                items.extend(more);
            }
            page["metadata"]["continue"].as_str().unwrap_or_default().clone_into(&mut next);
            if next.is_empty() {
                return Ok(items);
            }
        }
        bail!("{} has more than {} {kind}", self.namespace, PAGE * MAX_PAGES)
    }

    /// Changes fields of an object, and answers with all of it.
    pub(crate) async fn merge(&self, kind: Kind, name: &str, change: &Value) -> anyhow::Result<Value> {
        let path = self.path(kind, &format!("{name}?fieldManager={FIELD_MANAGER}"));
        let request = Request::patch(path)
            .header("content-type", "application/merge-patch+json")
            .body(serde_json::to_vec(change)?)?;
        limited(self.client.request(request)).await?.map_err(told)
    }

    /// Makes an object whose name nobody else gives. A call that was perhaps heard is repeated; one that was, is not done twice.
    pub(crate) async fn create_once(&self, kind: Kind, name: &str, object: &Value) -> anyhow::Result<()> {
        let path = self.path(kind, &format!("?fieldManager={FIELD_MANAGER}"));
        let body = serde_json::to_vec(object)?;
        let mut attempts_left = CREATE_ATTEMPTS;
        loop {
            attempts_left -= 1;
            let request = Request::post(&path).header("content-type", "application/json");
            let call = self.client.request::<Value>(request.body(body.clone())?);
            let unheard = match limited(call).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(Error::Api(status))) if status.reason == "AlreadyExists" => return Ok(()),
                Ok(Err(error @ Error::Api(_))) => return Err(told(error)),
                Ok(Err(error)) => told(error),
                Err(timeout) => timeout,
            };
            if attempts_left == 0 {
                return Err(unheard.context(format!("whether {name} was made is not known")));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// What a pod's subresource answers, like its log.
    pub(crate) async fn of_pod(&self, pod: &str, rest: &str) -> anyhow::Result<String> {
        self.text(&self.path(PODS, &format!("{pod}/{rest}"))).await
    }

    /// What the API server answers on `path`.
    pub(crate) async fn text(&self, path: &str) -> anyhow::Result<String> {
        let request = Request::get(path).body(Vec::new())?;
        limited(self.client.request_text(request)).await?.map_err(told)
    }

    fn path(&self, kind: Kind, rest: &str) -> String {
        let all = format!("/{}/namespaces/{}/{}", kind.api, self.namespace, kind.plural);
        if rest.starts_with('?') { format!("{all}{rest}") } else { format!("{all}/{rest}") }
    }
}

/// Whether a pod serves.
pub(crate) fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    let is_it = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
    conditions.is_some_and(|conditions| conditions.iter().any(is_it))
}

/// What is said when a name leads nowhere.
pub(crate) fn no_queue(namespace: &str, name: &str) -> String {
    format!("there is no queue {name} in the namespace {namespace}; --namespace names another")
}

async fn limited<T>(call: impl Future<Output = T>) -> anyhow::Result<T> {
    tokio::time::timeout(PATIENCE, call)
        .await
        .map_err(|_| anyhow!("the API server did not answer within {PATIENCE:?}"))
}

/// As `kubectl` would say it.
fn told(error: Error) -> anyhow::Error {
    match error {
        Error::Api(status) if status.code == 404 && status.reason != "NotFound" => {
            anyhow!("the cluster does not know this kind of object; is Ackwell installed?")
        }
        Error::Api(status) => anyhow!("{}", status.message),
        other => {
            // The errors around the cause only say that it was a request.
            let error = anyhow::Error::from(other);
            let why = error.root_cause();
            anyhow!("the API server could not be asked: {why}; `kubectl cluster-info` asks the same one")
        }
    }
}

fn no_cluster(why: &dyn StdError) -> anyhow::Error {
    anyhow!("no cluster is known: {why}; KUBECONFIG or ~/.kube/config names it, as for kubectl")
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// It becomes a part of a path: nobody gets elsewhere by it.
    #[test]
    fn namespaces_are_names() {
        assert_eq!(namespace("shop-1"), Ok("shop-1".to_owned()));
        for wrong in ["", "Shop", "a/b", "../x", "a?b", "a b"] {
            assert!(namespace(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn queue_has_a_short_name() {
        assert_eq!((short_name("orders"), short_name("shop/orders")), ("orders", "orders"));
    }

    /// Answers the second connection only, with what the first one did.
    async fn deaf(listener: TcpListener) -> String {
        drop(listener.accept().await.unwrap());
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = String::new();
        while !asked.ends_with("}}") {
            let mut part = [0; 1024];
            let read = stream.read(&mut part).await.unwrap();
            asked.push_str(str::from_utf8(&part[..read]).unwrap());
        }
        let body = r#"{"status":"Failure","message":"exists","reason":"AlreadyExists","code":409}"#;
        let head = "HTTP/1.1 409 Conflict\r\ncontent-type: application/json\r\nconnection: close";
        let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
        asked
    }

    /// Promise: an order of which the answer was lost is given once.
    #[tokio::test]
    async fn object_is_made_once_whether_or_not_the_answer_was_heard() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let server = (tokio::spawn(deaf(listener)), Client::try_from(Config::new(server)).unwrap());
        let cluster = Cluster { client: server.1, namespace: "shop".to_owned() };
        let object = serde_json::json!({"metadata": {"name": "redrive-orders-1"}});
        cluster.create_once(TASKS, "redrive-orders-1", &object).await.unwrap();
        let asked = server.0.await.unwrap();
        assert!(asked.starts_with("POST /apis/ackwell.dev/v1alpha1/namespaces/shop/queuetasks?"), "{asked}");
    }
}
