//! The batcher: gathers groups until there are enough images for the model, or the oldest group
//! has waited long enough.
//!
//! Promises: every group pushed comes out in exactly one batch, whole and in order; a batch holds
//! at most `max_images` images unless a single group alone has more; none waits longer than
//! `max_delay` if [`Batcher::close_due`] is called at [`Batcher::deadline`]. Pure: the time is an
//! argument. What a group is beyond its number of images does not matter here.

use std::time::{Duration, Instant};

/// Groups that go through the model together.
#[derive(Clone, Debug)]
pub struct Batch<G> {
    /// The groups, in the order in which they were pushed.
    pub groups: Vec<G>,
    /// How many images they have.
    pub images: usize,
    /// When the first of them was pushed.
    pub opened_at: Instant,
}

/// Closes batches on size or age.
///
/// ```
/// use std::time::{Duration, Instant};
/// use panoptes::batcher::Batcher;
///
/// let now = Instant::now();
/// let mut batcher = Batcher::new(8, Duration::from_millis(20));
/// assert!(batcher.push("bolt 1", 5, now).is_empty());
/// let closed = batcher.push("bolt 2", 5, now);
/// assert_eq!(closed[0].groups, ["bolt 1"]);
/// assert_eq!(batcher.flush().unwrap().groups, ["bolt 2"]);
/// ```
#[derive(Debug)]
pub struct Batcher<G> {
    max_images: usize,
    max_delay: Duration,
    open: Option<Batch<G>>,
}

impl<G> Batcher<G> {
    /// A batcher whose batches hold at most `max_images` images and wait at most `max_delay`.
    pub fn new(max_images: usize, max_delay: Duration) -> Self {
        Self {
            max_images,
            max_delay,
            open: None,
        }
    }

    /// Adds a group with so many images for the model (none, if it is not to be scored). Returns
    /// the batches that this closes, oldest first: the open one when the group does not fit in,
    /// and the one with the group when it is full or due.
    pub fn push(&mut self, group: G, images: usize, now: Instant) -> Vec<Batch<G>> {
        let mut closed = Vec::new();
        let max_images = self.max_images;
        closed.extend(self.open.take_if(|open| open.images + images > max_images));
        let batch = self.open.get_or_insert_with(|| Batch {
            groups: Vec::new(),
            images: 0,
            opened_at: now,
        });
        batch.groups.push(group);
        batch.images += images;
        if batch.images >= self.max_images {
            closed.extend(self.open.take());
        }
        closed.extend(self.close_due(now));
        closed
    }

    /// When the open batch must be closed, if there is one.
    pub fn deadline(&self) -> Option<Instant> {
        let open = self.open.as_ref()?;
        Some(open.opened_at + self.max_delay)
    }

    /// Closes the open batch if it has waited long enough.
    pub fn close_due(&mut self, now: Instant) -> Option<Batch<G>> {
        let deadline = self.deadline()?;
        if now < deadline {
            return None;
        }
        self.open.take()
    }

    /// Closes the open batch, whatever its size: the input has ended, or somebody waits.
    pub fn flush(&mut self) -> Option<Batch<G>> {
        self.open.take()
    }
}
