//! What an image shows: by this the model finds what it knows of good parts.

use std::fmt;

use crate::domain::{ClassName, ViewId};

/// What an image shows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    /// The part's class.
    pub class: ClassName,
    /// The camera's view.
    pub view: ViewId,
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.class, self.view)
    }
}
