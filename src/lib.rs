//! Panoptes watches every view of every part on the line.

pub mod activity;
pub mod admin;
pub mod archive;
pub mod batcher;
pub mod cli;
pub mod comparison;
pub mod config;
pub mod decode;
pub mod domain;
pub mod evaluation;
pub mod image_folder;
pub mod inference;
pub mod kafka;
pub mod model;
pub mod pipeline;
pub mod process;
pub mod reassembly;
pub mod replay;
pub mod schema;
pub mod scoring;
pub mod status;
pub mod synthetic;
pub mod telemetry;
pub mod training;
pub mod whole_file;
