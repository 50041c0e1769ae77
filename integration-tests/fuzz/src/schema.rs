//! Where the product has it.

#[path = "../../../src/schema/view.rs"]
pub mod view;

#[path = "../../../src/schema/closed_part.rs"]
pub mod closed_part;
