//! What the tests are made of: a line with cameras, its records, the `panoptes` process, and what it
//! published, read without any code of Panoptes.

pub(crate) mod config;
pub(crate) mod images;
pub(crate) mod line;
pub(crate) mod outcome_reader;
pub(crate) mod outcomes;
pub(crate) mod process;
pub(crate) mod published;
pub(crate) mod seed;
pub(crate) mod shots;
