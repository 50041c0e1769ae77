//! Figures as a table that a person reads.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::measurement::{Figures, MeasuredPart, figures};
use super::ranking::RankingFigures;

/// Figures of each class, and their mean over the classes that have them.
#[derive(Clone, Debug, PartialEq)]
pub struct FigureTable {
    /// Figures by class, with the numbers of parts and of bad parts.
    pub classes: BTreeMap<String, (usize, usize, Figures)>,
    /// The mean over classes.
    pub mean: Figures,
}

/// Figures of all parts, class by class.
pub fn tabulate(parts: &[&MeasuredPart]) -> FigureTable {
    let mut classes = BTreeMap::new();
    for part in parts {
        classes.entry(part.class.clone()).or_insert_with(|| {
            let own = parts.iter().copied();
            let own = own.filter(|other| other.class == part.class);
            let bad = own.clone().filter(|other| other.is_anomalous()).count();
            (own.clone().count(), bad, figures(own))
        });
    }
    let all: Vec<Figures> = classes.values().map(|(_, _, figures)| *figures).collect();
    FigureTable {
        classes,
        mean: mean_figures(&all),
    }
}

fn mean_figures(all: &[Figures]) -> Figures {
    let ranking = |choose: fn(&Figures) -> Option<RankingFigures>| {
        let of = |number: fn(&RankingFigures) -> f64| {
            mean(
                all.iter()
                    .filter_map(choose)
                    .map(|figures| number(&figures)),
            )
        };
        Some(RankingFigures {
            auroc: of(|figures| figures.auroc)?,
            average_precision: of(|figures| figures.average_precision)?,
            best_f1: of(|figures| figures.best_f1)?,
        })
    };
    Figures {
        image: ranking(|figures| figures.image),
        sample: ranking(|figures| figures.sample),
        pixel: ranking(|figures| figures.pixel),
        aupro: mean(all.iter().filter_map(|figures| figures.aupro)),
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let values: Vec<f64> = values.collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

impl FigureTable {
    /// The table in Markdown; a figure that does not exist is `-`.
    pub fn to_markdown(&self) -> String {
        let mut text = String::from(
            "| class | parts | bad | part AUROC | AP | F1 | view AUROC | AP | F1 | pixel AUROC | AP | F1 | AUPRO |\n\
             | --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |\n",
        );
        let (mut parts, mut bad) = (0, 0);
        for (class, (class_parts, class_bad, figures)) in &self.classes {
            parts += class_parts;
            bad += class_bad;
            push_row(&mut text, class, (*class_parts, *class_bad), figures);
        }
        push_row(&mut text, "mean", (parts, bad), &self.mean);
        text
    }
}

fn push_row(text: &mut String, name: &str, (parts, bad): (usize, usize), figures: &Figures) {
    let mut row = format!("| {name} | {parts} | {bad} |");
    for ranking in [figures.sample, figures.image, figures.pixel] {
        for number in [
            ranking.map(|figures| figures.auroc),
            ranking.map(|figures| figures.average_precision),
            ranking.map(|figures| figures.best_f1),
        ] {
            push_cell(&mut row, number);
        }
    }
    push_cell(&mut row, figures.aupro);
    text.push_str(&row);
    text.push('\n');
}

fn push_cell(row: &mut String, number: Option<f64>) {
    let written = match number {
        Some(number) => write!(row, " {number:.3} |"),
        None => write!(row, " - |"),
    };
    written.expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::AnomalyMap;
    use crate::evaluation::measurement::MeasuredView;

    fn part(class: &str, score: f32, is_anomalous: bool) -> MeasuredPart {
        let map = AnomalyMap {
            width: 2,
            height: 1,
            values: vec![score, 0.0],
        };
        let defect = if is_anomalous {
            vec![true, false]
        } else {
            Vec::new()
        };
        let view = MeasuredView {
            view: "top".to_owned(),
            score,
            map,
            defect,
            is_anomalous,
        };
        MeasuredPart {
            class: class.to_owned(),
            part: "p".to_owned(),
            views: vec![view],
        }
    }

    #[test]
    fn the_mean_is_over_classes_that_have_the_figure() {
        let parts = [
            part("bolt", 0.9, true),
            part("bolt", 0.1, false),
            part("gear", 0.1, true),
            part("gear", 0.9, false),
            part("nut", 0.5, false),
        ];
        let table = tabulate(&parts.iter().collect::<Vec<_>>());
        assert_eq!(table.mean.sample.unwrap().auroc, 0.5);
        let text = table.to_markdown();
        assert!(text.contains("| bolt | 2 | 1 | 1.000 |"), "{text}");
        assert!(text.contains("| nut | 1 | 0 | - |"), "{text}");
        assert!(text.contains("| mean | 5 | 2 | 0.500 |"), "{text}");
    }
}
