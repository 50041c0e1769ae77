//! What a run has gone through: loss, learning rate and validation, as a table.
//!
//! The table is part of the checkpoint, in the same text that is written for people, so that a
//! resumed run has the history of an unbroken one.

use std::fmt::Write as _;

/// How good the weights were at some iteration.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Validation {
    /// Mean distance between the encoder's features and the decoder's on good parts held out, as
    /// the anomaly map has it: lower is better.
    pub distance: Option<f64>,
    /// Figures on labelled parts.
    pub labelled: LabelledFigures,
}

/// Figures on labelled parts, the mean over classes; higher is better.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LabelledFigures {
    /// AUROC of part scores.
    pub part_auroc: Option<f64>,
    /// AUROC of view scores.
    pub view_auroc: Option<f64>,
    /// AUROC of map pixels.
    pub pixel_auroc: Option<f64>,
    /// Area under the per-region overlap.
    pub aupro: Option<f64>,
}

impl Validation {
    /// What best weights are chosen by, higher being better: the AUROC of labelled parts, else the
    /// distance.
    pub fn merit(&self) -> Option<f64> {
        self.labelled
            .part_auroc
            .or(self.distance.map(|distance| -distance))
    }

    fn values(&self) -> [Option<f64>; 5] {
        let LabelledFigures {
            part_auroc,
            view_auroc,
            pixel_auroc,
            aupro,
        } = self.labelled;
        [self.distance, part_auroc, view_auroc, pixel_auroc, aupro]
    }

    fn from_values(values: [Option<f64>; 5]) -> Self {
        let [distance, part_auroc, view_auroc, pixel_auroc, aupro] = values;
        Self {
            distance,
            labelled: LabelledFigures {
                part_auroc,
                view_auroc,
                pixel_auroc,
                aupro,
            },
        }
    }

    /// The figures that there are, with their names, for a person.
    pub fn figures(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let names = [
            "validation distance",
            "part AUROC",
            "view AUROC",
            "pixel AUROC",
            "AUPRO",
        ];
        let named = names.into_iter().zip(self.values());
        named.filter_map(|(name, value)| Some((name, value?)))
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HistoryRow {
    /// Iterations done.
    pub iteration: u64,
    /// Running mean of the training loss.
    pub loss: f64,
    /// Learning rate of the last iteration.
    pub learning_rate: f64,
    /// The validation after this iteration, if there was one.
    pub validation: Option<Validation>,
}

/// The table, row by row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// Rows in the order of their iterations.
    pub rows: Vec<HistoryRow>,
}

/// The columns of [`History::to_csv`].
const HEADER: &str = "iteration,loss,learning_rate,validation_distance,\
                      part_auroc,view_auroc,pixel_auroc,aupro";

impl History {
    /// The table as CSV; a number that does not exist is empty. Numbers have as many digits as it
    /// takes to read the very same ones back.
    pub fn to_csv(&self) -> String {
        let mut text = format!("{HEADER}\n");
        for row in &self.rows {
            let values = row.validation.map_or([None; 5], |v| v.values());
            let HistoryRow {
                iteration,
                loss,
                learning_rate,
                ..
            } = row;
            let mut line = format!("{iteration},{loss},{learning_rate}");
            for value in values {
                match value {
                    Some(value) => write!(line, ",{value}"),
                    None => write!(line, ","),
                }
                .expect("writing to a string cannot fail");
            }
            text.push_str(&line);
            text.push('\n');
        }
        text
    }

    /// Reads what [`History::to_csv`] wrote.
    ///
    /// # Errors
    /// Names the line that is no row.
    pub fn from_csv(text: &str) -> Result<Self, String> {
        let mut lines = text.lines();
        if lines.next() != Some(HEADER) {
            return Err(format!("expected the columns `{HEADER}`"));
        }
        let row = |line: &str| parse_row(line).ok_or_else(|| format!("no row: `{line}`"));
        let rows = lines.map(row).collect::<Result<_, _>>()?;
        Ok(Self { rows })
    }
}

fn parse_row(line: &str) -> Option<HistoryRow> {
    let cells: Vec<&str> = line.split(',').collect();
    let [iteration, loss, learning_rate, rest @ ..] = cells.as_slice() else {
        return None;
    };
    let mut values = [None; 5];
    if rest.len() != values.len() {
        return None;
    }
    for (value, cell) in values.iter_mut().zip(rest) {
        if !cell.is_empty() {
            *value = Some(cell.parse().ok()?);
        }
    }
    let has_any = values.iter().any(Option::is_some);
    Some(HistoryRow {
        iteration: iteration.parse().ok()?,
        loss: loss.parse().ok()?,
        learning_rate: learning_rate.parse().ok()?,
        validation: has_any.then(|| Validation::from_values(values)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_very_same_numbers_are_read_back() {
        let plain = HistoryRow {
            iteration: 25,
            loss: 0.1 + 0.2,
            learning_rate: 2e-3 / 3.0,
            validation: None,
        };
        let judged = HistoryRow {
            iteration: 50,
            validation: Some(Validation {
                distance: Some(1.0 / 7.0),
                labelled: LabelledFigures {
                    part_auroc: Some(0.75),
                    ..LabelledFigures::default()
                },
            }),
            ..plain
        };
        let history = History {
            rows: vec![plain, judged],
        };
        let text = history.to_csv();
        assert_eq!(History::from_csv(&text).unwrap(), history);
        assert!(text.ends_with(",0.75,,,\n"), "{text}");
    }

    #[test]
    fn a_broken_table_is_refused_with_its_line() {
        let error = |line: &str| History::from_csv(&format!("{HEADER}\n{line}\n")).unwrap_err();
        for line in ["25,0.1", "25,0.1,x,,,,,", "25,0.1,0.2,,,,,,"] {
            assert!(error(line).contains(line), "{line}");
        }
        assert!(History::from_csv("").unwrap_err().contains("columns"));
    }

    #[test]
    fn weights_are_chosen_by_labelled_parts_where_there_are_any() {
        let mut validation = Validation {
            distance: Some(0.25),
            ..Validation::default()
        };
        assert_eq!(validation.merit(), Some(-0.25));
        validation.labelled.part_auroc = Some(0.9);
        assert_eq!(validation.merit(), Some(0.9));
        assert_eq!(Validation::default().merit(), None);
    }
}
