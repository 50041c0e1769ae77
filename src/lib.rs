//! Panoptes watches every view of every part on the line.

pub mod admin;
pub mod cli;
pub mod config;
pub mod batcher;
pub mod cli;
pub mod domain;
pub mod kafka;
pub mod model;
pub mod telemetry;
pub mod schema;
pub mod scoring;
pub mod reassembly;
