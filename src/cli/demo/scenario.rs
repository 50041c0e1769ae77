//! What the simulated line makes, and the faults it has on purpose: a plan, fixed by a seed.
//!
//! The plan knows nothing of brokers. [`Scenario::plan`] chooses the parts, [`Scenario::render`]
//! takes their pictures, [`Scenario::records`] lists what each camera sends and when.

use std::time::Duration;

use anyhow::Context;
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::report::Truth;
use crate::domain::{ClassName, PartId, RejectReason, RgbImage, ViewId};
use crate::synthetic::{CameraView, ClassKind, DefectKind, RenderedView, SyntheticPart, render};

/// How the line runs.
#[derive(Clone, Copy, Debug)]
pub struct ScenarioSettings {
    /// How many parts are made; at least one for each fault.
    pub parts: usize,
    /// The share of parts that have a defect.
    pub defective_share: f64,
    /// Fixes parts, defects and order.
    pub seed: u64,
    /// Side of the pictures in pixels.
    pub size: u32,
    /// Time from one part to the next.
    pub interval: Duration,
    /// How long Panoptes waits for the views of a part.
    pub timeout: Duration,
}

/// What goes wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// One camera sends nothing.
    MissingView,
    /// One camera's JPEG breaks off in the middle.
    CorruptPicture,
    /// One camera sends its view twice, with other bytes.
    DuplicateView,
    /// One camera's view comes when its part has long been published.
    LateView,
}

impl Fault {
    /// Every fault, in the order in which they are played.
    pub const ALL: [Self; 4] = [
        Self::MissingView,
        Self::CorruptPicture,
        Self::DuplicateView,
        Self::LateView,
    ];

    /// What is done, in words.
    pub fn description(self) -> &'static str {
        match self {
            Self::MissingView => "camera sent nothing",
            Self::CorruptPicture => "JPEG broke off in the middle",
            Self::DuplicateView => "camera sent its view twice, with other bytes",
            Self::LateView => "view came after its part was published",
        }
    }

    /// What should become of it, in words.
    pub fn expectation(self) -> &'static str {
        match self {
            Self::MissingView => "scored without it after the timeout, for review",
            Self::CorruptPicture => "dead letter `decode`; other views scored, for review",
            Self::DuplicateView => "dead letter `duplicate`; part decided as usual",
            Self::LateView => "dead letter `late`; part scored without it, for review",
        }
    }

    /// The reason of the dead letter that it should cause, if it should cause one.
    pub fn dead_letter(self) -> Option<RejectReason> {
        match self {
            Self::MissingView => None,
            Self::CorruptPicture => Some(RejectReason::Decode),
            Self::DuplicateView => Some(RejectReason::Duplicate),
            Self::LateView => Some(RejectReason::Late),
        }
    }

    /// Whether the part should lack this view in its result, and so never be plainly `ok`.
    pub fn costs_the_view(self) -> bool {
        self != Self::DuplicateView
    }
}

/// One part of the plan.
#[derive(Clone, Debug)]
pub struct PlannedPart {
    /// Its ID.
    pub part_id: PartId,
    /// What it looks like.
    pub part: SyntheticPart,
    /// What goes wrong with it, and at which camera.
    pub fault: Option<(Fault, CameraView)>,
}

impl PlannedPart {
    /// What is really the case.
    pub fn truth(&self) -> Truth {
        self.part.defect.map_or(Truth::Good, |kind| {
            Truth::Defective(kind.as_str().to_owned())
        })
    }

    /// Its class, as the stream knows it.
    pub fn class_name(&self) -> ClassName {
        ClassName::from(self.part.class.as_str())
    }
}

/// The parts that the line makes.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// How the line runs.
    pub settings: ScenarioSettings,
    /// In the order of the line.
    pub parts: Vec<PlannedPart>,
}

/// A view as its camera takes it.
#[derive(Clone, Debug)]
pub struct TakenView {
    /// Which camera.
    pub view: ViewId,
    /// The picture as JPEG.
    pub jpeg: Vec<u8>,
    /// The true defect, one flag a pixel.
    pub mask: Vec<bool>,
    /// The picture at another quality: what a camera sends when it sends twice.
    second_jpeg: Option<Vec<u8>>,
}

/// One record that a camera sends.
#[derive(Clone, Debug)]
pub struct PlannedRecord {
    /// When, counted from the start of the line.
    pub at: Duration,
    /// The part, which is the record's key.
    pub part_id: PartId,
    /// Its class.
    pub class: ClassName,
    /// The camera.
    pub view: ViewId,
    /// How many views the part should have.
    pub expected_views: usize,
    /// The record's value.
    pub jpeg: Vec<u8>,
}

