//! What `eval` says of a model: figures class by class, their mean, and how thresholds decide.
//!
//! Text and Markdown show percentages with one decimal, as papers do; JSON holds numbers from 0 to
//! 1 as they are, and `null` where a figure is not defined. The levels, their figures and the
//! protocol are those of the [parent module](super).

use std::collections::BTreeMap;

use serde::Serialize;

use super::calibration::ErrorCounts;
use super::figures::{ClassFigures, CountedFigures, mean};
use super::published::{FIGURE_COLUMNS, PublishedRow, REAL_IAD, compare, is_real_iad};
use super::ranking::RankingFigures;
use super::sheet::{Column, Sheet};

/// All that was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Name and version of the model.
    pub model: String,
    /// Figures by class.
    pub classes: BTreeMap<String, CountedFigures>,
    /// The mean over the classes that have the figure.
    pub mean: CountedFigures,
    /// For each kind of defect, against all good parts: the mean over the classes that have it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub kinds: BTreeMap<String, CountedFigures>,
    /// How the thresholds decide, by class; empty without thresholds.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub decisions: BTreeMap<String, ThresholdErrors>,
    /// Published figures, in percent, where the classes are those of Real-IAD.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub published_percent: &'static [PublishedRow],
}

/// How one class's threshold decides.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ThresholdErrors {
    /// A part with this score or a higher one is `ng`.
    pub threshold: f32,
    /// What it gets wrong.
    #[serde(flatten)]
    pub errors: ErrorCounts,
}

impl Report {
    /// The report on a model, from the figures of each class.
    pub fn new(
        model: String,
        measured: &BTreeMap<String, ClassFigures>,
        decisions: BTreeMap<String, ThresholdErrors>,
    ) -> Self {
        let mut kinds: BTreeMap<String, Vec<CountedFigures>> = BTreeMap::new();
        for (kind, figures) in measured.values().flat_map(|class| &class.kinds) {
            kinds.entry(kind.clone()).or_default().push(*figures);
        }
        let published: &[PublishedRow] = match is_real_iad(measured.keys().map(String::as_str)) {
            true => &REAL_IAD,
            false => &[],
        };
        let classes = measured.iter();
        Self {
            model,
            classes: classes
                .map(|(name, class)| (name.clone(), class.all))
                .collect(),
            mean: mean(measured.values().map(|class| &class.all)),
            kinds: kinds
                .into_iter()
                .map(|(kind, figures)| (kind, mean(figures.iter())))
                .collect(),
            decisions,
            published_percent: published,
        }
    }

    /// For a terminal.
    pub fn to_text(&self) -> String {
        self.tables(Sheet::to_text)
    }

    /// In Markdown.
    pub fn to_markdown(&self) -> String {
        self.tables(Sheet::to_markdown)
    }

    /// As one JSON object.
    pub fn to_json(&self) -> String {
        let text = serde_json::to_string_pretty(self);
        text.expect("names and finite numbers can always be written as JSON") + "\n"
    }

    fn tables(&self, write: fn(&Sheet) -> String) -> String {
        let tables: Vec<String> = self.sheets().iter().map(write).collect();
        tables.join("\n")
    }

    fn sheets(&self) -> Vec<Sheet> {
        let mut classes = figure_sheet(
            format!("{}, in %", self.model),
            "class",
            self.classes.iter().map(|(name, row)| (name.as_str(), row)),
        );
        classes.rows.push(figure_row("mean", &self.mean));
        classes.has_summary = true;
        let mut sheets = vec![classes];
        if !self.kinds.is_empty() {
            sheets.push(figure_sheet(
                "each kind of defect against all good parts, mean over classes, in %".to_owned(),
                "defect",
                self.kinds.iter().map(|(name, row)| (name.as_str(), row)),
            ));
        }
        if !self.decisions.is_empty() {
            sheets.push(self.decision_sheet());
        }
        if !self.published_percent.is_empty() {
            sheets.push(compare(self.published_percent, self.own_row()));
        }
        sheets
    }

    fn decision_sheet(&self) -> Sheet {
        let rows = self.decisions.iter().map(|(class, decided)| {
            let errors = decided.errors;
            let (passed, found) = (
                errors.good - errors.false_alarms,
                errors.bad - errors.missed,
            );
            vec![
                class.clone(),
                format!("{:.4}", decided.threshold),
                format!("{passed} of {}", errors.good),
                format!("{found} of {}", errors.bad),
            ]
        });
        Sheet {
            title: "how the thresholds decide".to_owned(),
            columns: vec![
                Column::words("class"),
                Column::numbers("", "threshold"),
                Column::numbers("", "good passed"),
                Column::numbers("", "bad found"),
            ],
            rows: rows.collect(),
            has_summary: false,
        }
    }

    fn own_row(&self) -> PublishedRow {
        let figures = self.mean.figures;
        let percent = |number: Option<f64>| number.map(|number| 100.0 * number);
        let pixel = numbers(figures.pixel);
        PublishedRow {
            method: "this model",
            image: numbers(figures.image).map(percent),
            pixel: [pixel[0], pixel[1], pixel[2], figures.aupro].map(percent),
            sample: numbers(figures.sample).map(percent),
            source: "",
        }
    }
}

