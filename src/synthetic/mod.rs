//! Renders multi-view pictures of machined and moulded parts, with or without a defect.
//!
//! Every part is real 3-D geometry: a signed-distance solid, sphere-traced from five fixed
//! cameras. A defect lives on the part's surface, so the cameras that face it show it and the
//! others do not. A seed fixes everything (pose, light, material, sensor noise, defect), on any
//! number of threads, which makes a picture of the part *without* its defect available too: the
//! mask outlines where the defect changes the visible surface, found by comparing the two.
//!
//! What the masks promise: outside the mask a picture equals that of the intact part bit for bit,
//! but for the shading that a defect throws onto its immediate surroundings (contact shadow and
//! occlusion, within [`render`]'s bounding sphere of the defect).
//!
//! Two defect kinds are held out ([`DefectKind::HELD_OUT`]): they serve final figures alone and
//! must not steer any choice.

mod camera;
mod defect;
mod geometry;
mod material;
mod noise;
mod outline;
mod renderer;
mod scene;
mod shape;

pub use camera::CameraView;
pub use defect::DefectKind;
pub use renderer::{RenderedView, render};
pub use shape::ClassKind;

/// What to render: a class, the seed that varies it, and at most one defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SyntheticPart {
    /// Which product.
    pub class: ClassKind,
    /// Fixes pose, light, material, noise and the defect's place and size.
    pub seed: u64,
    /// The defect, if the part has one.
    pub defect: Option<DefectKind>,
}

#[cfg(test)]
mod tests;
