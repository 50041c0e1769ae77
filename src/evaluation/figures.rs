//! The figures of a class: what is added part by part, kind of defect by kind of defect.
//!
//! Maps are counted and let go; what stays are the scores of views and parts and the sums of
//! [`pixels`], so that a class of any size fits into memory.

use std::collections::BTreeMap;

use serde::Serialize;

use super::measurement::{MeasuredPart, MeasurementError};
use super::pixels::{self, PixelSums};
use super::ranking::{RankingFigures, rank};
use crate::training::dataset::PartFolder;

/// The figures of one class or of the mean over classes, each from 0 to 1. A figure that is not
/// defined, as none is without both good and bad ones, is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Over views, by view score.
    pub image: Option<RankingFigures>,
    /// Over the pixels of all maps.
    pub pixel: Option<RankingFigures>,
    /// Area under the per-region overlap.
    pub aupro: Option<f64>,
    /// Over parts, by the highest view score (as Real-IAD defines it, and as the stream decides).
    pub sample: Option<RankingFigures>,
    /// Over parts, by the mean of the highest hundredth of the pixels of all their views (as
    /// Dinomaly2 has it).
    pub pooled_sample: Option<RankingFigures>,
}

/// Figures with the numbers of parts that they come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct CountedFigures {
    /// Parts.
    pub parts: usize,
    /// Parts that show a defect.
    pub bad: usize,
    /// Their figures.
    #[serde(flatten)]
    pub figures: Figures,
}

/// What is kept of some parts of one class.
#[derive(Clone, Debug, Default)]
pub struct PartSums {
    pixels: PixelSums,
    views: Vec<(f32, bool)>,
    parts: Vec<(f32, bool)>,
    pooled: Vec<(f32, bool)>,
}

impl PartSums {
    /// Adds a part.
    ///
    /// # Errors
    /// When a map cannot be counted; names the view. The part must not be added again then.
    pub fn add(&mut self, part: &MeasuredPart) -> Result<(), MeasurementError> {
        for view in &part.views {
            let counted = self.pixels.add(&view.map, &view.defect);
            counted.map_err(|fault| part.fault(&view.view, fault))?;
            self.views.push((view.score, view.is_anomalous));
        }
        let is_anomalous = part.is_anomalous();
        self.parts.push((part.score(), is_anomalous));
        self.pooled.push((part.pooled_score()?, is_anomalous));
        Ok(())
    }
}

/// The figures of some sums taken together.
pub fn figures(sums: &[&PartSums]) -> CountedFigures {
    let all = |scores: fn(&PartSums) -> &Vec<(f32, bool)>| -> Vec<(f32, bool)> {
        sums.iter().flat_map(|sums| scores(sums)).copied().collect()
    };
    let parts = all(|sums| &sums.parts);
    let pixels = pixels::figures(&sums.iter().map(|sums| &sums.pixels).collect::<Vec<_>>());
    CountedFigures {
        parts: parts.len(),
        bad: parts.iter().filter(|(_, bad)| *bad).count(),
        figures: Figures {
            image: rank(all(|sums| &sums.views)),
            pixel: pixels.ranking,
            aupro: pixels.aupro,
            sample: rank(parts),
            pooled_sample: rank(all(|sums| &sums.pooled)),
        },
    }
}

/// What is kept of a class: good parts, and the bad ones by their kind of defect.
#[derive(Clone, Debug, Default)]
pub struct ClassSums {
    good: PartSums,
    bad: BTreeMap<Option<String>, PartSums>,
}

/// The figures of a class.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClassFigures {
    /// Of all its parts.
    pub all: CountedFigures,
    /// Of each kind of defect against all good parts.
    pub kinds: BTreeMap<String, CountedFigures>,
}

impl ClassSums {
    /// Adds a part; `kind` says which defect a bad one has, if that is known.
    ///
    /// # Errors
    /// When a map cannot be counted; names the view.
    pub fn add(&mut self, part: &MeasuredPart, kind: Option<&str>) -> Result<(), MeasurementError> {
        match part.is_anomalous() {
            false => self.good.add(part),
            true => {
                let kind = kind.map(str::to_owned);
                self.bad.entry(kind).or_default().add(part)
            }
        }
    }

    /// The figures of all that was added.
    pub fn figures(&self) -> ClassFigures {
        let all: Vec<&PartSums> = std::iter::once(&self.good)
            .chain(self.bad.values())
            .collect();
        let kinds = self.bad.iter().filter_map(|(kind, sums)| {
            let kind = kind.clone()?;
            Some((kind, figures(&[&self.good, sums])))
        });
        ClassFigures {
            all: figures(&all),
            kinds: kinds.collect(),
        }
    }
}

