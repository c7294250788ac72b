//! What [`Variables`] say, understood or refused.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use tonic::codegen::http::Uri;
use tonic::metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue};

use super::otlp::KeyValue;
use super::sampler::Sampler;
use super::variables::Variables;

/// Of an endpoint that names none: where collectors listen for OTLP over gRPC.
const DEFAULT_PORT: u16 = 4317;
/// Every export carries them.
const MAX_ATTRIBUTES: usize = 64;
const TIMEOUT_MS: RangeInclusive<u64> = 1..=60_000;
const DELAY_MS: RangeInclusive<u64> = 1..=60_000;
/// About 700 bytes each.
const QUEUE_SPANS: RangeInclusive<u64> = 1..=65_536;
const BATCH_SPANS: RangeInclusive<u64> = 1..=4096;
/// Where systems keep the authorities of the world.
const BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// How spans are recorded and where they go.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) endpoint: Endpoint,
    pub(super) headers: MetadataMap,
    /// Of one try.
    pub(super) timeout: Duration,
    pub(super) resource: Vec<KeyValue>,
    pub(super) sampler: Sampler,
    pub(super) delay: Duration,
    pub(super) queue_spans: usize,
    pub(super) batch_spans: usize,
}

/// A collector.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Endpoint {
    /// `host:port`
    pub(super) address: String,
    /// Authorities of its certificate; `None`: no TLS.
    pub(super) authorities: Option<PathBuf>,
}

impl Variables {
    /// `None`: no spans, which is so until there is an endpoint. The error is for people.
    pub(super) fn parse(&self, service: &str) -> Result<Option<Settings>, String> {
        let endpoint = first(&self.traces_endpoint, &self.endpoint);
        if endpoint.is_empty()
            || self.traces_exporter == "none"
            || self.sdk_disabled.eq_ignore_ascii_case("true")
        {
            return Ok(None);
        }
        check("OTEL_TRACES_EXPORTER", &self.traces_exporter, "otlp")?;
        check("OTEL_EXPORTER_OTLP_PROTOCOL", &self.protocol, "grpc")?;
        Ok(Some(Settings {
            endpoint: self.parse_endpoint(endpoint)?,
            headers: headers(&self.headers)?,
            timeout: millis("OTEL_EXPORTER_OTLP_TIMEOUT", &self.timeout, 10_000, TIMEOUT_MS)?,
            resource: self.resource(service)?,
            sampler: Sampler::parse(&self.sampler, &self.sampler_arg)?,
            delay: millis("OTEL_BSP_SCHEDULE_DELAY", &self.schedule_delay, 5000, DELAY_MS)?,
            queue_spans: count("OTEL_BSP_MAX_QUEUE_SIZE", &self.max_queue_size, 2048, QUEUE_SPANS)?,
            batch_spans: count(
                "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
                &self.max_export_batch_size,
                512,
                BATCH_SPANS,
            )?,
        }))
    }

    fn parse_endpoint(&self, text: &str) -> Result<Endpoint, String> {
        let wrong = || {
            format!("the OTLP endpoint {text:?} is not like http://collector:4317 or https://collector:4317")
        };
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let host = uri.host().ok_or_else(wrong)?;
        let address = format!("{host}:{}", uri.port_u16().unwrap_or(DEFAULT_PORT));
        let authorities = match uri.scheme_str() {
            Some("http") => None,
            Some("https") => Some(self.authorities()?),
            _ => return Err(wrong()),
        };
        Ok(Endpoint { address, authorities })
    }

    fn authorities(&self) -> Result<PathBuf, String> {
        if !self.certificate.is_empty() {
            return Ok(PathBuf::from(&self.certificate));
        }
        let found = BUNDLES.iter().map(PathBuf::from).find(|bundle| bundle.exists());
        found.ok_or_else(|| {
            "an https endpoint needs OTEL_EXPORTER_OTLP_CERTIFICATE, a file with the authorities of its certificate: this \
             system has none"
                .to_owned()
        })
    }

    /// The name that is given wins over the one among the attributes.
    fn resource(&self, service: &str) -> Result<Vec<KeyValue>, String> {
        let said = pairs("OTEL_RESOURCE_ATTRIBUTES", &self.resource_attributes)?;
        let among = said.iter().find(|(key, _)| key == "service.name").map(|(_, value)| value.as_str());
        let name = first(&self.service_name, among.unwrap_or(service)).to_owned();
        let own = [("service.name", name.as_str()), ("service.version", env!("CARGO_PKG_VERSION"))];
        let others = said.iter().filter(|(key, _)| !own.iter().any(|(name, _)| name == key));
        let own = own.iter().map(|(key, value)| KeyValue::new(key, *value));
        Ok(own.chain(others.map(|(key, value)| KeyValue::new(key, value.as_str()))).collect())
    }
}

fn first<'a>(one: &'a str, other: &'a str) -> &'a str {
    if one.is_empty() { other } else { one }
}

fn check(name: &str, value: &str, only: &str) -> Result<(), String> {
    if value.is_empty() || value == only {
        return Ok(());
    }
    Err(format!("{name} is {value:?}: only {only} is spoken; with it, name a port of the collector for that"))
}

