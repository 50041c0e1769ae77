//! What travels on the bus: versioned wire structs, to and from [`crate::domain`].
//!
//! A published version only grows. The JSON Schemas in `schemas/` are generated from these types; a
//! test fails when they differ.

pub mod archive;
pub mod closed_part;
#[cfg(test)]
pub(crate) mod committed;
pub mod dead_letter;
pub mod json_schema;
pub mod published;
pub mod result;
pub mod view;
