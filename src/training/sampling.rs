//! In which order images are shown: known from the seed and the position alone.

use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::item_rng;

/// Marks the random numbers of shuffling; no item of a batch has this number.
const SHUFFLE: u64 = u64::MAX;

/// How often each class is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sampling {
    /// As often as it has images: each epoch shows every image once.
    #[default]
    Uniform,
    /// As often as every other class, however few images it has.
    ClassBalanced,
}

/// An endless order of units, each with a class.
pub(crate) struct Order {
    /// The units that take turns: all of them in one list, or one list a class.
    lists: Vec<ShuffledList>,
    seed: u64,
}

/// A list that is shuffled anew whenever it has been gone through.
struct ShuffledList {
    units: Vec<usize>,
    epoch: Option<u64>,
    shuffled: Vec<usize>,
}

impl Order {
    /// `classes` holds the class of each unit.
    pub(crate) fn new(sampling: Sampling, classes: &[usize], seed: u64) -> Self {
        let lists: Vec<Vec<usize>> = match sampling {
            Sampling::Uniform => vec![(0..classes.len()).collect()],
            Sampling::ClassBalanced => {
                let count = classes.iter().max().map_or(0, |class| class + 1);
                let mut lists = vec![Vec::new(); count];
                for (unit, &class) in classes.iter().enumerate() {
                    lists[class].push(unit);
                }
                lists.retain(|list| !list.is_empty());
                lists
            }
        };
        let lists = lists.into_iter().map(|units| ShuffledList {
            units,
            epoch: None,
            shuffled: Vec::new(),
        });
        Self {
            lists: lists.collect(),
            seed,
        }
    }

    /// The units of an iteration.
    pub(crate) fn batch(&mut self, iteration: u64, size: usize) -> Vec<usize> {
        let first = iteration * size as u64;
        (first..first + size as u64)
            .map(|position| self.at(position))
            .collect()
    }

    fn at(&mut self, position: u64) -> usize {
        let count = self.lists.len() as u64;
        let (turn, number) = (position / count, position % count);
        let list = self.turn(turn)[number as usize];
        // Lists of their own random numbers, and the first list those of a single one.
        let seed = self.seed.wrapping_add(list as u64);
        self.lists[list].at(turn, seed)
    }

    /// The order in which the lists are asked at a turn.
    fn turn(&self, turn: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.lists.len()).collect();
        order.shuffle(&mut item_rng(!self.seed, turn, SHUFFLE));
        order
    }
}

impl ShuffledList {
    fn at(&mut self, position: u64, seed: u64) -> usize {
        let count = self.units.len() as u64;
        let (epoch, index) = (position / count, position % count);
        if self.epoch != Some(epoch) {
            self.shuffled.clone_from(&self.units);
            self.shuffled.shuffle(&mut item_rng(seed, epoch, SHUFFLE));
            self.epoch = Some(epoch);
        }
        self.shuffled[index as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_shows_every_image_once() {
        let mut order = Order::new(Sampling::Uniform, &[0; 10], 1);
        let epoch = |order: &mut Order, number: u64| {
            let mut seen: Vec<usize> = (0..5)
                .flat_map(|i| order.batch(number * 5 + i, 2))
                .collect();
            let shown = seen.clone();
            seen.sort_unstable();
            assert_eq!(seen, (0..10).collect::<Vec<_>>());
            shown
        };
        let first = epoch(&mut order, 0);
        assert_ne!(first, epoch(&mut order, 1));
        assert_eq!(first, epoch(&mut order, 0));
    }

    #[test]
    fn balanced_classes_take_turns_however_few_images_one_has() {
        let classes: Vec<usize> = (0..41).map(|unit| usize::from(unit >= 40)).collect();
        let mut order = Order::new(Sampling::ClassBalanced, &classes, 1);
        let mut shown = [0; 41];
        for iteration in 0..40 {
            for unit in order.batch(iteration, 2) {
                shown[unit] += 1;
            }
        }
        assert_eq!(shown[..40], [1; 40]);
        assert_eq!(shown[40], 40);
        assert_eq!(
            order.batch(7, 2),
            Order::new(Sampling::ClassBalanced, &classes, 1).batch(7, 2)
        );
    }
}
