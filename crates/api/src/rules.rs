//! Rules between fields: each a CEL expression for the API server and a check for manifests read elsewhere, with one
//! message. `tests` asserts that both agree.

use crate::schema::Violation;
use crate::spec::{Client, Queue, QueueSpec};
use crate::{parse_bytes, template};

/// CEL expression and message.
pub(crate) type Rule = (&'static str, &'static str);

pub(crate) const NAME: Rule = (
    "size(self.metadata.name) <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
    "metadata.name must have at most 40 characters of a-z, 0-9 and -, start with a letter and not end with -",
);
pub(crate) const BYTES_FIT_VOLUME: Rule = (
    "quantity(string(self.limits.maxBytes)).compareTo(quantity(string(self.storage.size))) <= 0",
    "limits.maxBytes must not be larger than storage.size",
);
pub(crate) const SIZE_MINIMUM: Rule =
    ("quantity(string(self.size)).compareTo(quantity('256Mi')) >= 0", "storage.size must be at least 256Mi");
/// Compares with the old object, so that it never stands in the way of a write of the status.
pub(crate) const SIZE_SHRINKS: Rule = (
    "quantity(string(self.spec.storage.size)).compareTo(quantity(string(oldSelf.spec.storage.size))) >= 0 || \
     (has(self.status) && has(self.status.storage) && has(self.status.storage.floor) && \
     quantity(string(self.spec.storage.size)).compareTo(quantity(string(self.status.storage.floor))) >= 0)",
    "storage.size cannot shrink below what all volumes have, which is status.storage.floor: make a new Queue with a \
     smaller size and move to it",
);
pub(crate) const CLASS_CHANGES: Rule = (
    "has(self.className) == has(oldSelf.className) && (!has(self.className) || self.className == oldSelf.className)",
    "storage.className cannot be changed: the volumes exist; make a new Queue instead",
);
pub(crate) const ACCESS_MODE_CHANGES: Rule = (
    "self.accessMode == oldSelf.accessMode",
    "storage.accessMode cannot be changed: the volumes exist; make a new Queue instead",
);
pub(crate) const ENCRYPTION_CHANGES: Rule = (
    "has(self.encryption) == has(oldSelf.encryption)",
    "spec.encryption can only be given when the Queue is made, and not be taken away: what was written in clear would stay on \
     the volumes; make a new Queue and move to it",
);
pub(crate) const PROCESSING_COVERS_ACK: Rule = (
    "self.maxProcessingSeconds >= self.ackTimeoutSeconds",
    "delivery.maxProcessingSeconds must not be smaller than delivery.ackTimeoutSeconds",
);
pub(crate) const BACKOFF_ORDER: Rule = (
    "self.backoff.maxSeconds >= self.backoff.minSeconds",
    "delivery.backoff.maxSeconds must not be smaller than delivery.backoff.minSeconds",
);
pub(crate) const MESSAGE_BYTES: Rule = (
    "quantity(string(self.maxMessageBytes)).compareTo(quantity('1')) >= 0 && \
     quantity(string(self.maxMessageBytes)).compareTo(quantity('16Mi')) <= 0",
    "limits.maxMessageBytes must be 1 to 16Mi",
);
pub(crate) const ONE_WORK: Rule = (
    "[has(self.redrive), has(self.purge), has(self.backup)].filter(given, given).size() == 1",
    "spec must have exactly one of redrive, purge and backup",
);
pub(crate) const TASK_CHANGES: Rule = (
    "self.queueName == oldSelf.queueName && \
     has(self.redrive) == has(oldSelf.redrive) && (!has(self.redrive) || self.redrive == oldSelf.redrive) && \
     has(self.purge) == has(oldSelf.purge) && (!has(self.purge) || self.purge == oldSelf.purge) && \
     has(self.backup) == has(oldSelf.backup) && (!has(self.backup) || self.backup == oldSelf.backup)",
    "what a task does cannot be changed, only spec.cancel and spec.ttlSecondsAfterFinished: make another task",
);
pub(crate) const CANCEL_IS_TAKEN_BACK: Rule =
    ("self.cancel || !oldSelf.cancel", "spec.cancel cannot be taken back: make another task");
pub(crate) const BOOTSTRAP_CHANGES: Rule = (
    "has(self.bootstrap) == has(oldSelf.bootstrap) && (!has(self.bootstrap) || self.bootstrap == oldSelf.bootstrap)",
    "bootstrap cannot be changed, given or taken: it says what a new Queue begins with; make a new Queue instead",
);
/// Patterns in the schema: as a rule in CEL over a list they cost more than the API server allows.
pub(crate) const SERVICE_ACCOUNT: &str = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$";
/// As in [`NAME`].
pub(crate) const QUEUE: &str = "^[a-z]([-a-z0-9]*[a-z0-9])?$";
pub(crate) const CLAIM: &str = SERVICE_ACCOUNT;
/// Of names that do not begin with a dot, so that it never leads out of the volume.
pub(crate) const FOLDER: &str = "^[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*$";
pub(crate) const NAMESPACE: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

