//! Tables of text: columns that line up for a terminal, or Markdown.

/// A table with its title.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sheet {
    /// What the table shows; may be empty.
    pub title: String,
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its rows, a cell for each column.
    pub rows: Vec<Vec<String>>,
    /// Whether the last row sums the others up, and stands apart.
    pub has_summary: bool,
}

/// A column's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// What it has in common with its neighbours; may be empty.
    pub group: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Where its cells stand.
    pub side: Side,
}

/// Where cells stand in their column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// As words do.
    Left,
    /// As numbers do.
    Right,
}

impl Column {
    /// A column of words.
    pub const fn words(name: &'static str) -> Self {
        Self {
            group: "",
            name,
            side: Side::Left,
        }
    }

    /// A column of numbers.
    pub const fn numbers(group: &'static str, name: &'static str) -> Self {
        Self {
            group,
            name,
            side: Side::Right,
        }
    }
}

impl Sheet {
    /// For a terminal: columns line up, groups of columns stand apart.
    pub fn to_text(&self) -> String {
        let widths = self.widths();
        let begins = |index: usize| self.begins_group(index);
        let line = |cell: &dyn Fn(usize) -> (String, Side)| {
            let mut line = String::new();
            for (index, width) in widths.iter().enumerate() {
                let gap = if begins(index) { "    " } else { "  " };
                line.push_str(if index == 0 { "" } else { gap });
                let (cell, side) = cell(index);
                line.push_str(&match side {
                    Side::Left => format!("{cell:<width$}"),
                    Side::Right => format!("{cell:>width$}"),
                });
            }
            line.trim_end().to_owned() + "\n"
        };
        let names = line(&|index| {
            let column = self.columns[index];
            (column.name.to_owned(), column.side)
        });
        let length = names.trim_end().chars().count();
        let rule = "-".repeat(length) + "\n";
        let mut text = String::new();
        if !self.title.is_empty() {
            text.push_str(&format!("{}\n\n", self.title));
        }
        text.push_str(&self.group_line(&widths));
        text.push_str(&names);
        text.push_str(&rule);
        for (index, row) in self.rows.iter().enumerate() {
            if self.has_summary && index > 0 && index + 1 == self.rows.len() {
                text.push_str(&rule);
            }
            text.push_str(&line(&|column| {
                (row[column].clone(), self.columns[column].side)
            }));
        }
        text
    }

    /// Whether a column is the first of a group other than its left neighbour's.
    fn begins_group(&self, index: usize) -> bool {
        index > 0 && self.columns[index].group != self.columns[index - 1].group
    }

    /// The groups' names, each over its first column; nothing if there are none.
    fn group_line(&self, widths: &[usize]) -> String {
        let mut line = String::new();
        let mut place = 0;
        for (index, width) in widths.iter().enumerate() {
            let begins = self.begins_group(index);
            place += match (index, begins) {
                (0, _) => 0,
                (_, true) => 4,
                (_, false) => 2,
            };
            let group = self.columns[index].group;
            if !group.is_empty() && (index == 0 || begins) {
                line = format!("{line:<place$}{group}");
            }
            place += width;
        }
        if line.is_empty() { line } else { line + "\n" }
    }

    fn widths(&self) -> Vec<usize> {
        let width = |text: &str| text.chars().count();
        let columns = self.columns.iter().enumerate();
        columns
            .map(|(index, column)| {
                let cells = self.rows.iter().map(|row| width(&row[index]));
                cells.fold(width(column.name), usize::max)
            })
            .collect()
    }

    /// In Markdown.
    pub fn to_markdown(&self) -> String {
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let mut text = String::new();
        if !self.title.is_empty() {
            text.push_str(&format!("{}\n\n", self.title));
        }
        let heads = self.columns.iter().enumerate().map(|(index, column)| {
            let begins = index == 0 || self.begins_group(index);
            let group = if begins { column.group } else { "" };
            format!("{group} {}", column.name).trim().to_owned()
        });
        text.push_str(&line(heads.collect()));
        let rules = self.columns.iter().map(|column| match column.side {
            Side::Left => "---".to_owned(),
            Side::Right => "--:".to_owned(),
        });
        text.push_str(&line(rules.collect()));
        for row in &self.rows {
            text.push_str(&line(row.clone()));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sheet() -> Sheet {
        let row = |cells: [&str; 4]| cells.map(str::to_owned).to_vec();
        Sheet {
            title: "two classes".to_owned(),
            columns: vec![
                Column::words("class"),
                Column::numbers("image", "AUROC"),
                Column::numbers("image", "AP"),
                Column::numbers("pixel", "AUROC"),
            ],
            rows: vec![
                row(["terminal block", "91.0", "100.0", "-"]),
                row(["mean", "91.0", "100.0", "-"]),
            ],
            has_summary: true,
        }
    }

    #[test]
    fn columns_line_up_under_their_groups() {
        let expected = "\
two classes

                  image           pixel
class             AUROC     AP    AUROC
---------------------------------------
terminal block     91.0  100.0        -
---------------------------------------
mean               91.0  100.0        -
";
        assert_eq!(sheet().to_text(), expected);
    }

    #[test]
    fn markdown_names_the_group_once() {
        let expected = "\
two classes

| class | image AUROC | AP | pixel AUROC |
| --- | --: | --: | --: |
| terminal block | 91.0 | 100.0 | - |
| mean | 91.0 | 100.0 | - |
";
        assert_eq!(sheet().to_markdown(), expected);
    }
}
