//! The bus: the only place that knows Kafka.

pub mod client;
pub mod closed_parts;
pub mod commit_metadata;
pub mod consumer;
pub mod embedded;
pub mod end_offsets;
mod fetch_waker;
mod group_context;
mod group_offsets;
pub(crate) mod group_protocol;
pub mod offsets;
mod partition_counts;
mod partition_ends;
pub mod partitioners;
pub(crate) mod pauses;
mod poll_loop;
pub mod poll_report;
pub mod publisher;
mod record_copy;
pub mod record_lookup;
pub mod record_producer;
mod static_member;
pub mod topic_admin;
pub mod topic_reader;
pub mod transactional_publisher;