const MIN_STORAGE_BYTES: u64 = 256 << 20;
const MAX_MESSAGE_BYTES: u64 = 16 << 20;
const MAX_NAME_CHARS: usize = 40;

/// Every rule that `queue` breaks; rules about changes have nothing to compare with here.
pub(crate) fn broken(queue: &Queue) -> Vec<Violation> {
    let name = queue.metadata.name.as_deref().unwrap_or_default();
    let mut broken = Vec::new();
    if !is_name(name) {
        broken.push(Violation::new("metadata.name", NAME.1));
    }
    broken.extend(not_bytes(&queue.spec));
    broken.extend(queue.spec.clients.iter().enumerate().flat_map(|(at, client)| not_names(at, client)));
    let secret = queue.spec.encryption.as_ref().map(|encryption| encryption.secret_name.as_str());
    if secret.is_some_and(|name| !is_label(name, "-.")) {
        broken
            .push(Violation::new("spec.encryption.secretName", format!("should match '{SERVICE_ACCOUNT}'")));
    }
    let restored = queue.spec.bootstrap.iter();
    broken.extend(restored.flat_map(|bootstrap| bootstrap.restore_from.broken("spec.bootstrap.restoreFrom")));
    broken.extend(broken_in_spec(&queue.spec));
    broken.extend(queue.spec.template.iter().flat_map(template::broken));
    broken
}

/// The patterns of the schema, which `schema` does not know.
fn not_bytes(spec: &QueueSpec) -> impl Iterator<Item = Violation> + use<> {
    [
        ("spec.storage.size", &spec.storage.size),
        ("spec.limits.maxBytes", &spec.limits.max_bytes),
        ("spec.limits.maxMessageBytes", &spec.limits.max_message_bytes),
    ]
    .map(|(path, quantity)| parse_bytes(quantity).err().map(|error| Violation::new(path, error.to_string())))
    .into_iter()
    .flatten()
}

fn broken_in_spec(spec: &QueueSpec) -> impl Iterator<Item = Violation> + use<> {
    let (delivery, backoff) = (&spec.delivery, &spec.delivery.backoff);
    // What is no number is reported by `not_bytes`; the comparisons below must not report it again.
    let size = parse_bytes(&spec.storage.size).unwrap_or(u64::MAX);
    let max_bytes = parse_bytes(&spec.limits.max_bytes).unwrap_or(0);
    let message = parse_bytes(&spec.limits.max_message_bytes).unwrap_or(1);
    [
        ("spec", BYTES_FIT_VOLUME, max_bytes <= size),
        ("spec.storage", SIZE_MINIMUM, size >= MIN_STORAGE_BYTES),
        (
            "spec.delivery",
            PROCESSING_COVERS_ACK,
            delivery.max_processing_seconds >= delivery.ack_timeout_seconds,
        ),
        ("spec.delivery", BACKOFF_ORDER, backoff.max_seconds >= backoff.min_seconds),
        ("spec.limits", MESSAGE_BYTES, (1..=MAX_MESSAGE_BYTES).contains(&message)),
    ]
    .into_iter()
    .filter(|(_, _, holds)| !holds)
    .map(|(path, rule, _)| Violation::new(path, rule.1))
}

/// A grant to a name that nobody can have would be one to nobody, without a word.
fn not_names(at: usize, client: &Client) -> impl Iterator<Item = Violation> + use<> {
    let broken = |field: &str, name: &Option<String>, pattern: &str, others: &str| {
        let is_broken = name.as_deref().is_some_and(|name| !is_label(name, others));
        is_broken.then(|| {
            Violation::new(format!("spec.clients[{at}].{field}"), format!("should match '{pattern}'"))
        })
    };
    [
        broken("serviceAccount", &client.service_account, SERVICE_ACCOUNT, "-."),
        broken("namespace", &client.namespace, NAMESPACE, "-"),
    ]
    .into_iter()
    .flatten()
}

/// Of lower case letters and digits, and within it of `others`.
pub(crate) fn is_label(name: &str, others: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.starts_with(plain) && name.ends_with(plain) && name.chars().all(|c| plain(c) || others.contains(c))
}

fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name.len() <= MAX_NAME_CHARS
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.chars().all(allowed)
}
