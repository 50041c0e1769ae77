//! Which views a part should have: lists by line and class, or a number from the record.

use std::collections::HashMap;
use std::sync::Arc;

use crate::domain::{ClassName, LineId, ViewId};

/// Lists of views, from the most special to the most general: for a class on a line, for a class,
/// for a line, for all.
#[derive(Clone, Debug, Default)]
pub struct ExpectedViews {
    lists: HashMap<(Option<LineId>, Option<ClassName>), ViewList>,
}

/// The views that a part should have, in the order in which results name them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewList {
    name: Arc<str>,
    views: Arc<[ViewId]>,
}

impl ViewList {
    /// The views in order.
    pub fn views(&self) -> &[ViewId] {
        &self.views
    }

    /// How the configuration calls the list, for error texts.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a view is on it.
    pub fn contains(&self, view: &ViewId) -> bool {
        self.views.contains(view)
    }

    /// Where a view stands on it.
    pub fn place_of(&self, view: &ViewId) -> Option<usize> {
        self.views.iter().position(|listed| listed == view)
    }
}

impl ExpectedViews {
    /// The same views for every part.
    pub fn for_all(views: impl IntoIterator<Item = ViewId>) -> Self {
        let mut lists = Self::default();
        lists.insert(None, None, views);
        lists
    }

    /// Sets the list for a line and class; `None` stands for any. A view named twice counts once.
    pub fn insert(
        &mut self,
        line: Option<LineId>,
        class: Option<ClassName>,
        views: impl IntoIterator<Item = ViewId>,
    ) {
        let mut ordered: Vec<ViewId> = Vec::new();
        for view in views {
            if !ordered.contains(&view) {
                ordered.push(view);
            }
        }
        let list = ViewList {
            name: list_name(line.as_ref(), class.as_ref()).into(),
            views: ordered.into(),
        };
        self.lists.insert((line, class), list);
    }

    /// The most special list that fits; an empty list counts as none.
    pub fn list_for(&self, line: &LineId, class: Option<&ClassName>) -> Option<&ViewList> {
        let by_class = class.into_iter().flat_map(|class| {
            [
                (Some(line.clone()), Some(class.clone())),
                (None, Some(class.clone())),
            ]
        });
        by_class
            .chain([(Some(line.clone()), None), (None, None)])
            .find_map(|key| self.lists.get(&key))
            .filter(|list| !list.views.is_empty())
    }
}

fn list_name(line: Option<&LineId>, class: Option<&ClassName>) -> String {
    match (line, class) {
        (Some(line), Some(class)) => format!("views of class `{class}` on line `{line}`"),
        (None, Some(class)) => format!("views of class `{class}`"),
        (Some(line), None) => format!("views of line `{line}`"),
        (None, None) => "default views".to_owned(),
    }
}
