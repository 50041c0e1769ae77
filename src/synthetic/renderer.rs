//! From a [`SyntheticPart`] to its five pictures and masks.

use glam::Vec3;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::camera::{Camera, CameraView};
use super::defect::{Anchor, Defect, DefectKind};
use super::geometry::{sphere_span, tangents};
use super::noise::sensor_noise;
use super::outline::outlined;
use super::scene::{AlteredPart, Sample, Scene, Solid};
use super::shape::Shape;
use super::{ClassKind, SyntheticPart};
use crate::domain::{RgbImage, ViewId};

/// One camera's picture of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderedView {
    /// Which camera.
    pub view: ViewId,
    /// The picture.
    pub image: RgbImage,
    /// One flag a pixel, row by row: whether it shows the defect.
    pub mask: Vec<bool>,
}

impl RenderedView {
    /// How many pixels show the defect.
    pub fn mask_pixels(&self) -> usize {
        self.mask.iter().filter(|&&is_defect| is_defect).count()
    }
}

/// A defect must cover this many pixels of a 192-pixel picture in at least one view.
const VISIBLE_PIXELS_AT_192: f32 = 40.0;
/// How often a place for the defect is tried before the best one is kept.
const MAX_PLACEMENTS: u32 = 24;
/// A channel must change by more than this (of 255) for a pixel to count as changed.
const VISIBLE_LEVELS: f32 = 5.0;

/// Renders every view of a part, `size` pixels square, in the order of [`CameraView::ALL`].
///
/// A defective part shows its defect in at least one view. Each view's mask is found by rendering
/// the part with and without its defect in the same scene: it outlines the pixels whose visible
/// surface the defect has changed, by enough to be seen, as a person would. All other pixels are those of the intact
/// part, except that within a sphere around the defect its own shadow is kept.
pub fn render(part: &SyntheticPart, size: u32) -> Vec<RenderedView> {
    let studio = Studio::new(part, size);
    let bases: Vec<BaseView> = studio
        .cameras
        .par_iter()
        .map(|station| studio.base_view(station))
        .collect();
    let Some(kind) = part.defect else {
        return bases
            .into_iter()
            .map(|base| studio.finished(base, Changes::default()))
            .collect();
    };
    let (_, changes) = studio.place(kind);
    bases
        .into_iter()
        .zip(changes)
        .map(|(base, changes)| studio.finished(base, changes))
        .collect()
}

/// A camera with what its sensor does to the picture.
struct Station {
    view: CameraView,
    camera: Camera,
    exposure: Vec3,
    noise_levels: f32,
    noise_key: u32,
}

/// A picture of the intact part in linear light.
struct BaseView {
    station: usize,
    light: Vec<Vec3>,
}

/// A pixel that the defect changes: with its new light, or only shaded by it.
#[derive(Clone, Copy)]
pub(super) enum Change {
    Surface(Vec3),
    Shading(Vec3),
}

/// What a defect changes in one view.
#[derive(Default)]
pub(super) struct Changes {
    pixels: Vec<(usize, Change)>,
    /// One flag a pixel of the picture; empty where nothing changes.
    mask: Vec<bool>,
}

/// Everything about one part that does not depend on its defect.
pub(crate) struct Studio {
    pub(crate) scene: Scene,
    cameras: Vec<Station>,
    size: u32,
    part: SyntheticPart,
}

impl Studio {
    pub(crate) fn new(part: &SyntheticPart, size: u32) -> Self {
        let mut random = stream(part, 0);
        let scene = Scene::varied(part.class, &mut random);
        let target = part.class.bounds().0;
        let cameras = CameraView::ALL
            .into_iter()
            .map(|view| Station {
                view,
                camera: Camera::new(view, target, size),
                exposure: Vec3::splat(random.random_range(0.95..1.05))
                    * Vec3::new(
                        random.random_range(0.985..1.015),
                        1.0,
                        random.random_range(0.985..1.015),
                    ),
                noise_levels: random.random_range(1.1..2.2),
                noise_key: random.random(),
            })
            .collect();
        Self {
            scene,
            cameras,
            size,
            part: *part,
        }
    }

    fn base_view(&self, station: &Station) -> BaseView {
        let size = self.size as usize;
        let samples: Vec<Sample> = (0..size * size)
            .map(|index| self.sample(&self.scene.shape, station, index, (0.5, 0.5)))
            .collect();
        let light = (0..size * size)
            .map(|index| {
                if is_on_edge(&samples, index, size) {
                    averaged(&self.quarter_samples(&self.scene.shape, station, index))
                } else {
                    samples[index].light
                }
            })
            .collect();
        let station = CameraView::ALL
            .iter()
            .position(|&view| view == station.view)
            .unwrap_or(0);
        BaseView { station, light }
    }

    fn sample(
        &self,
        solid: &impl Solid,
        station: &Station,
        index: usize,
        within: (f32, f32),
    ) -> Sample {
        let size = self.size as usize;
        let x = (index % size) as f32 + within.0;
        let y = (index / size) as f32 + within.1;
        let (origin, direction) = self.scene.ray(&station.camera, x, y);
        self.scene
            .sample(solid, origin, direction, self.precision(station))
    }

