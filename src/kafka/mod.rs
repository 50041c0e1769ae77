//! The bus: the only place that knows Kafka.

pub mod client;
pub mod commit_metadata;
pub mod consumer;
pub mod embedded;
mod group_context;
pub(crate) mod group_protocol;
pub mod offsets;
mod partition_counts;
mod partition_ends;
pub mod partitioners;
mod poll_loop;
pub mod publisher;
mod record_copy;
pub mod record_producer;
mod static_member;
pub mod topic_admin;
pub mod topic_reader;
pub mod transactional_publisher;
