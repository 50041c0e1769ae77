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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX_IMAGES: usize = 8;
    const MAX_DELAY: Duration = Duration::from_millis(20);

    #[test]
    fn a_full_batch_closes_at_once() {
        let now = Instant::now();
        let mut batcher = Batcher::new(MAX_IMAGES, MAX_DELAY);
        assert!(batcher.push("first", 4, now).is_empty());
        let closed = batcher.push("second", 4, now);
        assert_eq!(closed.len(), 1);
        assert_eq!(closed[0].groups, ["first", "second"]);
        assert_eq!(batcher.deadline(), None);
    }

    #[test]
    fn a_single_oversized_group_is_a_batch_of_its_own() {
        let now = Instant::now();
        let mut batcher = Batcher::new(MAX_IMAGES, MAX_DELAY);
        assert!(batcher.push("small", 1, now).is_empty());
        let closed = batcher.push("large", 15, now);
        assert_eq!(closed[0].groups, ["small"]);
        assert_eq!((closed[1].groups[0], closed[1].images), ("large", 15));
    }

    #[test]
    fn the_age_counts_from_the_oldest_group() {
        let now = Instant::now();
        let mut batcher = Batcher::new(MAX_IMAGES, MAX_DELAY);
        assert!(batcher.push("first", 1, now).is_empty());
        assert!(batcher.push("second", 1, now + MAX_DELAY / 2).is_empty());
        assert_eq!(batcher.deadline(), Some(now + MAX_DELAY));
        assert!(batcher.close_due(now + MAX_DELAY / 2).is_none());
        let closed = batcher.close_due(now + MAX_DELAY).unwrap();
        assert_eq!(closed.groups, ["first", "second"]);
        assert!(batcher.flush().is_none());
    }

    #[test]
    fn groups_without_images_still_leave_in_time() {
        let now = Instant::now();
        let mut batcher = Batcher::new(MAX_IMAGES, MAX_DELAY);
        assert!(batcher.push("unscored", 0, now).is_empty());
        let closed = batcher.close_due(now + MAX_DELAY).unwrap();
        assert_eq!((closed.groups.len(), closed.images), (1, 0));
    }

    proptest! {
        #[test]
        fn loses_nothing_keeps_order_and_both_bounds(
            arrivals in prop::collection::vec((0usize..14, 0u64..15), 0..200),
        ) {
            let start = Instant::now();
            let mut now = start;
            let mut batcher = Batcher::new(MAX_IMAGES, MAX_DELAY);
            let mut closed = Vec::new();
            for (number, &(images, pause_ms)) in arrivals.iter().enumerate() {
                let next = now + Duration::from_millis(pause_ms);
                if let Some(deadline) = batcher.deadline().filter(|deadline| *deadline <= next) {
                    closed.extend(batcher.close_due(deadline).map(|batch| (batch, deadline)));
                }
                now = next;
                let batches = batcher.push((number, images, now), images, now);
                closed.extend(batches.into_iter().map(|batch| (batch, now)));
            }
            closed.extend(batcher.flush().map(|batch| (batch, now)));

            let order: Vec<usize> =
                closed.iter().flat_map(|(batch, _)| &batch.groups).map(|group| group.0).collect();
            prop_assert_eq!(order, (0..arrivals.len()).collect::<Vec<_>>());
            for (batch, closed_at) in &closed {
                let images: usize = batch.groups.iter().map(|group| group.1).sum();
                prop_assert_eq!(batch.images, images);
                let with_images = batch.groups.iter().filter(|group| group.1 > 0).count();
                prop_assert!(images <= MAX_IMAGES || with_images == 1);
                prop_assert!(batch.groups.iter().all(|group| *closed_at - group.2 <= MAX_DELAY));
            }
        }
    }
}
