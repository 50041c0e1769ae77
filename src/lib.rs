//! Panoptes watches every view of every part on the line.

pub mod domain;
pub mod model;
pub mod schema;
pub mod scoring;
