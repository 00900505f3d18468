//! The agent of peerage.