    fn quarter_samples(&self, solid: &impl Solid, station: &Station, index: usize) -> [Sample; 4] {
        const PLACES: [(f32, f32); 4] = [
            (0.375, 0.125),
            (0.875, 0.375),
            (0.625, 0.875),
            (0.125, 0.625),
        ];
        PLACES.map(|within| self.sample(solid, station, index, within))
    }

    /// A ray has landed when nearer than this: a tenth of a pixel.
    fn precision(&self, station: &Station) -> f32 {
        (0.1 * station.camera.pixel_width(7.0)).min(0.0015)
    }

    /// Finds a place where the defect is visible in at least one view.
    pub(super) fn place(&self, kind: DefectKind) -> (AlteredPart, Vec<Changes>) {
        let needed = VISIBLE_PIXELS_AT_192 * (self.size as f32 / 192.0).powi(2);
        let mut best: Option<(usize, AlteredPart, Vec<Changes>)> = None;
        for attempt in 0..MAX_PLACEMENTS {
            let mut random = stream(&self.part, 1 + (kind as u64) * 256 + u64::from(attempt));
            let altered = self.altered(kind, &mut random);
            let changes: Vec<Changes> = self
                .cameras
                .par_iter()
                .map(|station| self.changes(station, &altered))
                .collect();
            let most = changes.iter().map(surface_pixels).max().unwrap_or(0);
            if best.as_ref().is_none_or(|(pixels, ..)| most > *pixels) {
                best = Some((most, altered, changes));
            }
            if most as f32 >= needed {
                break;
            }
        }
        let (_, altered, changes) = best.expect("there is at least one attempt");
        (altered, changes)
    }

    fn altered(&self, kind: DefectKind, random: &mut ChaCha8Rng) -> AlteredPart {
        let class = self.part.class;
        if kind == DefectKind::MissingFeature {
            let feature = random.random_range(0..class.feature_count());
            let (center, radius) = class.feature_bounds(feature);
            return AlteredPart {
                shape: Shape {
                    class,
                    missing: Some(feature),
                },
                defect: Defect::missing(center, radius),
            };
        }
        let anchor = self.anchor(kind, random);
        AlteredPart {
            shape: self.scene.shape,
            defect: Defect::placed(kind, anchor, random),
        }
    }

    /// A place on the surface that a random camera sees: an edge for burrs, a smooth place else.
    fn anchor(&self, kind: DefectKind, random: &mut ChaCha8Rng) -> Anchor {
        let candidates = if kind == DefectKind::Burr { 20 } else { 5 };
        let mut best: Option<(f32, Anchor)> = None;
        // Half of all rays meet the part; a few hundred never all miss.
        for _ in 0..400 {
            let Some(anchor) = self.seen_place(random) else {
                continue;
            };
            let edge = edge_sharpness(&self.scene.shape, anchor);
            let merit = if kind == DefectKind::Burr {
                edge
            } else {
                -edge.abs()
            };
            if best.is_none_or(|(most, _)| merit > most) {
                best = Some((merit, anchor));
            }
            if best.is_some() && random.random_ratio(1, candidates) {
                break;
            }
        }
        best.map_or(
            Anchor {
                point: Vec3::ZERO,
                normal: Vec3::Z,
            },
            |(_, anchor)| anchor,
        )
    }

    fn seen_place(&self, random: &mut ChaCha8Rng) -> Option<Anchor> {
        let station = &self.cameras[random.random_range(0..self.cameras.len())];
        let side = self.size as f32;
        let (x, y) = (
            random.random_range(0.1..0.9) * side,
            random.random_range(0.1..0.9) * side,
        );
        let (origin, direction) = self.scene.ray(&station.camera, x, y);
        let depth = self
            .scene
            .landing(&self.scene.shape, origin, direction, 0.001)?;
        let point = origin + direction * depth;
        let normal = self.scene.shape.normal(point);
        (normal.dot(-direction) > 0.4 && point.z > 0.04).then_some(Anchor { point, normal })
    }

    /// How the defect changes one view.
    fn changes(&self, station: &Station, altered: &AlteredPart) -> Changes {
        let (center, radius) = altered.defect.bounds();
        let size = self.size as usize;
        let margin = radius + 2.0 * station.camera.pixel_width(7.0);
        let mut changes = Vec::new();
        for index in 0..size * size {
            let (x, y) = ((index % size) as f32 + 0.5, (index / size) as f32 + 0.5);
            let (origin, direction) = self.scene.ray(&station.camera, x, y);
            if sphere_span(origin, direction, center, margin).is_none() {
                continue;
            }
            if let Some(change) = self.change(station, altered, index) {
                changes.push((index, change));
            }
        }
        self.outlined(changes)
    }