/// The figures of each class, with parts measured one by one and class after class: no map outlives
/// its part, and no class's sums outlive the class. `kind` says which defect a bad part has, if that
/// is known.
///
/// # Errors
/// When a part cannot be measured or counted.
pub fn by_class<E: From<MeasurementError>>(
    mut listed: Vec<PartFolder>,
    kind: impl Fn(&PartFolder) -> Option<String>,
    mut measure: impl FnMut(&PartFolder) -> Result<MeasuredPart, E>,
) -> Result<BTreeMap<String, ClassFigures>, E> {
    listed.sort_by(|a, b| a.class.cmp(&b.class));
    let mut classes = BTreeMap::new();
    for folders in listed.chunk_by(|a, b| a.class == b.class) {
        let mut sums = ClassSums::default();
        for folder in folders {
            sums.add(&measure(folder)?, kind(folder).as_deref())?;
        }
        classes.insert(folders[0].class.clone(), sums.figures());
    }
    Ok(classes)
}

/// The mean of each figure over the classes that have it, and the numbers of all their parts.
pub fn mean<'a>(all: impl Iterator<Item = &'a CountedFigures> + Clone) -> CountedFigures {
    let ranking = |choose: fn(&Figures) -> Option<RankingFigures>| {
        let of = |number: fn(&RankingFigures) -> f64| {
            let chosen = all.clone().filter_map(|row| choose(&row.figures));
            mean_number(chosen.map(|figures| number(&figures)))
        };
        Some(RankingFigures {
            auroc: of(|figures| figures.auroc)?,
            average_precision: of(|figures| figures.average_precision)?,
            best_f1: of(|figures| figures.best_f1)?,
        })
    };
    CountedFigures {
        parts: all.clone().map(|row| row.parts).sum(),
        bad: all.clone().map(|row| row.bad).sum(),
        figures: Figures {
            image: ranking(|figures| figures.image),
            pixel: ranking(|figures| figures.pixel),
            aupro: mean_number(all.clone().filter_map(|row| row.figures.aupro)),
            sample: ranking(|figures| figures.sample),
            pooled_sample: ranking(|figures| figures.pooled_sample),
        },
    }
}

fn mean_number(values: impl Iterator<Item = f64>) -> Option<f64> {
    let values: Vec<f64> = values.collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::measurement::testing::part;

    #[test]
    fn the_mean_is_over_classes_that_have_the_figure() {
        let class = |scores: &[(f32, bool)]| {
            let mut sums = ClassSums::default();
            for (score, bad) in scores {
                sums.add(&part("bolt", *score, *bad), None).unwrap();
            }
            sums.figures().all
        };
        let rows = [
            class(&[(0.9, true), (0.1, false)]),
            class(&[(0.1, true), (0.9, false)]),
            class(&[(0.5, false)]),
        ];
        assert_eq!(rows[0].figures.sample.unwrap().auroc, 1.0);
        assert_eq!(rows[2].figures, Figures::default());
        let mean = mean(rows.iter());
        assert_eq!((mean.parts, mean.bad), (5, 2));
        assert_eq!(mean.figures.sample.unwrap().auroc, 0.5);
        assert_eq!(mean.figures.pooled_sample.unwrap().auroc, 0.5);
    }

    #[test]
    fn a_kind_of_defect_is_held_against_all_good_parts_and_no_other_kind() {
        let parts = [
            (0.2, false, None),
            (0.4, false, None),
            (0.5, true, Some("dent")),
            (0.1, true, Some("scratch")),
            (0.3, true, None),
        ];
        let mut sums = ClassSums::default();
        let mut alone = ClassSums::default();
        for (score, bad, kind) in parts {
            sums.add(&part("bolt", score, bad), kind).unwrap();
            if !bad || kind == Some("scratch") {
                alone.add(&part("bolt", score, bad), None).unwrap();
            }
        }
        let figures = sums.figures();
        assert_eq!((figures.all.parts, figures.all.bad), (5, 3));
        assert_eq!(figures.kinds.len(), 2);
        assert_eq!(figures.kinds["dent"].figures.sample.unwrap().auroc, 1.0);
        assert_eq!(figures.kinds["scratch"], alone.figures().all);
        assert_eq!(figures.kinds["scratch"].figures.sample.unwrap().auroc, 0.0);
    }

    #[test]
    fn classes_may_be_listed_in_any_order() {
        let folder = |class: &str, part: &str| PartFolder {
            class: class.to_owned(),
            part: part.to_owned(),
            views: Vec::new(),
        };
        let listed = [("nut", "1"), ("bolt", "2"), ("nut", "3"), ("bolt", "4")];
        let listed = listed.map(|(class, part)| folder(class, part)).to_vec();
        let measure = |folder: &PartFolder| -> Result<MeasuredPart, MeasurementError> {
            let score: f32 = folder.part.parse().unwrap();
            Ok(part(&folder.class, score, score > 2.0))
        };
        let classes = by_class(listed, |_| Some("dent".to_owned()), measure).unwrap();
        for class in ["bolt", "nut"] {
            assert_eq!((classes[class].all.parts, classes[class].all.bad), (2, 1));
            assert_eq!(classes[class].kinds["dent"], classes[class].all);
        }
    }

    #[test]
    fn a_value_that_is_no_number_names_the_view() {
        let mut part = part("bolt", 0.3, false);
        part.views[0].map.values[1] = f32::NAN;
        let error = ClassSums::default().add(&part, None).unwrap_err();
        let expected = "image `bolt/p/top`: expected finite values in the anomaly map, found `NaN` at column 1, row 0";
        assert_eq!(error.to_string(), expected);
    }
}
