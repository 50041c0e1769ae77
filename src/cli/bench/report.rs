//! What a bench says: the conditions of the measurement, and rows of figures, as a table and as JSON.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

/// One measurement.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Report {
    bench: &'static str,
    conditions: Row,
    rows: Vec<Row>,
}

/// Named values in order.
pub(super) type Row = Vec<(&'static str, Value)>;

impl Report {
    /// A report without rows.
    pub(super) fn new(bench: &'static str, mut conditions: Row) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        conditions.push(("cores", json!(cores)));
        Self {
            bench,
            conditions,
            rows: Vec::new(),
        }
    }

    /// Adds a row; all rows have the same names in the same order.
    pub(super) fn push(&mut self, row: Row) {
        debug_assert!(self.rows.iter().all(|other| {
            other
                .iter()
                .map(|(name, _)| name)
                .eq(row.iter().map(|(name, _)| name))
        }));
        self.rows.push(row);
    }

    /// For programs.
    pub(super) fn to_json(&self) -> Value {
        let object = |row: &Row| -> Map<String, Value> {
            let named = row.iter();
            named
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect()
        };
        json!({
            "bench": self.bench,
            "version": env!("CARGO_PKG_VERSION"),
            "conditions": object(&self.conditions),
            "rows": self.rows.iter().map(object).collect::<Vec<_>>(),
        })
    }

    /// For people.
    pub(super) fn to_table(&self) -> String {
        let mut text = format!("bench {}\n", self.bench);
        for (name, value) in &self.conditions {
            writeln!(text, "  {name}: {}", cell(value)).expect("a string takes all");
        }
        let Some(first) = self.rows.first() else {
            return text;
        };
        let mut lines: Vec<Vec<String>> =
            vec![first.iter().map(|(name, _)| (*name).to_owned()).collect()];
        let cells = |row: &Row| row.iter().map(|(_, value)| cell(value)).collect();
        lines.extend(self.rows.iter().map(cells));
        let width = |column: usize| lines.iter().map(|line| line[column].len()).max();
        let widths: Vec<usize> = (0..first.len())
            .map(|column| width(column).unwrap_or(0))
            .collect();
        for line in &lines {
            text.push('\n');
            for (cell, width) in line.iter().zip(&widths) {
                write!(text, "{cell:>width$}  ").expect("a string takes all");
            }
            text.truncate(text.trim_end().len());
        }
        text.push('\n');
        text
    }
}

/// A number with three digits that say something; all else as it is.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => {
            let number = number.as_f64().unwrap_or_default();
            let digits = match number.abs() {
                size if size >= 100.0 => 0,
                size if size >= 10.0 => 1,
                size if size >= 1.0 => 2,
                _ => 4,
            };
            format!("{number:.digits$}")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_and_json_say_the_same() {
        let mut report = Report::new("maps", vec![("side", json!(128))]);
        report.push(vec![("codec", json!("png")), ("encode_us", json!(12.3456))]);
        report.push(vec![("codec", json!("zstd")), ("encode_us", json!(null))]);
        let table = report.to_table();
        assert!(
            table.contains("codec  encode_us\n  png       12.3\n zstd          -\n"),
            "{table}"
        );
        let value = report.to_json();
        assert_eq!(value["bench"], "maps");
        assert_eq!(value["conditions"]["side"], 128);
        assert_eq!(value["rows"][0]["encode_us"], 12.3456);
        assert_eq!(value["rows"][1]["codec"], "zstd");
    }
}
