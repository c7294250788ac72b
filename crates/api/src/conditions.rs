//! Condition types of a Queue, and the reasons they carry. Programs may rely on both.

/// Types, in the order they are listed in a status. All are present from the operator's first visit on.
pub mod types {
    /// All shards serve the current spec.
    pub const READY: &str = "Ready";
    /// The operator is working towards the spec.
    pub const RECONCILING: &str = "Reconciling";
    /// Nothing will get better without a person.
    pub const STALLED: &str = "Stalled";
    /// At least one shard serves.
    pub const AVAILABLE: &str = "Available";
    /// Every volume is bound, and served by a shard.
    pub const STORAGE_HEALTHY: &str = "StorageHealthy";
    /// There are Dead messages.
    pub const DEAD_LETTERS: &str = "DeadLetters";

    /// All of them.
    pub const ALL: [&str; 6] = [READY, RECONCILING, STALLED, AVAILABLE, STORAGE_HEALTHY, DEAD_LETTERS];
}

/// Reasons.
pub mod reasons {
    /// All shards serve.
    pub const ALL_SHARDS_READY: &str = "AllShardsReady";
    /// Some shards do not serve yet.
    pub const SHARDS_STARTING: &str = "ShardsStarting";
    /// At least one shard serves.
    pub const MINIMUM_SHARDS: &str = "MinimumShards";
    /// No shard serves.
    pub const NO_SHARDS: &str = "NoShards";
    /// A pod cannot start: no node fits, the image cannot be pulled, the broker crashes.
    pub const POD_FAILING: &str = "PodFailing";
    /// A volume is not bound yet.
    pub const VOLUME_PENDING: &str = "VolumePending";
    /// All volumes are bound.
    pub const VOLUMES_BOUND: &str = "VolumesBound";
    /// Volumes of an earlier Queue hold messages that no shard serves.
    pub const VOLUMES_UNSERVED: &str = "VolumesUnserved";
    /// Pods cannot be made: a quota or an admission policy refuses them.
    pub const PODS_REFUSED: &str = "PodsRefused";
    /// Brokers are being replaced by others with a new template.
    pub const ROLLING_OUT: &str = "RollingOut";
    /// A broker serves but does not answer the operator.
    pub const BROKER_UNREACHABLE: &str = "BrokerUnreachable";
    /// New settings are not confirmed by every shard yet.
    pub const CONFIGURING: &str = "Configuring";
    /// The spec breaks a rule that the API server should have enforced.
    pub const INVALID_SPEC: &str = "InvalidSpec";
    /// The API server refused a child object.
    pub const APPLY_REFUSED: &str = "ApplyRefused";
    /// A child's name is taken by an object that belongs to something else.
    pub const OWNERSHIP_CONFLICT: &str = "OwnershipConflict";
    /// The spec asks for something that this version cannot do yet.
    pub const NOT_SUPPORTED_YET: &str = "NotSupportedYet";
    /// Nothing is left to do.
    pub const UP_TO_DATE: &str = "UpToDate";
    /// There are Dead messages.
    pub const MESSAGES_DEAD: &str = "MessagesDead";
    /// There are none.
    pub const NONE_DEAD: &str = "NoneDead";
    /// Nobody was asked yet.
    pub const UNKNOWN: &str = "Unknown";
}
