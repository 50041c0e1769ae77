//! Where the product has it.

#[path = "../../../src/schema/archive.rs"]
pub mod archive;

#[path = "../../../src/schema/view.rs"]
pub mod view;

#[path = "../../../src/schema/closed_part.rs"]
pub mod closed_part;
