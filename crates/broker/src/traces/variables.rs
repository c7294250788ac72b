//! The standard environment variables of OpenTelemetry that are honoured. `docs/reference/traces.md` has the table.

use clap::Args;

/// Where traces go, and which; without an endpoint there are none. Empty is the same as absent, as the specification has it.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Traces (OpenTelemetry)")]
pub struct Variables {
    /// `true`: no traces, whatever else is said.
    #[arg(
        id = "otel-sdk-disabled",
        long = "otel-sdk-disabled",
        env = "OTEL_SDK_DISABLED",
        default_value = "",
        hide_default_value = true
    )]
    pub(super) sdk_disabled: String,
    /// `otlp`, or `none` for no traces.
    #[arg(
        id = "otel-traces-exporter",
        long = "otel-traces-exporter",
        env = "OTEL_TRACES_EXPORTER",
        default_value = "",
        hide_default_value = true
    )]
    pub(super) traces_exporter: String,
    /// Collector of OTLP over gRPC, like `http://collector:4317`; https with TLS.
    #[arg(
        id = "otel-exporter-otlp-endpoint",
        long = "otel-exporter-otlp-endpoint",
        env = "OTEL_EXPORTER_OTLP_ENDPOINT",
        default_value = "",
        hide_default_value = true
    )]
    pub(super) endpoint: String,
    /// The same, where traces have a collector of their own.
    #[arg(
        id = "otel-exporter-otlp-traces-endpoint",
        long = "otel-exporter-otlp-traces-endpoint",
        env = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        default_value = "",
        hide_default_value = true
    )]
    pub(super) traces_endpoint: String,
    /// What the collector is told with every export, like `api-key=...,tenant=...`.
    #[arg(
        id = "otel-exporter-otlp-headers",
        long = "otel-exporter-otlp-headers",
        env = "OTEL_EXPORTER_OTLP_HEADERS",
        default_value = "",
        hide_default_value = true,
        hide_env_values = true
    )]
    pub(super) headers: String,
    /// `grpc`, which is all that is spoken.
    #[arg(
        id = "otel-exporter-otlp-protocol",
        long = "otel-exporter-otlp-protocol",
        env = "OTEL_EXPORTER_OTLP_PROTOCOL",
        default_value = "",
        hide_default_value = true
    )]
    pub(super) protocol: String,
    /// Of one try to export, in milliseconds; 10000.
    #[arg(
        id = "otel-exporter-otlp-timeout",
        long = "otel-exporter-otlp-timeout",
        env = "OTEL_EXPORTER_OTLP_TIMEOUT",
        default_value = "",
        hide_default_value = true
    )]
    pub(super) timeout: String,
    /// Authorities of the collector's certificate: PEM. Without, those of the system.
    #[arg(
        id = "otel-exporter-otlp-certificate",
        long = "otel-exporter-otlp-certificate",
        env = "OTEL_EXPORTER_OTLP_CERTIFICATE",
        default_value = "",
        hide_default_value = true
    )]
    pub(super) certificate: String,
    /// `service.name`; ackwell-broker or ackwell-sidecar.
    #[arg(
        id = "otel-service-name",
        long = "otel-service-name",
        env = "OTEL_SERVICE_NAME",
        default_value = "",
        hide_default_value = true
    )]
    pub(super) service_name: String,
    /// Said of all spans, like `k8s.pod.name=a,k8s.namespace.name=b`.
    #[arg(
        id = "otel-resource-attributes",
        long = "otel-resource-attributes",
        env = "OTEL_RESOURCE_ATTRIBUTES",
        default_value = "",
        hide_default_value = true
    )]
    pub(super) resource_attributes: String,
    /// `always_on`, `always_off` or `traceidratio`, each also after `parentbased_`; `parentbased_always_on`.
    #[arg(
        id = "otel-traces-sampler",
        long = "otel-traces-sampler",
        env = "OTEL_TRACES_SAMPLER",
        default_value = "",
        hide_default_value = true
    )]
    pub(super) sampler: String,
    /// Of `traceidratio`: between 0 and 1.
    #[arg(
        id = "otel-traces-sampler-arg",
        long = "otel-traces-sampler-arg",
        env = "OTEL_TRACES_SAMPLER_ARG",
        default_value = "",
        hide_default_value = true
    )]
    pub(super) sampler_arg: String,
    /// Between two exports, in milliseconds; 5000.
    #[arg(
        id = "otel-bsp-schedule-delay",
        long = "otel-bsp-schedule-delay",
        env = "OTEL_BSP_SCHEDULE_DELAY",
        default_value = "",
        hide_default_value = true
    )]
    pub(super) schedule_delay: String,
    /// Spans that wait; more are dropped. 2048.
    #[arg(
        id = "otel-bsp-max-queue-size",
        long = "otel-bsp-max-queue-size",
        env = "OTEL_BSP_MAX_QUEUE_SIZE",
        default_value = "",
        hide_default_value = true
    )]
    pub(super) max_queue_size: String,
    /// Spans of one export; 512.
    #[arg(
        id = "otel-bsp-max-export-batch-size",
        long = "otel-bsp-max-export-batch-size",
        env = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
        default_value = "",
        hide_default_value = true
    )]
    pub(super) max_export_batch_size: String,
}