fn figure_sheet<'a>(
    title: String,
    first: &'static str,
    rows: impl Iterator<Item = (&'a str, &'a CountedFigures)>,
) -> Sheet {
    let counts = [
        Column::words(first),
        Column::numbers("", "parts"),
        Column::numbers("", "bad"),
    ];
    let pooled = ["AUROC", "AP", "F1"].map(|name| Column::numbers("pooled sample", name));
    let columns = counts.into_iter().chain(FIGURE_COLUMNS).chain(pooled);
    Sheet {
        title,
        columns: columns.collect(),
        rows: rows.map(|(name, row)| figure_row(name, row)).collect(),
        has_summary: false,
    }
}

fn figure_row(name: &str, row: &CountedFigures) -> Vec<String> {
    let figures = row.figures;
    let mut cells = vec![name.to_owned(), row.parts.to_string(), row.bad.to_string()];
    let of = |ranking| numbers(ranking).into_iter();
    let all = of(figures.image)
        .chain(of(figures.pixel))
        .chain([figures.aupro])
        .chain(of(figures.sample))
        .chain(of(figures.pooled_sample));
    cells.extend(all.map(|number| match number {
        Some(number) => format!("{:.1}", 100.0 * number),
        None => "-".to_owned(),
    }));
    cells
}

fn numbers(ranking: Option<RankingFigures>) -> [Option<f64>; 3] {
    [
        ranking.map(|figures| figures.auroc),
        ranking.map(|figures| figures.average_precision),
        ranking.map(|figures| figures.best_f1),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::figures::ClassSums;
    use crate::evaluation::measurement::testing::part;
    use crate::evaluation::published::REAL_IAD_CLASSES;

    fn class(scores: &[(f32, bool)], kind: Option<&str>) -> ClassFigures {
        let mut sums = ClassSums::default();
        for (score, bad) in scores {
            sums.add(&part("bolt", *score, *bad), kind).unwrap();
        }
        sums.figures()
    }

    fn report() -> Report {
        let measured = BTreeMap::from([
            (
                "bolt".to_owned(),
                class(&[(0.9, true), (0.1, false)], Some("dent")),
            ),
            ("nut".to_owned(), class(&[(0.5, false)], None)),
        ]);
        let errors = ErrorCounts::of(&[(0.9, true), (0.1, false)], 0.5);
        let threshold = 0.5;
        let decided = ThresholdErrors { threshold, errors };
        let decisions = BTreeMap::from([("bolt".to_owned(), decided)]);
        Report::new("tiny 1".to_owned(), &measured, decisions)
    }

    #[test]
    fn the_table_has_the_levels_in_the_order_of_papers() {
        let text = report().to_text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "tiny 1, in %");
        let groups: Vec<&str> = lines[2].split_whitespace().collect();
        assert_eq!(groups, ["image", "pixel", "sample", "pooled", "sample"]);
        let row: Vec<&str> = lines[5].split_whitespace().collect();
        assert_eq!(row[..4], ["bolt", "2", "1", "100.0"]);
        assert_eq!(row.len(), 16);
        let row: Vec<&str> = lines[6].split_whitespace().collect();
        assert_eq!(row[..4], ["nut", "1", "0", "-"]);
        let row: Vec<&str> = lines[8].split_whitespace().collect();
        assert_eq!(row[..4], ["mean", "3", "1", "100.0"]);
        assert!(text.contains("\ndent "), "{text}");
        assert!(!text.contains("Real-IAD"), "{text}");
        let markdown = report().to_markdown();
        assert!(
            markdown.contains("\n| bolt | 2 | 1 | 100.0 |"),
            "{markdown}"
        );
        assert!(
            markdown.contains("\n| bolt | 0.5000 | 1 of 1 | 1 of 1 |"),
            "{markdown}"
        );
    }

    #[test]
    fn json_holds_the_numbers_as_they_are() {
        let json: serde_json::Value = serde_json::from_str(&report().to_json()).unwrap();
        assert_eq!(json["model"], "tiny 1");
        assert_eq!(json["classes"]["bolt"]["parts"], 2);
        assert_eq!(json["classes"]["bolt"]["sample"]["auroc"], 1.0);
        assert!(json["classes"]["nut"]["pixel"].is_null());
        assert_eq!(json["mean"]["image"]["average_precision"], 1.0);
        assert_eq!(json["kinds"]["dent"]["bad"], 1);
        assert_eq!(json["decisions"]["bolt"]["threshold"], 0.5);
        assert_eq!(json["decisions"]["bolt"]["false_alarms"], 0);
        assert!(json.get("published_percent").is_none());
    }

    #[test]
    fn the_figures_of_real_iad_stand_beside_the_published_ones() {
        let class = class(&[(0.9, true), (0.1, false)], None);
        let classes = REAL_IAD_CLASSES.map(|name| (name.to_owned(), class.clone()));
        let measured = BTreeMap::from(classes);
        let report = Report::new("tiny 1".to_owned(), &measured, BTreeMap::new());
        let text = report.to_text();
        assert!(text.contains("published on Real-IAD"), "{text}");
        assert!(text.contains("\nthis model      100.0"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(json["published_percent"][13]["method"], "MVMCAD-B");
        assert_eq!(json["published_percent"][13]["image"][0], 91.0);
    }
}
