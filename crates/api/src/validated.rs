//! A Queue whose every rule holds.

use ackwell_proto::QueueName;
use ackwell_proto::v1::{self, Grant, QueueConfig, QueueSettings};
use k8s_openapi::api::core::v1::PodSpec;
use kube::Resource;
use serde_json::Value;

use crate::schema::{self, Violation};
use crate::spec::{Backoff, BackoffPolicy, Client, ExpiredPolicy, Queue, QueueSpec, Verb};
use crate::template::{Template, TemplateMetadata};
use crate::{names, parse_bytes, rules};

/// Namespace of a manifest that names none.
const DEFAULT_NAMESPACE: &str = "default";

/// Room for changes of one Queue below the second in which it was made: a change each second for 12 days would fill it.
const GENERATION_BITS: u32 = 20;

/// A Queue whose every rule holds: of the schema, and between fields.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedQueue {
    name: QueueName,
    settings: QueueSettings,
    /// Large, and mostly not there.
    template: Option<Box<PodTemplate>>,
    /// What is wrong with the template, if it could not be read.
    not_a_pod: Vec<Violation>,
    queue: Queue,
}

/// What the pods of an Embedded Queue are besides the broker.
#[derive(Clone, Debug, PartialEq)]
pub struct PodTemplate {
    /// Labels and annotations, as they were written.
    pub metadata: TemplateMetadata,
    /// The application's containers and what they need.
    pub spec: PodSpec,
}

/// Why a manifest is not a valid Queue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQueue {
    /// Something else.
    #[error("this is {0}, not a Queue of ackwell.dev/v1alpha1")]
    OtherKind(String),
    /// A Queue that breaks rules: all of them are listed.
    #[error("queue {name:?} is not valid: {}", list(violations))]
    Violations {
        /// `metadata.name`.
        name: String,
        /// What is wrong, field by field.
        violations: Vec<Violation>,
    },
    /// The schema accepts it and the types do not.
    #[error("queue {name:?} cannot be read: {message}")]
    Unreadable {
        /// `metadata.name`.
        name: String,
        /// Where and why.
        message: String,
    },
}

impl ValidatedQueue {
    /// Reads a manifest as the API server would: defaults filled in, everything it would refuse refused, unknown fields
    /// too. A manifest without a namespace is in `default`.
    pub fn from_manifest(manifest: &Value) -> Result<Self, InvalidQueue> {
        if manifest["kind"] != *Queue::kind(&()) || manifest["apiVersion"] != *Queue::api_version(&()) {
            let word = |field: &str| manifest[field].as_str().unwrap_or("?").to_owned();
            return Err(InvalidQueue::OtherKind(format!("{} of {}", word("kind"), word("apiVersion"))));
        }
        let name = manifest["metadata"]["name"].as_str().unwrap_or_default();
        refuse(name, schema::violations(manifest))?;
        let unreadable = |error: serde_json::Error| InvalidQueue::Unreadable {
            name: name.to_owned(),
            message: error.to_string(),
        };
        let queue: Queue = serde_json::from_value(manifest.clone()).map_err(unreadable)?;
        refuse(name, rules::broken(&queue))?;
        let queue = Self::assume_valid(queue)?;
        queue.assert_pod()?;
        Ok(queue)
    }

    /// The same as [`Self::try_from`], but for a template that is no pod: the rest of the Queue is valid all the same.
    pub fn with_any_template(queue: Queue) -> Result<Self, InvalidQueue> {
        let name = queue.metadata.name.clone().unwrap_or_default();
        let value = serde_json::to_value(&queue)
            .map_err(|error| InvalidQueue::Unreadable { name: name.clone(), message: error.to_string() })?;
        refuse(&name, schema::violations(&value).into_iter().chain(rules::broken(&queue)).collect())?;
        Self::assume_valid(queue)
    }

    /// Refuses a template that is no pod.
    pub fn assert_pod(&self) -> Result<(), InvalidQueue> {
        refuse(self.name.name(), self.not_a_pod.clone())
    }

    /// Namespace and name.
    pub fn name(&self) -> &QueueName {
        &self.name
    }

    /// As it was written, defaults filled in.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// What the user asks for.
    pub fn spec(&self) -> &QueueSpec {
        &self.queue.spec
    }

    /// The application beside each broker, if there is one and it can be read.
    pub fn template(&self) -> Option<&PodTemplate> {
        self.template.as_deref()
    }

    /// Whether there is an application beside each broker.
    pub fn is_embedded(&self) -> bool {
        self.queue.spec.template.is_some()
    }

    /// Grows with every change of the spec, also when the Queue was deleted and made again: its brokers find their
    /// volumes again, and on them the generation of the Queue before. 0 outside of a cluster.
    pub fn generation(&self) -> u64 {
        let metadata = &self.queue.metadata;
        let created = metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
        let number = |value: i64| u64::try_from(value).unwrap_or(0);
        (number(created) << GENERATION_BITS) + number(metadata.generation.unwrap_or(0))
    }