fn headers(text: &str) -> Result<MetadataMap, String> {
    let mut headers = MetadataMap::new();
    for (key, value) in pairs("OTEL_EXPORTER_OTLP_HEADERS", text)? {
        // What they say may be a secret: it is not repeated.
        let wrong = || format!("OTEL_EXPORTER_OTLP_HEADERS: the header {key:?} or its value cannot be sent");
        let name: MetadataKey<Ascii> = key.to_ascii_lowercase().parse().map_err(|_| wrong())?;
        let mut value: MetadataValue<Ascii> = value.parse().map_err(|_| wrong())?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

/// `key=value,key=value`, with percent-encoding in values.
fn pairs(name: &str, text: &str) -> Result<Vec<(String, String)>, String> {
    let wrong = || format!("{name} is not like key=value,key=value, with %2C for a comma in a value");
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=').ok_or_else(wrong)?;
        let key = key.trim();
        let value = decode(value.trim()).ok_or_else(wrong)?;
        if key.is_empty() { Err(wrong()) } else { Ok((key.to_owned(), value)) }
    };
    let parsed: Vec<_> =
        text.split(',').filter(|part| !part.trim().is_empty()).map(pair).collect::<Result<_, _>>()?;
    if parsed.len() > MAX_ATTRIBUTES {
        return Err(format!("{name} has {} entries; at most {MAX_ATTRIBUTES} are taken", parsed.len()));
    }
    Ok(parsed)
}

fn decode(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

fn millis(name: &str, text: &str, default: u64, range: RangeInclusive<u64>) -> Result<Duration, String> {
    number(name, text, default, range).map(Duration::from_millis)
}

fn count(name: &str, text: &str, default: u64, range: RangeInclusive<u64>) -> Result<usize, String> {
    number(name, text, default, range).map(|number| usize::try_from(number).unwrap_or(usize::MAX))
}

fn number(name: &str, text: &str, default: u64, range: RangeInclusive<u64>) -> Result<u64, String> {
    let number = if text.is_empty() { Some(default) } else { text.trim().parse().ok() };
    let (least, most) = (range.start(), range.end());
    let wrong = || format!("{name} is {text:?}: a whole number from {least} to {most} is needed");
    number.filter(|number| range.contains(number)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        Variables { endpoint: "http://collector:4317".to_owned(), ..Variables::default() }
    }

    fn parse(change: impl FnOnce(&mut Variables)) -> Result<Option<Settings>, String> {
        let mut variables = variables();
        change(&mut variables);
        variables.parse("ackwell-broker")
    }

    /// Promise: nothing is recorded or dialled until somebody says where to.
    #[test]
    fn traces_are_off_until_there_is_an_endpoint() {
        assert!(Variables::default().parse("x").unwrap().is_none());
        assert!(parse(|v| v.sdk_disabled = "true".to_owned()).unwrap().is_none());
        assert!(parse(|v| v.traces_exporter = "none".to_owned()).unwrap().is_none());
        assert!(parse(|_| {}).unwrap().is_some());
    }

    #[test]
    fn endpoint_says_whether_there_is_tls() {
        let endpoint =
            |text: &str| parse(|v| v.traces_endpoint = text.to_owned()).map(|it| it.unwrap().endpoint);
        assert_eq!(
            endpoint("http://otel").unwrap(),
            Endpoint { address: "otel:4317".to_owned(), authorities: None }
        );
        let secure = parse(|v| {
            v.endpoint = "https://[::1]:443".to_owned();
            v.certificate = "/ca".to_owned();
        });
        let expected = Endpoint { address: "[::1]:443".to_owned(), authorities: Some("/ca".into()) };
        assert_eq!(secure.unwrap().unwrap().endpoint, expected);
        for wrong in ["collector:4317", "ftp://collector", "http://", "/v1/traces"] {
            assert!(endpoint(wrong).unwrap_err().contains("http://collector:4317"), "{wrong}");
        }
    }

    #[test]
    fn resource_names_the_service() {
        let resource = |name: &str, attributes: &str| {
            let settings = parse(|v| {
                v.service_name = name.to_owned();
                v.resource_attributes = attributes.to_owned();
            });
            settings.map(|settings| settings.unwrap().resource)
        };
        let pair = |key, value: &str| KeyValue::new(key, value);
        let version = pair("service.version", env!("CARGO_PKG_VERSION"));
        assert_eq!(resource("", "").unwrap(), [pair("service.name", "ackwell-broker"), version.clone()]);
        assert_eq!(resource("", "service.name=b").unwrap()[0], pair("service.name", "b"));
        let all = resource("a", "service.name=b, k8s.pod.name=p%2C1").unwrap();
        assert_eq!(all, [pair("service.name", "a"), version, pair("k8s.pod.name", "p,1")]);
        for wrong in ["a", "=b", "a=%z1", "a=%ff"] {
            resource("", wrong).unwrap_err();
        }
        resource("", &"a=b,".repeat(65)).unwrap_err();
    }

    /// A key for the collector does not get into a log.
    #[test]
    fn headers_are_not_shown() {
        let settings =
            parse(|v| v.headers = "x-api-key=s3cret,Authorization=Basic%20abc".to_owned()).unwrap().unwrap();
        assert_eq!(settings.headers.get("authorization").unwrap(), "Basic abc");
        let shown = format!("{:?}", settings.headers);
        assert!(!shown.contains("s3cret") && !shown.contains("abc"), "{shown}");
        let error = parse(|v| v.headers = "bad key=s3cret".to_owned()).unwrap_err();
        assert!(!error.contains("s3cret"), "{error}");
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        for (change, said) in [
            ((|v| v.protocol = "http/protobuf".to_owned()) as fn(&mut Variables), "only grpc"),
            (|v| v.traces_exporter = "zipkin".to_owned(), "only otlp"),
            (|v| v.timeout = "10s".to_owned(), "OTEL_EXPORTER_OTLP_TIMEOUT"),
            (|v| v.max_queue_size = "0".to_owned(), "OTEL_BSP_MAX_QUEUE_SIZE"),
            (|v| v.sampler = "x".to_owned(), "OTEL_TRACES_SAMPLER"),
        ] {
            let error = parse(change).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}
