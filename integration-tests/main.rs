//! Panoptes against a real Apache Kafka: one file a behaviour.
//!
//! `README.md` in this folder says how the broker is set up and how to start one by hand.
#![allow(clippy::unwrap_used, reason = "a failed unwrap here is a failed test")]

mod bad_records;
mod broker_restart;
mod chaos;
mod config_errors;
mod demo;
mod duplicates;
mod every_part;
mod exactly_once;
mod figures;
mod group_lag;
mod kafka;
mod model_fetch;
mod operating;
mod produce_and_tail;
mod result_formats;
mod security;
mod shutdown;
mod support;
mod threads;
mod timeouts;
mod topics;
mod two_instances;
