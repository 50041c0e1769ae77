//! The bus: the only place that knows Kafka.

pub mod offsets;
