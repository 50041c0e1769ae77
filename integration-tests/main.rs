//! Panoptes against a real Apache Kafka: one file a behaviour.
//!
//! `README.md` in this folder says how the broker is set up and how to start one by hand.
#![allow(clippy::unwrap_used, reason = "a failed unwrap here is a failed test")]

mod kafka;
