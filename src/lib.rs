//! Panoptes watches every view of every part on the line.

pub mod cli;
pub mod domain;
pub mod model;
pub mod training;
