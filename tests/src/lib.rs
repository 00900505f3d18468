//! Harness of the peerage tests.
