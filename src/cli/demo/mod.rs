//! `panoptes demo`: what the simulated line makes, what goes wrong on purpose, and what people
//! read of it.

pub mod report;
pub mod scenario;
pub mod table;
