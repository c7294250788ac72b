//! A real cluster: the chart, the examples, and what goes wrong in a cluster.

#![cfg(test)]
