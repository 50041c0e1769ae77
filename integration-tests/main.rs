//! Panoptes against a real Apache Kafka: one file a behaviour.
//!
//! `README.md` in this folder says how the broker is set up and how to start one by hand.
#![allow(clippy::unwrap_used, reason = "a failed unwrap here is a failed test")]

mod archives;
mod bad_records;
mod bench;
mod broker_restart;
mod chaos;
mod compare;
mod config_errors;
mod consumer_protocol;
mod demo;
mod duplicates;
mod every_part;
mod exactly_once;
mod figures;
mod group_lag;
mod group_membership;
mod kafka;
mod late_views;
mod memory;
mod model_fetch;
mod operating;
mod output_topics;
mod produce_and_tail;
mod replay;
mod replay_report;
mod replay_retention;
mod result_formats;
#[cfg(feature = "failpoints")]
mod scale;
mod security;
mod shutdown;
mod support;
mod threads;
mod timeouts;
mod topic_changes;
mod topics;
mod two_instances;
#[cfg(feature = "failpoints")]
mod watchdog;
