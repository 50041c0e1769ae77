//! The demo's `report.html`: one self-contained page that a plant engineer can open anywhere.
//!
//! Style, pictures and maps are inside the page; it fetches nothing and runs no script. Every
//! piece of text from outside is escaped. When the pictures would make the page too heavy, those
//! of undisputed good parts are left out first, and the page says so.

mod page;
mod picture;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use anyhow::Context;

use crate::domain::{AnomalyMap, Decision, Region, ViewStatus};

/// Everything that the page shows.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The figures at the top.
    pub summary: Summary,
    /// One entry a part, in the order of the line.
    pub parts: Vec<PartEntry>,
    /// Faults that were played on purpose.
    pub faults: Vec<FaultEntry>,
}

/// What the page says of the run as a whole; counts by decision come from the parts.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// The line.
    pub line: String,
    /// Model name and version.
    pub model: String,
    /// When the run ended, for people.
    pub finished_at: String,
    /// How long parts flowed.
    pub elapsed: Duration,
    /// Camera records read.
    pub records: usize,
    /// Dead letters published.
    pub dead_letters: usize,
    /// Parts sent without a result.
    pub lost: usize,
    /// Parts with more than one result.
    pub doubled: usize,
    /// Median time from a part's last view to its result.
    pub median_latency: Option<Duration>,
}

/// One part: what the line knew, what Panoptes decided.
#[derive(Clone, Debug)]
pub struct PartEntry {
    /// The part's ID.
    pub part_id: String,
    /// Its class.
    pub class: String,
    /// What is really the case.
    pub truth: Truth,
    /// The published decision.
    pub decision: Decision,
    /// The part's score; none if it was not scored.
    pub score: Option<f32>,
    /// The threshold of its class.
    pub threshold: Option<f32>,
    /// Its views, in the order of the cameras.
    pub views: Vec<ViewEntry>,
}

/// Whether a part is really good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Truth {
    /// Without a defect.
    Good,
    /// With a defect of the named kind.
    Defective(String),
}

/// One view of a part.
#[derive(Clone, Debug)]
pub struct ViewEntry {
    /// The view's name.
    pub view: String,
    /// What became of it.
    pub status: ViewStatus,
    /// Its score, if scored.
    pub score: Option<f32>,
    /// Its picture, if it came.
    pub picture: Option<Picture>,
    /// Its anomaly map, stretched over the picture.
    pub map: Option<AnomalyMap>,
    /// Defect regions in pixels of the picture.
    pub regions: Vec<Region>,
    /// The true defect, one flag a pixel of the picture, if known.
    pub mask: Option<Vec<bool>>,
}

/// A picture as the camera sent it.
#[derive(Clone, Debug)]
pub struct Picture {
    /// JPEG bytes; they need not be sound.
    pub jpeg: Vec<u8>,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

/// A fault played on purpose, and what became of it.
#[derive(Clone, Debug)]
pub struct FaultEntry {
    /// What was done, in words.
    pub played: String,
    /// The part it befell.
    pub part_id: String,
    /// The view it befell.
    pub view: String,
    /// What should become of it.
    pub expected: String,
    /// What became of it.
    pub outcome: String,
    /// Whether the two agree.
    pub is_as_expected: bool,
}

/// How truth and decision meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Agreement {
    /// Good and passed.
    Passed,
    /// Defective and rejected.
    Caught,
    /// Good and rejected.
    FalseAlarm,
    /// Defective and passed.
    Missed,
    /// Left to a person.
    ForReview,
}

impl PartEntry {
    fn agreement(&self) -> Agreement {
        match (self.decision, &self.truth) {
            (Decision::Review, _) => Agreement::ForReview,
            (Decision::Ok, Truth::Good) => Agreement::Passed,
            (Decision::Ok, Truth::Defective(_)) => Agreement::Missed,
            (Decision::Ng, Truth::Good) => Agreement::FalseAlarm,
            (Decision::Ng, Truth::Defective(_)) => Agreement::Caught,
        }
    }

    /// The view with the highest score.
    pub(crate) fn worst_view(&self) -> Option<&ViewEntry> {
        self.views
            .iter()
            .filter(|view| view.score.is_some())
            .max_by(|first, second| {
                let score = |view: &ViewEntry| view.score.unwrap_or(f32::MIN);
                score(first).total_cmp(&score(second))
            })
    }

    fn picture_bytes(&self) -> usize {
        let picture = |view: &ViewEntry| view.picture.as_ref().map_or(0, |it| it.jpeg.len());
        self.views.iter().map(picture).sum()
    }
}

/// JPEG bytes that a page may carry; with base64 and maps that stays below 8 MB.
const MAX_PICTURE_BYTES: usize = 4_500_000;

/// Which parts keep their pictures: all, or those that a reader must see before the others.
fn parts_with_pictures(parts: &[PartEntry]) -> Vec<bool> {
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by_key(|&index| parts[index].agreement() == Agreement::Passed);
    let mut shown = vec![false; parts.len()];
    let mut left = MAX_PICTURE_BYTES;
    for index in order {
        let needed = parts[index].picture_bytes();
        if needed <= left {
            left -= needed;
            shown[index] = true;
        }
    }
    shown
}

/// The page as HTML.
///
/// # Errors
/// When an overlay cannot be encoded, which only an absurd map size causes.
pub fn compose_report(report: &Report) -> anyhow::Result<String> {
    page::compose(report)
}

/// Writes the page to `path`.
///
/// # Errors
/// When the page cannot be composed or the file not written.
pub fn write_report(report: &Report, path: &Path) -> anyhow::Result<()> {
    let page = compose_report(report)?;
    std::fs::write(path, page).with_context(|| format!("cannot write `{}`", path.display()))
}