/// Quality of the cameras' JPEGs.
const JPEG_QUALITY: u8 = 95;
/// Quality of a view sent a second time.
const SECOND_QUALITY: u8 = 80;
/// Cameras fire one after the other, as they do when they share a light.
const CAMERA_STAGGER: Duration = Duration::from_millis(8);

impl Scenario {
    /// Chooses parts and faults: classes in turn, defects and faults strewn in by the seed.
    ///
    /// Faults befall good parts only, so that what becomes of them is theirs alone.
    pub fn plan(settings: ScenarioSettings) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(settings.seed);
        let count = settings.parts.max(Fault::ALL.len());
        let mut defects = planned_defects(count, settings.defective_share);
        defects.shuffle(&mut random);
        let mut parts: Vec<PlannedPart> = defects
            .into_iter()
            .enumerate()
            .map(|(number, defect)| {
                let class = ClassKind::ALL[number % ClassKind::ALL.len()];
                PlannedPart {
                    part_id: PartId::new(format!("{}-{:04}", class.as_str(), number + 1)),
                    part: SyntheticPart {
                        class,
                        seed: random.random(),
                        defect,
                    },
                    fault: None,
                }
            })
            .collect();
        strew_faults(&mut parts);
        Self { settings, parts }
    }

    /// Takes every part's pictures, on all cores; `taken` is told after each part.
    ///
    /// # Errors
    /// When a picture cannot be encoded.
    pub fn render(&self, taken: impl Fn() + Sync) -> anyhow::Result<Vec<Vec<TakenView>>> {
        self.parts
            .par_iter()
            .map(|planned| {
                let views = render(&planned.part, self.settings.size)
                    .into_iter()
                    .map(|view| take(view, planned.fault))
                    .collect();
                taken();
                views
            })
            .collect()
    }

    /// What the cameras send, in the order of time.
    pub fn records(&self, views: &[Vec<TakenView>]) -> Vec<PlannedRecord> {
        let mut records = Vec::new();
        for (number, (planned, taken)) in self.parts.iter().zip(views).enumerate() {
            let start = self.settings.interval * u32::try_from(number).unwrap_or(u32::MAX);
            for (camera, view) in taken.iter().enumerate() {
                let at = start + CAMERA_STAGGER * u32::try_from(camera).unwrap_or(u32::MAX);
                let fault = planned.fault.filter(|(_, at)| at.view_id() == view.view);
                self.send(
                    planned,
                    view,
                    fault.map(|(fault, _)| fault),
                    at,
                    &mut records,
                );
            }
        }
        records.sort_by_key(|record| record.at);
        records
    }

    fn send(
        &self,
        planned: &PlannedPart,
        view: &TakenView,
        fault: Option<Fault>,
        at: Duration,
        records: &mut Vec<PlannedRecord>,
    ) {
        let record = |at: Duration, jpeg: &[u8]| PlannedRecord {
            at,
            part_id: planned.part_id.clone(),
            class: planned.class_name(),
            view: view.view.clone(),
            expected_views: CameraView::ALL.len(),
            jpeg: jpeg.to_vec(),
        };
        match fault {
            None => records.push(record(at, &view.jpeg)),
            Some(Fault::MissingView) => {}
            Some(Fault::CorruptPicture) => {
                records.push(record(at, &view.jpeg[..view.jpeg.len() / 2]));
            }
            Some(Fault::DuplicateView) => {
                records.push(record(at, &view.jpeg));
                if let Some(second) = &view.second_jpeg {
                    records.push(record(at + Duration::from_millis(1), second));
                }
            }
            // Half as long again as Panoptes waits: the part has been published by then.
            Some(Fault::LateView) => {
                records.push(record(at + self.settings.timeout * 3 / 2, &view.jpeg));
            }
        }
    }
}

/// Defects for `count` parts, every kind in turn.
fn planned_defects(count: usize, share: f64) -> Vec<Option<DefectKind>> {
    let most = count - Fault::ALL.len();
    let defective = ((count as f64 * share).round() as usize).min(most);
    (0..count)
        .map(|number| (number < defective).then(|| DefectKind::ALL[number % DefectKind::ALL.len()]))
        .collect()
}

