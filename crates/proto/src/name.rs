//! Names of queues.

use std::fmt;

/// Longest queue name: the `StatefulSet`'s name and a revision hash must fit a label of 63 characters.
const MAX_NAME_CHARS: usize = 40;
/// Longest namespace: a DNS label.
const MAX_NAMESPACE_CHARS: usize = 63;

/// `namespace/name` of a queue; both parts are DNS labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueName {
    namespace: String,
    name: String,
}

/// The text is not a queue's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "queue name {0:?} is not valid: use \"name\" or \"namespace/name\", lower-case letters, digits and \"-\", \
     at most {MAX_NAME_CHARS} characters for the name"
)]
pub struct InvalidQueueName(String);

impl QueueName {
    /// Reads `name` or `namespace/name`; `default_namespace` is the caller's own.
    pub fn parse(text: &str, default_namespace: &str) -> Result<Self, InvalidQueueName> {
        let (namespace, name) = text.split_once('/').unwrap_or((default_namespace, text));
        let valid = is_label(namespace, MAX_NAMESPACE_CHARS)
            && is_label(name, MAX_NAME_CHARS)
            && name.starts_with(|c: char| c.is_ascii_lowercase());
        if !valid {
            return Err(InvalidQueueName(text.chars().take(128).collect()));
        }
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// The Kubernetes namespace of the Queue.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The Queue's own name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

fn is_label(text: &str, max_chars: usize) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    text.len() <= max_chars
        && edge(text.chars().next())
        && edge(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_name_takes_the_callers_namespace() {
        assert_eq!(QueueName::parse("orders", "shop").unwrap().to_string(), "shop/orders");
        assert_eq!(QueueName::parse("other/orders", "shop").unwrap().to_string(), "other/orders");
    }

    #[test]
    fn what_kubernetes_would_refuse_is_refused() {
        for bad in ["", "Orders", "-a", "a-", "a/b/c", "/a", "a/", "1a", "a.b", &"a".repeat(41)] {
            assert!(QueueName::parse(bad, "shop").is_err(), "{bad:?}");
        }
    }
}
