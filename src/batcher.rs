//! The batcher: gathers closed groups until there are enough images for the model, or the oldest
//! group has waited long enough.
//!
//! Promises: every group pushed comes out in exactly one batch, whole and in order; a batch holds
//! at most `max_images` images unless a single group alone has more; none waits longer than
//! `max_delay` if [`Batcher::close_due`] is called at [`Batcher::deadline`]. Pure: the time is an
//! argument.

use std::time::{Duration, Instant};

use crate::domain::{Group, ScoringOrder};

/// What can be batched: a group, or something that carries one.
pub trait BatchItem {
    /// How many images the model will see of it.
    fn images(&self) -> usize;
}

impl BatchItem for Group {
    /// A group that is not scored takes no room in the model's batch.
    fn images(&self) -> usize {
        match self.scoring {
            ScoringOrder::Score => self.views.len(),
            ScoringOrder::Skip => 0,
        }
    }
}

/// Groups that go through the model together.
#[derive(Clone, Debug)]
pub struct Batch<Item = Group> {
    /// The groups, in the order in which they were pushed.
    pub groups: Vec<Item>,
    /// When the first of them was pushed.
    pub opened_at: Instant,
}

impl<Item: BatchItem> Batch<Item> {
    /// How many images the model will see.
    pub fn images(&self) -> usize {
        self.groups.iter().map(BatchItem::images).sum()
    }
}

/// Closes batches on size or age.
#[derive(Debug)]
pub struct Batcher<Item = Group> {
    max_images: usize,
    max_delay: Duration,
    open: Option<Batch<Item>>,
}

impl<Item: BatchItem> Batcher<Item> {
    /// A batcher whose batches hold at most `max_images` images and wait at most `max_delay`.
    pub fn new(max_images: usize, max_delay: Duration) -> Self {
        Self {
            max_images,
            max_delay,
            open: None,
        }
    }

    /// Adds a group. Returns the batches that this closes, oldest first: the open one when the
    /// group does not fit in, and the one with the group when it is full or due.
    pub fn push(&mut self, group: Item, now: Instant) -> Vec<Batch<Item>> {
        let mut closed = Vec::new();
        let added = group.images();
        let is_overfull = |open: &mut Batch<Item>| open.images() + added > self.max_images;
        closed.extend(self.open.take_if(is_overfull));
        let batch = self.open.get_or_insert_with(|| Batch {
            groups: Vec::new(),
            opened_at: now,
        });
        batch.groups.push(group);
        if batch.images() >= self.max_images {
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
    pub fn close_due(&mut self, now: Instant) -> Option<Batch<Item>> {
        let deadline = self.deadline()?;
        if now < deadline {
            return None;
        }
        self.open.take()
    }

    /// Closes the open batch, whatever its size: the input has ended.
    pub fn flush(&mut self) -> Option<Batch<Item>> {
        self.open.take()
    }
}

