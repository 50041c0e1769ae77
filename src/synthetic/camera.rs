//! The five cameras around the part.

use glam::Vec3;

use crate::domain::ViewId;

/// One of the line's cameras.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CameraView {
    /// From above.
    Top,
    /// From the left, looking down at a slant.
    Left,
    /// From the right.
    Right,
    /// From the front.
    Front,
    /// From the back.
    Back,
}

impl CameraView {
    /// Every camera, in the order in which views are rendered.
    pub const ALL: [Self; 5] = [Self::Top, Self::Left, Self::Right, Self::Front, Self::Back];

    /// The view's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Top => "top",
            Self::Left => "left",
            Self::Right => "right",
            Self::Front => "front",
            Self::Back => "back",
        }
    }

    /// The view's name as the stream knows it.
    pub fn view_id(self) -> ViewId {
        ViewId::from(self.as_str())
    }

    /// Where the camera sits, as a direction from the part.
    fn direction(self) -> Vec3 {
        // Sine and cosine of 24 degrees: low enough to see the sides, high enough to see no horizon.
        const HIGH: f32 = 0.406_736_6;
        const FLAT: f32 = 0.913_545_5;
        match self {
            Self::Top => Vec3::new(0.0, -0.05, 1.0).normalize(),
            Self::Left => Vec3::new(-FLAT, 0.0, HIGH),
            Self::Right => Vec3::new(FLAT, 0.0, HIGH),
            Self::Front => Vec3::new(0.0, -FLAT, HIGH),
            Self::Back => Vec3::new(0.0, FLAT, HIGH),
        }
    }
}

/// A pinhole camera aimed at a point.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Camera {
    pub(crate) eye: Vec3,
    forward: Vec3,
    right: Vec3,
    up: Vec3,
    pixel: f32,
    half: f32,
}

/// Distance from part to camera; long enough for little perspective, as inspection lenses have.
const DISTANCE: f32 = 7.0;
/// Half the width of what a picture shows at the part's distance.
const HALF_EXTENT: f32 = 1.12;

impl Camera {
    /// The camera of `view`, aimed at `target`, for pictures of `size` pixels square.
    pub(crate) fn new(view: CameraView, target: Vec3, size: u32) -> Self {
        let direction = view.direction();
        let forward = -direction;
        let hint = if view == CameraView::Top {
            Vec3::Y
        } else {
            Vec3::Z
        };
        let right = forward.cross(hint).normalize();
        Self {
            eye: target + direction * DISTANCE,
            forward,
            right,
            up: right.cross(forward),
            pixel: 2.0 * HALF_EXTENT / DISTANCE / size as f32,
            half: size as f32 / 2.0,
        }
    }

    /// The direction of the ray through a place in the picture, in pixels from its top left.
    pub(crate) fn ray(&self, x: f32, y: f32) -> Vec3 {
        let across = (x - self.half) * self.pixel;
        let down = (y - self.half) * self.pixel;
        (self.forward + self.right * across - self.up * down).normalize()
    }

    /// How wide a pixel is at distance `depth`.
    pub(crate) fn pixel_width(&self, depth: f32) -> f32 {
        self.pixel * depth
    }
}
