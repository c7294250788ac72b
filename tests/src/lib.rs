//! Harness of the tests that cross processes.
