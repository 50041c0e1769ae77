//! Where the product has it.

#[path = "../../../src/schema/view.rs"]
pub mod view;
