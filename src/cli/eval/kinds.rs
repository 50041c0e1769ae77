//! The table of `--kinds`: which kind of defect each part has.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;

use crate::cli::data::has_defect;
use crate::training::dataset::PartFolder;

/// Which kind of defect each part has.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Kinds {
    /// By class and part; all under the class none, if the table does not tell classes apart.
    by_part: BTreeMap<(Option<String>, String), String>,
    has_classes: bool,
}

impl Kinds {
    /// Reads a table with the columns `part` and `defect`, and maybe `class`.
    ///
    /// # Errors
    /// When it cannot be read, is no CSV or has no such columns.
    pub(super) fn read(file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(file).map_err(anyhow::Error::from);
        text.and_then(|text| Self::parse(&text).map_err(anyhow::Error::msg))
            .with_context(|| format!("cannot use the table `{}`", file.display()))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let header = reader.headers().map_err(|error| error.to_string())?.clone();
        let column = |wanted: &str| header.iter().position(|name| name == wanted);
        let (Some(part), Some(defect)) = (column("part"), column("defect")) else {
            let found: Vec<&str> = header.iter().collect();
            return Err(format!(
                "expected columns `part` and `defect`, found `{}`",
                found.join("`, `")
            ));
        };
        let class = column("class");
        let mut by_part = BTreeMap::new();
        for record in reader.records() {
            let record = record.map_err(|error| error.to_string())?;
            let field = |column: usize| record.get(column).unwrap_or_default().to_owned();
            by_part.insert((class.map(field), field(part)), field(defect));
        }
        Ok(Self {
            by_part,
            has_classes: class.is_some(),
        })
    }

    /// The kind of a part's defect, if it has one and the table says which.
    pub(super) fn of(&self, part: &PartFolder) -> Option<&str> {
        let class = self.has_classes.then(|| part.class.clone());
        let kind = self.by_part.get(&(class, part.part.clone()))?;
        (!kind.is_empty()).then_some(kind)
    }

    /// That it says nothing of any bad part, if so: its names are others than the set's.
    pub(super) fn misses_all(&self, parts: &[PartFolder]) -> Option<String> {
        let bad: Vec<&PartFolder> = parts.iter().filter(|part| has_defect(part)).collect();
        let first = bad.first()?;
        if bad.iter().any(|part| self.of(part).is_some()) {
            return None;
        }
        Some(format!(
            "tells the defect of none of the `{}` bad parts, the first of which is `{}` of class `{}`: \
             there will be no figures of kinds",
            bad.len(),
            first.part,
            first.class
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::training::dataset::ViewFile;

    fn part(class: &str, part: &str) -> PartFolder {
        PartFolder {
            class: class.to_owned(),
            part: part.to_owned(),
            views: vec![ViewFile {
                view: "top".to_owned(),
                image: PathBuf::new(),
                mask: None,
                is_labelled_defective: true,
            }],
        }
    }

    #[test]
    fn kinds_are_read_by_the_names_of_their_columns() {
        let kinds = Kinds::parse("defect,part\ndent,p1\n,p2\n").unwrap();
        for class in ["bolt", "nut"] {
            assert_eq!(kinds.of(&part(class, "p1")), Some("dent"));
            assert_eq!(kinds.of(&part(class, "p2")), None);
        }
        let kinds = Kinds::parse("class,part,defect\nbolt,p1,dent\nnut,p1,crack\n").unwrap();
        assert_eq!(kinds.of(&part("bolt", "p1")), Some("dent"));
        assert_eq!(kinds.of(&part("nut", "p1")), Some("crack"));
        assert_eq!(kinds.of(&part("gear", "p1")), None);
        let error = Kinds::parse("class,part\n").unwrap_err();
        assert!(error.ends_with("found `class`, `part`"), "{error}");
    }

    #[test]
    fn names_may_be_quoted_and_a_short_row_is_refused() {
        let kinds = Kinds::parse("part,defect\r\n\"p1, left\",\"a \"\"dent\"\"\"\r\n").unwrap();
        assert_eq!(kinds.of(&part("bolt", "p1, left")), Some("a \"dent\""));
        let error = Kinds::parse("part,defect\np1,dent\np2\n").unwrap_err();
        assert!(error.contains("line: 3"), "{error}");
    }

    #[test]
    fn a_table_with_other_names_than_the_set_is_told() {
        let kinds = Kinds::parse("part,defect\np1,dent\n").unwrap();
        let told = kinds.misses_all(&[part("bolt", "p2"), part("bolt", "p3")]);
        let told = told.unwrap();
        assert!(told.contains("none of the `2` bad parts"), "{told}");
        assert!(told.contains("`p2` of class `bolt`"), "{told}");
        assert_eq!(
            kinds.misses_all(&[part("bolt", "p2"), part("bolt", "p1")]),
            None
        );
        let mut good = part("bolt", "p2");
        good.views[0].is_labelled_defective = false;
        assert_eq!(kinds.misses_all(&[good]), None);
    }
}
