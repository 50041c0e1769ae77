//! What the simulated line makes: good parts, defective parts, and parts with a fault on the way.

use rayon::prelude::*;

use crate::cli::synth::encode_jpeg;
use crate::domain::{RejectReason, RgbImage};
use crate::synthetic::{CameraView, ClassKind, DefectKind, SyntheticPart, render};

/// The cameras, in the order in which results name them.
pub(super) const VIEWS: [&str; 5] = ["top", "left", "right", "front", "back"];

/// The view that faults are played on.
pub(super) const FAULTY_VIEW: usize = 3;

/// Every third part has a defect.
const DEFECT_EVERY: usize = 3;

/// Something that goes wrong between camera and consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A camera never sends its view.
    MissingView,
    /// A view's JPEG is cut off in the middle.
    CorruptJpeg,
    /// A camera sends its view twice, and the second image differs.
    DuplicateView,
    /// A view comes after its part was published.
    LateView,
}

/// The faults that the demo plays, one part each.
pub(super) const FAULTS: [Fault; 4] = [
    Fault::MissingView,
    Fault::CorruptJpeg,
    Fault::DuplicateView,
    Fault::LateView,
];

impl Fault {
    /// What is played, in words.
    pub(super) fn played(self) -> &'static str {
        match self {
            Self::MissingView => "one camera never sent its view",
            Self::CorruptJpeg => "one view's JPEG was cut off",
            Self::DuplicateView => "one view was sent twice, with different images",
            Self::LateView => "one view came after the part was published",
        }
    }

    /// What should become of it, in words.
    pub(super) fn expected(self) -> &'static str {
        match self {
            Self::MissingView => "scored from the other views at the timeout; a person must look",
            Self::CorruptJpeg => {
                "dead letter `decode`; scored from the other views; a person must look"
            }
            Self::DuplicateView => "first image scored, second to the dead letters as `duplicate`",
            Self::LateView => "scored at the timeout; the late view to the dead letters as `late`",
        }
    }

    /// The dead letter that the fault must leave.
    pub(super) fn dead_letter(self) -> Option<RejectReason> {
        match self {
            Self::MissingView => None,
            Self::CorruptJpeg => Some(RejectReason::Decode),
            Self::DuplicateView => Some(RejectReason::Duplicate),
            Self::LateView => Some(RejectReason::Late),
        }
    }
}

/// A rendered view, as its camera sends it.
#[derive(Clone, Debug)]
pub(super) struct DemoView {
    pub(super) name: &'static str,
    pub(super) jpeg: Vec<u8>,
    pub(super) width: u32,
    pub(super) height: u32,
    /// How many pixels truly show the defect.
    pub(super) defect_pixels: usize,
}

/// A part of the demo.
#[derive(Clone, Debug)]
pub(super) struct DemoPart {
    pub(super) id: String,
    pub(super) class: ClassKind,
    pub(super) defect: Option<DefectKind>,
    pub(super) fault: Option<Fault>,
    pub(super) views: Vec<DemoView>,
    /// The second, different image of [`Fault::DuplicateView`].
    pub(super) second_image: Option<Vec<u8>>,
}

/// Renders `count` parts of all classes, every third with a defect, and one part a fault spread
/// among them.
pub(super) fn render_parts(
    count: u32,
    seed: u64,
    done: impl Fn() + Sync,
) -> anyhow::Result<Vec<DemoPart>> {
    let count = count as usize;
    let mut plan: Vec<(usize, Option<Fault>)> = (0..count).map(|number| (number, None)).collect();
    for (nth, fault) in FAULTS.into_iter().enumerate() {
        let place = (nth + 1) * plan.len() / (FAULTS.len() + 1);
        plan.insert(place, (count + nth, Some(fault)));
    }
    plan.into_par_iter()
        .map(|(number, fault)| {
            let part = render_part(number, seed, fault)?;
            done();
            Ok(part)
        })
        .collect()
}

fn render_part(number: usize, seed: u64, fault: Option<Fault>) -> anyhow::Result<DemoPart> {
    let class = CLASSES[number % CLASSES.len()];
    let defect = planned_defect(number).filter(|_| fault.is_none());
    let part = SyntheticPart {
        class,
        seed: seed + number as u64,
        defect,
    };
    let mut views = Vec::with_capacity(VIEWS.len());
    for (name, rendered) in VIEWS.into_iter().zip(render(&part, PICTURE_SIDE)) {
        debug_assert_eq!(rendered.view.as_str(), name);
        views.push(DemoView {
            name,
            jpeg: encode_jpeg(&rendered.image)?,
            width: rendered.image.width,
            height: rendered.image.height,
            defect_pixels: rendered.mask_pixels(),
        });
    }
    let second_image = match fault {
        Some(Fault::DuplicateView) => Some(another_image(&part)?),
        _ => None,
    };
    Ok(DemoPart {
        id: format!("{}-{:04}", class.as_str(), number + 1),
        class,
        defect,
        fault,
        views,
        second_image,
    })
}

/// The defect of the part with this number. Each round through the classes starts one part further
/// on, so that every class brings good and defective parts.
fn planned_defect(number: usize) -> Option<DefectKind> {
    let round = number / CLASSES.len();
    let kind = DefectKind::ALL[(number / DEFECT_EVERY) % DefectKind::ALL.len()];
    ((number + round) % DEFECT_EVERY == DEFECT_EVERY - 1).then_some(kind)
}

/// The classes that the demo's model was trained on.
pub(in crate::cli) const CLASSES: [ClassKind; 6] = [
    ClassKind::Bolt,
    ClassKind::Gear,
    ClassKind::Bushing,
    ClassKind::Bracket,
    ClassKind::Cap,
    ClassKind::Bearing,
];

/// Side of the rendered pictures.
pub(in crate::cli) const PICTURE_SIDE: u32 = 192;

/// The same view of the part, with the exposure a little up: a camera that fired twice.
fn another_image(part: &SyntheticPart) -> anyhow::Result<Vec<u8>> {
    let rendered = render(part, PICTURE_SIDE).swap_remove(FAULTY_VIEW);
    debug_assert_eq!(CameraView::ALL.len(), VIEWS.len());
    let brighter = RgbImage {
        pixels: rendered
            .image
            .pixels
            .iter()
            .map(|level| level.saturating_add(9))
            .collect(),
        ..rendered.image
    };
    encode_jpeg(&brighter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_brings_good_and_defective_parts() {
        let classes = CLASSES.len();
        let rounds = DEFECT_EVERY;
        for (number, class) in CLASSES.into_iter().enumerate() {
            let planned = (0..rounds).map(|round| planned_defect(number + round * classes));
            let defective = planned.flatten().count();
            assert_eq!(defective, 1, "{class:?}");
        }
    }
}
