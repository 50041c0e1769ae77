//! The views of one part, closed and on their way.

use std::sync::Arc;

use super::{
    AnomalyMap, ClassName, MapFootprint, PartKey, Record, Reject, SourceOffset, Timestamp, View,
    ViewId,
};

/// Why a group was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseCause {
    /// Every expected view is there.
    Complete,
    /// Stream time passed the deadline.
    StreamTime,
    /// The line stopped and the wall clock passed the deadline.
    WallClock,
    /// The memory budget needed the room.
    Evicted,
}

impl CloseCause {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Complete,
        Self::StreamTime,
        Self::WallClock,
        Self::Evicted,
    ];

    /// As metrics and headers name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::StreamTime => "stream_time",
            Self::WallClock => "wall_clock",
            Self::Evicted => "evicted",
        }
    }

    /// The cause of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.as_str() == name)
    }
}

/// What becomes of a part that is not complete in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimeoutPolicy {
    /// Score the views that are there.
    ScorePartial,
    /// Publish a result without a score, for a person to look at.
    Review,
    /// Send every view to the dead letters.
    DeadLetter,
}

/// Which of two views of the same name, with different bytes, a part keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DuplicatePolicy {
    /// The first to arrive.
    FirstWins,
    /// The last to arrive before the group closes.
    LastWins,
}

/// Whether a closed group is given to the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScoringOrder {
    /// Score the views that are there.
    Score,
    /// Publish the part unscored, for a person to look at (timeout policy `review`).
    Skip,
}

/// The views of one part, closed and on the way to the model.
#[derive(Clone, Debug)]
pub struct Group {
    /// The part.
    pub part: PartKey,
    /// The class that its views name, if any.
    pub class: Option<ClassName>,
    /// Its views, in the order of the expected views; by name where only their number is known.
    pub views: Vec<View>,
    /// Expected views that did not arrive.
    pub missing: Vec<ViewId>,
    /// Byte-identical redeliveries that were absorbed; they finish with the group.
    pub absorbed: Vec<Arc<Record>>,
    /// Names of views that came more than once and differed.
    pub duplicates: Vec<ViewId>,
    /// Why it was closed.
    pub cause: CloseCause,
    /// Whether the model is asked.
    pub scoring: ScoringOrder,
    /// Event time of its first view.
    pub first_view_at: Timestamp,
    /// Event time of its last view.
    pub last_view_at: Timestamp,
}

impl Group {
    /// Whether a view is missing.
    pub fn is_partial(&self) -> bool {
        self.cause != CloseCause::Complete
    }

    /// Every record whose fate this group decides.
    pub fn records(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.views
            .iter()
            .map(|view| &view.record)
            .chain(&self.absorbed)
    }

    /// Where those records stand.
    pub fn sources(&self) -> impl Iterator<Item = &SourceOffset> {
        self.records().map(|record| &record.source)
    }
}

/// What the model made of one view of a group.
#[derive(Clone, Debug)]
pub enum ViewOutcome {
    /// The view was scored.
    Scored {
        /// Its anomaly map.
        map: AnomalyMap,
        /// What the map covers.
        footprint: MapFootprint,
    },
    /// The view's image could not be decoded; its record becomes a dead letter.
    Failed(Reject),
    /// The view was not given to the model (timeout policy `review`).
    Unscored,
}

/// A group with the model's answer for each of its views, in the order of `group.views`.
#[derive(Clone, Debug)]
pub struct ScoredGroup {
    /// The group.
    pub group: Group,
    /// One outcome a view.
    pub outcomes: Vec<ViewOutcome>,
    /// When scoring ended.
    pub scored_at: Timestamp,
}