    /// The generation of the spec that is in one of [`Self::generation`]; `None`: it is of another Queue of this name.
    pub fn spec_generation(&self, generation: u64) -> Option<i64> {
        let number = generation & ((1 << GENERATION_BITS) - 1);
        (generation >> GENERATION_BITS == self.generation() >> GENERATION_BITS)
            .then(|| i64::try_from(number).unwrap_or(i64::MAX))
    }

    /// Who may do what.
    pub fn grants(&self) -> Vec<Grant> {
        let grant = |client: &Client| Grant {
            namespace: client.namespace.clone().unwrap_or_else(|| self.name.namespace().to_owned()),
            service_account: client.service_account.clone().unwrap_or_default(),
            verbs: client.verbs.iter().map(|verb| wire(*verb).into()).collect(),
        };
        let own = Client { service_account: None, namespace: None, verbs: vec![Verb::Send, Verb::Consume] };
        match self.queue.spec.clients.as_slice() {
            [] => vec![grant(&own)],
            clients => clients.iter().map(grant).collect(),
        }
    }

    /// What a broker is told. `shard_addresses` is empty where one process serves the whole queue.
    pub fn config(&self, shard_addresses: Vec<String>) -> QueueConfig {
        QueueConfig {
            namespace: self.name.namespace().to_owned(),
            name: self.name.name().to_owned(),
            generation: self.generation(),
            shard_addresses,
            settings: Some(self.settings),
            access: None,
            placement: None,
            restoring: false,
        }
    }

    /// The addresses of the first `shards` shards in a cluster, by ordinal.
    pub fn shard_addresses(&self, shards: u32) -> Vec<String> {
        let address = |ordinal| names::shard_address(self.name.namespace(), self.name.name(), ordinal);
        (0..shards).map(address).collect()
    }

    /// The caller has asserted the rules.
    fn assume_valid(queue: Queue) -> Result<Self, InvalidQueue> {
        let text = queue.metadata.name.as_deref().unwrap_or_default();
        let namespace = queue.metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
        let invalid = |message: String| InvalidQueue::Unreadable { name: text.to_owned(), message };
        let name = QueueName::parse(text, namespace).map_err(|error| invalid(error.to_string()))?;
        let settings = settings(&queue.spec).map_err(|error| invalid(error.to_string()))?;
        let (template, not_a_pod) = match queue.spec.template.as_ref().map(read).transpose() {
            Ok(template) => (template.map(Box::new), Vec::new()),
            Err(violations) => (None, violations),
        };
        Ok(Self { name, settings, template, not_a_pod, queue })
    }
}

impl TryFrom<Queue> for ValidatedQueue {
    type Error = InvalidQueue;

    fn try_from(queue: Queue) -> Result<Self, Self::Error> {
        let queue = Self::with_any_template(queue)?;
        queue.assert_pod()?;
        Ok(queue)
    }
}

fn read(template: &Template) -> Result<PodTemplate, Vec<Violation>> {
    Ok(PodTemplate { metadata: template.metadata.clone(), spec: template.read()? })
}

fn refuse(name: &str, violations: Vec<Violation>) -> Result<(), InvalidQueue> {
    if violations.is_empty() {
        return Ok(());
    }
    Err(InvalidQueue::Violations { name: name.to_owned(), violations })
}

fn list(violations: &[Violation]) -> String {
    violations.iter().map(Violation::to_string).collect::<Vec<_>>().join("; ")
}

fn settings(spec: &QueueSpec) -> Result<QueueSettings, crate::InvalidBytes> {
    let QueueSpec { delivery, limits, retention, .. } = spec;
    Ok(QueueSettings {
        ack_timeout_seconds: delivery.ack_timeout_seconds,
        max_processing_seconds: delivery.max_processing_seconds,
        max_attempts: delivery.max_attempts,
        backoff: Some(backoff(&delivery.backoff)),
        max_messages: limits.max_messages,
        max_bytes: parse_bytes(&limits.max_bytes)?,
        max_message_bytes: parse_bytes(&limits.max_message_bytes)?,
        max_in_flight: limits.max_in_flight,
        dead_seconds: retention.dead_seconds,
        dedup_window_seconds: retention.dedup_window_seconds,
        dead_letter_expired: match retention.expired {
            ExpiredPolicy::DeadLetter => true,
            ExpiredPolicy::Drop => false,
        },
    })
}

fn wire(verb: Verb) -> v1::Verb {
    match verb {
        Verb::Send => v1::Verb::Send,
        Verb::Consume => v1::Verb::Consume,
        Verb::Peek => v1::Verb::Peek,
        Verb::Admin => v1::Verb::Admin,
    }
}

fn backoff(backoff: &Backoff) -> v1::Backoff {
    let policy = match backoff.policy {
        BackoffPolicy::Constant => v1::BackoffPolicy::Constant,
        BackoffPolicy::Linear => v1::BackoffPolicy::Linear,
        BackoffPolicy::Exponential => v1::BackoffPolicy::Exponential,
    };
    v1::Backoff { policy: policy.into(), min_seconds: backoff.min_seconds, max_seconds: backoff.max_seconds }
}

#[cfg(test)]
mod tests;