/// Gives each fault a good part of its own, spread over the first two thirds of the line, so that
/// a late view still finds the line running.
fn strew_faults(parts: &mut [PlannedPart]) {
    let good: Vec<usize> = (0..parts.len())
        .filter(|&at| parts[at].part.defect.is_none())
        .collect();
    let within = (good.len() * 2 / 3).max(Fault::ALL.len());
    for (turn, fault) in Fault::ALL.into_iter().enumerate() {
        let index = good[turn * within / Fault::ALL.len()];
        parts[index].fault = Some((fault, CameraView::ALL[1 + turn]));
    }
}

fn take(view: RenderedView, fault: Option<(Fault, CameraView)>) -> anyhow::Result<TakenView> {
    let is_doubled =
        fault.is_some_and(|(fault, at)| fault == Fault::DuplicateView && at.view_id() == view.view);
    let second_jpeg = match is_doubled {
        true => Some(encoded(&view.image, SECOND_QUALITY)?),
        false => None,
    };
    Ok(TakenView {
        jpeg: encoded(&view.image, JPEG_QUALITY)?,
        second_jpeg,
        view: view.view,
        mask: view.mask,
    })
}

fn encoded(image: &RgbImage, quality: u8) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, quality)
        .write_image(
            &image.pixels,
            image.width,
            image.height,
            ExtendedColorType::Rgb8,
        )
        .context("cannot encode a rendered picture")?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn settings() -> ScenarioSettings {
        ScenarioSettings {
            parts: 12,
            defective_share: 0.4,
            seed: 5,
            size: 32,
            interval: Duration::from_millis(100),
            timeout: Duration::from_secs(2),
        }
    }

    #[test]
    fn a_seed_fixes_the_plan() {
        let plan = |seed| Scenario::plan(ScenarioSettings { seed, ..settings() });
        let specs = |scenario: Scenario| -> Vec<SyntheticPart> {
            scenario
                .parts
                .into_iter()
                .map(|planned| planned.part)
                .collect()
        };
        assert_eq!(specs(plan(1)), specs(plan(1)));
        assert_ne!(specs(plan(1)), specs(plan(2)));
    }

    #[test]
    fn part_ids_are_unique_and_the_defective_share_is_kept() {
        let scenario = Scenario::plan(ScenarioSettings {
            parts: 40,
            ..settings()
        });
        let ids: HashSet<&PartId> = scenario
            .parts
            .iter()
            .map(|planned| &planned.part_id)
            .collect();
        assert_eq!(ids.len(), 40);
        let defective = scenario
            .parts
            .iter()
            .filter(|it| it.part.defect.is_some())
            .count();
        assert_eq!(defective, 16);
    }

    #[test]
    fn every_fault_befalls_one_good_part() {
        for parts in [1, 4, 7, 40] {
            for defective_share in [0.0, 0.5, 1.0] {
                let scenario = Scenario::plan(ScenarioSettings {
                    parts,
                    defective_share,
                    ..settings()
                });
                let faulty: Vec<&PlannedPart> = scenario
                    .parts
                    .iter()
                    .filter(|planned| planned.fault.is_some())
                    .collect();
                assert_eq!(faulty.len(), Fault::ALL.len());
                assert!(faulty.iter().all(|planned| planned.part.defect.is_none()));
            }
        }
    }

    #[test]
    fn records_come_in_order_and_play_the_faults() {
        let scenario = Scenario::plan(settings());
        let views = scenario.render(|| {}).unwrap();
        let records = scenario.records(&views);
        assert!(records.is_sorted_by_key(|record| record.at));
        for (planned, taken) in scenario.parts.iter().zip(&views) {
            let sent: Vec<&PlannedRecord> = records
                .iter()
                .filter(|record| record.part_id == planned.part_id)
                .collect();
            let Some((fault, camera)) = planned.fault else {
                assert_eq!(sent.len(), 5);
                continue;
            };
            let of_view: Vec<&&PlannedRecord> = sent
                .iter()
                .filter(|record| record.view == camera.view_id())
                .collect();
            let jpeg = &taken
                .iter()
                .find(|view| view.view == camera.view_id())
                .unwrap()
                .jpeg;
            match fault {
                Fault::MissingView => assert!(of_view.is_empty()),
                Fault::CorruptPicture => assert!(of_view[0].jpeg.len() < jpeg.len()),
                Fault::DuplicateView => assert_ne!(of_view[0].jpeg, of_view[1].jpeg),
                Fault::LateView => {
                    let first = sent.iter().map(|record| record.at).min().unwrap();
                    assert!(of_view[0].at > first + scenario.settings.timeout);
                }
            }
        }
    }
}
