//! A collector of OpenTelemetry: the protocol as its own project generates it, so that what we write by hand is seen by others'
//! eyes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::ensure;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataMap;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::certificates::Shown;
use crate::wait;

/// Spans arrive well within this, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// What a collector does with an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Takes it.
    Takes,
    /// Never answers.
    Hangs,
    /// Says that it never will.
    Refuses,
}

/// A collector that listens.
#[derive(Clone)]
pub struct Collector {
    address: SocketAddr,
    received: Arc<Mutex<Received>>,
}

struct Received {
    manner: Manner,
    exports: Vec<(MetadataMap, ExportTraceServiceRequest)>,
    asked: usize,
}

/// A span, and who said it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Of its service.
    pub service: String,
    /// The span itself.
    pub span: Span,
}

impl Collector {
    /// Starts one in this process.
    pub async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a machine has a free port");
        let address = listener.local_addr().expect("it is bound");
        let received = Received { manner, exports: Vec::new(), asked: 0 };
        let collector = Self { address, received: Arc::new(Mutex::new(received)) };
        let server = Server::builder().add_service(TraceServiceServer::new(collector.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        collector
    }

    /// Where the same one is reached with TLS, showing this certificate.
    pub async fn behind_tls(&self, shown: &Shown) -> SocketAddr {
        let (plain, acceptor) = (self.address, TlsAcceptor::from(Arc::new(shown.server())));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a machine has a free port");
        let address = listener.local_addr().expect("it is bound");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // Who does not trust us is gone; nobody else is to notice.
                let Ok(mut near) = acceptor.accept(stream).await else { continue };
                let mut far = TcpStream::connect(plain).await.expect("the collector listens");
                tokio::spawn(async move { copy_bidirectional(&mut near, &mut far).await });
            }
        });
        address
    }

    /// Arguments that let a process say everything here, so long after it happened.
    pub fn arguments(&self, delay: Duration) -> Vec<String> {
        let (endpoint, delay) = (format!("http://{}", self.address), delay.as_millis().to_string());
        let arguments = ["--otel-exporter-otlp-endpoint", &endpoint, "--otel-bsp-schedule-delay", &delay];
        arguments.map(str::to_owned).to_vec()
    }

    /// Everything that arrived.
    pub fn spans(&self) -> Vec<Seen> {
        let received = self.lock();
        let resources = received.exports.iter().flat_map(|(_, export)| &export.resource_spans);
        let seen = resources.flat_map(|resource| {
            let attributes = resource.resource.as_ref().map_or(&[][..], |it| &it.attributes);
            let service = text(attributes, "service.name").unwrap_or_default();
            let spans = resource.scope_spans.iter().flat_map(|scope| &scope.spans);
            spans.map(move |span| Seen { service: service.clone(), span: span.clone() })
        });
        seen.collect()
    }

    /// Waits until there are so many.
    pub async fn wait_for(&self, count: usize) -> Vec<Seen> {
        wait::until_async("spans", LIMIT, async || {
            let spans = self.spans();
            ensure!(spans.len() >= count, "{} of {count}: {:#?}", spans.len(), names(&spans));
            Ok(spans)
        })
        .await
    }

    /// How often it was asked to take something, whatever it did.
    pub fn asked(&self) -> usize {
        self.lock().asked
    }

    /// All that arrived, as it was encoded, with what was said beside it.
    pub fn raw(&self) -> Vec<u8> {
        let received = self.lock();
        let exports = received.exports.iter();
        exports
            .flat_map(|(metadata, export)| {
                [export.encode_to_vec(), format!("{metadata:?}").into_bytes()].concat()
            })
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// A text among its attributes.
    pub fn text(&self, key: &str) -> Option<String> {
        text(&self.span.attributes, key)
    }

    /// A number among its attributes.
    pub fn number(&self, key: &str) -> Option<i64> {
        match value(&self.span.attributes, key) {
            Some(Value::IntValue(number)) => Some(*number),
            _ => None,
        }
    }

    /// Whether it is a child of the other.
    pub fn is_child_of(&self, other: &Span) -> bool {
        self.span.trace_id == other.trace_id && self.span.parent_span_id == other.span_id
    }
}

/// `service/name` of each, sorted.
pub fn names(spans: &[Seen]) -> Vec<String> {
    let mut names: Vec<_> =
        spans.iter().map(|seen| format!("{}: {}", seen.service, seen.span.name)).collect();
    names.sort();
    names
}

fn value<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match &found.value {
        Some(AnyValue { value }) => value.as_ref(),
        None => None,
    }
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    match value(attributes, key) {
        Some(Value::StringValue(text)) => Some(text.clone()),
        _ => None,
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let manner = {
            let mut received = self.lock();
            received.asked += 1;
            received.manner
        };
        match manner {
            Manner::Hangs => std::future::pending().await,
            Manner::Refuses => Err(Status::permission_denied("not yours")),
            Manner::Takes => {
                let (metadata, _, export) = request.into_parts();
                self.lock().exports.push((metadata, export));
                Ok(Response::new(ExportTraceServiceResponse::default()))
            }
        }
    }
}
