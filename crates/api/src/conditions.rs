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
    /// Shards hand their messages to others, to leave.
    pub const DRAINING: &str = "Draining";
    /// The brokers are stopped because the spec says so.
    pub const SUSPENDED: &str = "Suspended";
    /// There are Dead messages.
    pub const DEAD_LETTERS: &str = "DeadLetters";

    /// All of them.
    pub const ALL: [&str; 8] =
        [READY, RECONCILING, STALLED, AVAILABLE, STORAGE_HEALTHY, DRAINING, SUSPENDED, DEAD_LETTERS];
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
    /// All shards serve, and an application beside a broker is not ready.
    pub const APPLICATION_UNREADY: &str = "ApplicationUnready";
    /// A volume is not bound yet.
    pub const VOLUME_PENDING: &str = "VolumePending";
    /// All volumes are bound.
    pub const VOLUMES_BOUND: &str = "VolumesBound";
    /// Volumes of an earlier Queue hold messages that no shard serves.
    pub const VOLUMES_UNSERVED: &str = "VolumesUnserved";
    /// Volumes are getting larger.
    pub const EXPANDING: &str = "Expanding";
    /// The StorageClass does not let volumes grow.
    pub const EXPANSION_UNSUPPORTED: &str = "ExpansionUnsupported";
    /// The storage cannot make a volume as large as it shall be.
    pub const EXPANSION_INFEASIBLE: &str = "ExpansionInfeasible";
    /// The API server refused to let a volume claim ask for more: a quota, a policy.
    pub const EXPANSION_REFUSED: &str = "ExpansionRefused";
    /// A growth was taken back, and a claim still asks for more than the spec.
    pub const EXPANSION_ABANDONED: &str = "ExpansionAbandoned";
    /// The brokers are stopped, or about to be, because the spec says so.
    pub const SUSPENDED: &str = "Suspended";
    /// `spec.suspend` is true.
    pub const BY_SPEC: &str = "BySpec";
    /// `spec.suspend` is false.
    pub const NOT_SUSPENDED: &str = "NotSuspended";
    /// Messages go to other shards, since there shall be more or fewer.
    pub const SHARDS_MOVING: &str = "ShardsMoving";
    /// A shard hands its messages to others, to leave.
    pub const DRAINING: &str = "Draining";
    /// A shard that shall leave cannot hand over its messages.
    pub const DRAIN_BLOCKED: &str = "DrainBlocked";
    /// No shard is about to leave.
    pub const NOT_DRAINING: &str = "NotDraining";
    /// A backup is being stored in the shards, and the Queue opens when that is done.
    pub const RESTORING: &str = "Restoring";
    /// A backup cannot be stored in the shards, which stay closed.
    pub const RESTORE_FAILED: &str = "RestoreFailed";
    /// An annotation keeps the operator from changing anything.
    pub const PAUSED: &str = "Paused";
    /// The operator cannot make the brokers safe yet: it has no authority, or does not know how tokens are verified.
    pub const SECURITY_PENDING: &str = "SecurityPending";
    /// Pods cannot be made: a quota or an admission policy refuses them.
    pub const PODS_REFUSED: &str = "PodsRefused";
    /// Brokers are being replaced by others with a new template.
    pub const ROLLING_OUT: &str = "RollingOut";
    /// Brokers keep their template, since other Queues come first.
    pub const ROLLOUT_WAITING: &str = "RolloutWaiting";
    /// Brokers keep their template, since the spec says so.
    pub const ROLLOUT_HELD: &str = "RolloutHeld";
    /// A broker does not serve with the new template; the others keep the old one.
    pub const ROLLOUT_HALTED: &str = "RolloutHalted";
    /// A broker leaves its store alone, since another version wrote it.
    pub const FORMAT_UNSUPPORTED: &str = "FormatUnsupported";
    /// A broker leaves its store alone, since it is sealed with a key that is not in the Secret.
    pub const ENCRYPTION_KEY_MISSING: &str = "EncryptionKeyMissing";
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
    /// Nothing is left to do.
    pub const UP_TO_DATE: &str = "UpToDate";
    /// There are Dead messages.
    pub const MESSAGES_DEAD: &str = "MessagesDead";
    /// There are none.
    pub const NONE_DEAD: &str = "NoneDead";
    /// Nobody was asked yet.
    pub const UNKNOWN: &str = "Unknown";
}
