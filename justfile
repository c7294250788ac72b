# The few commands of every day; `cargo xtask --help` has all of them.

# Run all tests, as CI does.
test *args:
    cargo xtask test {{ args }}

# Renew the generated files that are committed.
gen:
    cargo xtask gen

# Build the container images.
image:
    cargo xtask image

# Run the one-node Kubernetes: up, load, kubeconfig, down.
cluster *args:
    cargo xtask cluster {{ args }}

# Serve the example queues on this machine, without Kubernetes.
dev:
    cargo run --release --bin ackwell -- dev examples/*/queue.yaml