    /// The changes with the mask as a person would draw it: specks are as good as not there.
    fn outlined(&self, changes: Vec<(usize, Change)>) -> Changes {
        let side = self.size as usize;
        let mut changed = vec![false; side * side];
        for (index, change) in &changes {
            changed[*index] = matches!(change, Change::Surface(_));
        }
        let mask = outlined(&changed, side);
        let pixels = changes
            .into_iter()
            .filter(|(index, change)| mask[*index] || matches!(change, Change::Shading(_)))
            .collect();
        Changes { pixels, mask }
    }

    fn change(&self, station: &Station, altered: &AlteredPart, index: usize) -> Option<Change> {
        let before = self.quarter_samples(&self.scene.shape, station, index);
        let after = self.quarter_samples(altered, station, index);
        let (old, new) = (averaged(&before), averaged(&after));
        let is_surface = before
            .iter()
            .zip(&after)
            .any(|(old, new)| is_other_surface(old, new));
        let difference =
            (developed(new, station.exposure) - developed(old, station.exposure)).abs();
        if is_surface {
            return (difference.max_element() > VISIBLE_LEVELS).then_some(Change::Surface(new));
        }
        let is_soiled = after.iter().any(|sample| sample.defect_share > 0.0);
        (new != old && !is_soiled).then_some(Change::Shading(new / old.max(Vec3::splat(1e-4))))
    }

    /// Develops a view: the defect's changes, exposure, noise, eight bits.
    fn finished(&self, base: BaseView, changes: Changes) -> RenderedView {
        let station = &self.cameras[base.station];
        let mut light = base.light;
        for (index, change) in changes.pixels {
            match change {
                Change::Surface(new) => light[index] = new,
                Change::Shading(share) => light[index] *= share,
            }
        }
        let mut mask = changes.mask;
        mask.resize(light.len(), false);
        let mut pixels = Vec::with_capacity(light.len() * 3);
        for (index, light) in light.into_iter().enumerate() {
            let levels = developed(light, station.exposure);
            for (channel, level) in levels.to_array().into_iter().enumerate() {
                let noise = sensor_noise(station.noise_key, (index * 3 + channel) as u32);
                let strength = station.noise_levels * (0.6 + level / 400.0);
                pixels.push((level + noise * strength + 0.5).clamp(0.0, 255.0) as u8);
            }
        }
        RenderedView {
            view: station.view.view_id(),
            image: RgbImage {
                width: self.size,
                height: self.size,
                pixels,
            },
            mask,
        }
    }
}

/// Independent random numbers for each purpose of a part.
fn stream(part: &SyntheticPart, purpose: u64) -> ChaCha8Rng {
    let class = ClassKind::ALL
        .iter()
        .position(|&class| class == part.class)
        .unwrap_or(0) as u64;
    let mut random = ChaCha8Rng::seed_from_u64(part.seed);
    random.set_stream(class << 32 | purpose);
    random
}

/// Linear light to display levels, 0 to 255: exposure, a soft shoulder, gamma 2.
fn developed(light: Vec3, exposure: Vec3) -> Vec3 {
    let exposed = light.max(Vec3::ZERO) * exposure;
    let shouldered = exposed * (Vec3::ONE + exposed * 0.12) / (Vec3::ONE + exposed * 0.42);
    shouldered.min(Vec3::ONE).map(f32::sqrt) * 255.0
}

fn averaged(samples: &[Sample; 4]) -> Vec3 {
    samples.iter().map(|sample| sample.light).sum::<Vec3>() * 0.25
}

fn surface_pixels(changes: &Changes) -> usize {
    changes.mask.iter().filter(|&&is_defect| is_defect).count()
}

/// Whether two rays through the same place met different matter.
fn is_other_surface(old: &Sample, new: &Sample) -> bool {
    old.is_part != new.is_part
        || (old.depth - new.depth).abs() * old.facing.min(new.facing) > 0.003
        || (old.is_part && old.normal.dot(new.normal) < 0.985)
        || new.defect_share > 0.15
}

/// Whether a pixel lies on an outline or crease and needs more than one ray.
fn is_on_edge(samples: &[Sample], index: usize, size: usize) -> bool {
    let here = &samples[index];
    let differs = |other: &Sample| {
        here.is_part != other.is_part
            || (here.is_part
                && (here.normal.dot(other.normal) < 0.86
                    || (here.depth - other.depth).abs() > 0.08))
    };
    let (x, y) = (index % size, index / size);
    (x > 0 && differs(&samples[index - 1]))
        || (x + 1 < size && differs(&samples[index + 1]))
        || (y > 0 && differs(&samples[index - size]))
        || (y + 1 < size && differs(&samples[index + size]))
}

/// How far the solid falls away around a place: positive on outer edges, negative in corners.
fn edge_sharpness(shape: &Shape, anchor: Anchor) -> f32 {
    const REACH: f32 = 0.06;
    let (along, across) = tangents(anchor.normal, 0.0);
    [along, -along, across, -across]
        .into_iter()
        .map(|side| shape.distance(anchor.point + side * REACH))
        .sum()
}
