//! What is drawn as one and what goes through the network together; which parts are held out.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use rand::seq::SliceRandom as _;

use super::super::dataset::TrainingPart;
use super::super::item_rng;

/// Marks the random numbers by which parts are held out; no iteration and no epoch has this number.
const HELD_OUT: u64 = u64::MAX - 1;
/// Classes with fewer parts than this hold none out unless their share makes a whole part.
const FEW_PARTS: usize = 5;

/// What is drawn as one: an image, or a part where views are mixed.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    /// Number of its class in the order of their names.
    pub(super) class: usize,
    /// Number of its part.
    pub(super) part: usize,
    pub(super) images: Range<usize>,
}

/// Numbers of the parts' classes in the order of their names.
fn classes(parts: &[TrainingPart]) -> Vec<usize> {
    let mut names: Vec<&str> = parts.iter().map(|part| part.class.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    // Every name is in the list, so the place to insert it at is where it stands.
    let number = |part: &TrainingPart| names.partition_point(|&name| name < part.class.as_str());
    parts.iter().map(number).collect()
}

/// The units of all parts, in the order of their images.
pub(super) fn units(parts: &[TrainingPart], whole_parts: bool) -> Vec<Unit> {
    let mut units = Vec::new();
    for ((number, part), class) in parts.iter().enumerate().zip(classes(parts)) {
        let unit = |images| Unit {
            class,
            part: number,
            images,
        };
        let images = part.images.clone();
        match whole_parts {
            true => units.extend((!images.is_empty()).then(|| unit(images))),
            false => units.extend(images.map(|image| unit(image..image + 1))),
        }
    }
    units
}

/// Units that go through the network together.
#[derive(Clone, Debug, Default)]
pub(super) struct Shard {
    pub(super) images: Vec<usize>,
    /// How many of the images each unit has.
    pub(super) views: Vec<usize>,
    /// Numbers of the units' parts.
    pub(super) parts: Vec<usize>,
}

/// Cuts units into shards of at most `limit` images, as far as units stay whole.
pub(super) fn shards<'a>(units: impl IntoIterator<Item = &'a Unit>, limit: usize) -> Vec<Shard> {
    let mut shards: Vec<Shard> = Vec::new();
    for unit in units {
        let fits = |shard: &Shard| shard.images.len().saturating_add(unit.images.len()) <= limit;
        if !shards.last().is_some_and(fits) {
            shards.push(Shard::default());
        }
        if let Some(shard) = shards.last_mut() {
            shard.images.extend(unit.images.clone());
            shard.views.push(unit.images.len());
            shard.parts.push(unit.part);
        }
    }
    shards
}

/// The units of at most `limit` parts of each class, evenly chosen.
pub(super) fn of_few_parts(units: &[Unit], limit: usize) -> Vec<&Unit> {
    let mut of_class: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for unit in units {
        let parts = of_class.entry(unit.class).or_default();
        if parts.last() != Some(&unit.part) {
            parts.push(unit.part);
        }
    }
    let mut chosen = BTreeSet::new();
    for parts in of_class.into_values() {
        let count = parts.len().min(limit);
        chosen.extend((0..count).map(|index| parts[index * parts.len() / count]));
    }
    let is_chosen = |unit: &&Unit| chosen.contains(&unit.part);
    units.iter().filter(is_chosen).collect()
}

/// Which parts are held out from training: of each class the nearest number to `share`, but at
/// least one of five or more, and never all.
pub(super) fn held_out(parts: &[TrainingPart], share: f64, seed: u64) -> Vec<bool> {
    let mut is_held_out = vec![false; parts.len()];
    if share == 0.0 {
        return is_held_out;
    }
    let mut of_class: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (part, class) in classes(parts).into_iter().enumerate() {
        of_class.entry(class).or_default().push(part);
    }
    for (class, mut members) in of_class {
        let least = usize::from(members.len() >= FEW_PARTS);
        let wanted = (members.len() as f64 * share).round() as usize;
        let count = wanted.max(least).min(members.len() - 1);
        members.shuffle(&mut item_rng(seed, HELD_OUT, class as u64));
        for part in &members[..count] {
            is_held_out[*part] = true;
        }
    }
    is_held_out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(counts: &[(&str, usize)]) -> Vec<TrainingPart> {
        let mut parts = Vec::new();
        for &(class, count) in counts {
            for _ in 0..count {
                let first = 2 * parts.len();
                parts.push(TrainingPart {
                    class: class.to_owned(),
                    part: format!("p{first}"),
                    views: vec!["left".to_owned(), "top".to_owned()],
                    images: first..first + 2,
                });
            }
        }
        parts
    }

    #[test]
    fn parts_are_held_out_whole_and_class_by_class() {
        let parts = parts(&[("gear", 60), ("bolt", 7), ("nut", 4)]);
        let held = held_out(&parts, 0.05, 1);
        let count = |range: Range<usize>| held[range].iter().filter(|&&held| held).count();
        assert_eq!([count(0..60), count(60..67), count(67..71)], [3, 1, 0]);
        assert_eq!(held_out(&parts, 0.05, 1), held);
        assert_ne!(held_out(&parts, 0.05, 2), held);
        assert!(!held_out(&parts, 0.0, 1).contains(&true));
    }

    #[test]
    fn a_class_never_loses_all_its_parts() {
        let parts = parts(&[("gear", 2), ("bolt", 1)]);
        let held = held_out(&parts, 1.0, 1);
        assert_eq!(held.iter().filter(|&&held| held).count(), 1);
        assert!(!held[2]);
    }

    #[test]
    fn few_parts_are_chosen_evenly_with_all_their_units() {
        let parts = parts(&[("gear", 6), ("bolt", 1)]);
        let units = units(&parts, false);
        let chosen = of_few_parts(&units, 3);
        let parts: Vec<usize> = chosen.iter().map(|unit| unit.part).collect();
        assert_eq!(parts, [0, 0, 2, 2, 4, 4, 6, 6]);
    }

    #[test]
    fn shards_hold_whole_units() {
        let parts = parts(&[("gear", 3)]);
        let cut = shards(&units(&parts, true), 4);
        let views: Vec<&[usize]> = cut.iter().map(|shard| shard.views.as_slice()).collect();
        assert_eq!(views, [&[2, 2][..], &[2]]);
        assert_eq!(shards(&units(&parts, false), 4).len(), 2);
        assert_eq!(shards(&units(&parts, true), 1).len(), 3);
    }
}
