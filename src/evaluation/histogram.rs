//! Sums for every value of `f32` that occurs, however many numbers are added.
//!
//! A set of the size of Real-IAD has 7.5 billion map pixels: too many to keep, and rounding them to
//! some bins would change the figures. But a class's maps hold far fewer different values than
//! pixels, since between 0.01 and 1 there are only 56 million floats. So the floats are laid out in
//! their own order on pages of 65,536: a page begins as a list of what was added, and becomes one
//! cell for each of its floats when the list would grow larger than that. Nothing is rounded, and
//! memory is bounded by the range of the values.

/// Floats on a page: those that share the upper half of their key.
const PAGE_LENGTH: usize = 1 << 16;
/// Lists up to this length are sorted, longer ones are spread over a page of cells.
const LONGEST_SORTED: usize = 1 << 12;

/// What is kept for one value.
pub(super) trait Cell: Clone + Default + std::fmt::Debug {
    /// What one added number brings along.
    type Entry: Copy + std::fmt::Debug;

    /// Adds one number.
    fn add(&mut self, entry: Self::Entry);
    /// Adds all that the other cell holds.
    fn merge(&mut self, other: &Self);
    /// Whether nothing was added.
    fn is_empty(&self) -> bool;
}

/// How often a value occurs.
impl Cell for u64 {
    type Entry = ();

    fn add(&mut self, (): ()) {
        *self += 1;
    }

    fn merge(&mut self, other: &Self) {
        *self += other;
    }

    fn is_empty(&self) -> bool {
        *self == 0
    }
}

/// Cells by value.
#[derive(Clone, Debug)]
pub(super) struct Histogram<C: Cell> {
    pages: Vec<Page<C>>,
}

#[derive(Clone, Debug)]
enum Page<C: Cell> {
    /// Place on the page and entry of every number, in the order of adding.
    Listed(Vec<(u16, C::Entry)>),
    /// One cell for each place.
    Summed(Box<[C]>),
}

impl<C: Cell> Default for Histogram<C> {
    fn default() -> Self {
        let pages = PAGE_LENGTH;
        Self {
            pages: (0..pages).map(|_| Page::Listed(Vec::new())).collect(),
        }
    }
}

impl<C: Cell> Histogram<C> {
    /// Adds a number. Negative and positive zero are one value.
    pub(super) fn add(&mut self, value: f32, entry: C::Entry) {
        let key = key(value);
        self.pages[(key >> 16) as usize].add(key as u16, entry);
    }

    /// Adds all that the other histogram holds.
    pub(super) fn merge(&mut self, other: &Self) {
        for (page, added) in self.pages.iter_mut().zip(&other.pages) {
            page.merge(added);
        }
    }
}

/// The cells of some histograms together, page by page from the highest value to the lowest.
/// Histograms of two kinds go along side by side, as every value needs both.
pub(super) fn descend<A: Cell, B: Cell>(
    first: &[&Histogram<A>],
    second: &[&Histogram<B>],
    mut visit: impl FnMut(f32, &A, &B),
) {
    let (no_first, no_second) = (A::default(), B::default());
    for page in (0..PAGE_LENGTH).rev() {
        let mut left = cells(first, page).into_iter().rev().peekable();
        let mut right = cells(second, page).into_iter().rev().peekable();
        loop {
            let (a, b) = (left.peek().map(|c| c.0), right.peek().map(|c| c.0));
            let Some(place) = a.max(b) else { break };
            let a = left.next_if(|cell| cell.0 == place);
            let b = right.next_if(|cell| cell.0 == place);
            let value = value_of((page as u32) << 16 | u32::from(place));
            visit(
                value,
                a.as_ref().map_or(&no_first, |cell| &cell.1),
                b.as_ref().map_or(&no_second, |cell| &cell.1),
            );
        }
    }
}

/// What the histograms hold on one page, by ascending place, without empty cells.
fn cells<C: Cell>(histograms: &[&Histogram<C>], page: usize) -> Vec<(u16, C)> {
    let mut listed = Vec::new();
    let mut summed: Option<Vec<C>> = None;
    for histogram in histograms {
        match &histogram.pages[page] {
            Page::Listed(entries) => listed.extend_from_slice(entries),
            Page::Summed(cells) => {
                let sums = summed.get_or_insert_with(|| vec![C::default(); PAGE_LENGTH]);
                sums.iter_mut()
                    .zip(cells)
                    .for_each(|(sum, cell)| sum.merge(cell));
            }
        }
    }
    if summed.is_none() && listed.len() <= LONGEST_SORTED {
        listed.sort_unstable_by_key(|entry| entry.0);
        let tied = listed.chunk_by(|a, b| a.0 == b.0);
        return tied.map(|tied| (tied[0].0, sum(tied))).collect();
    }
    let mut sums = summed.unwrap_or_else(|| vec![C::default(); PAGE_LENGTH]);
    for (place, entry) in listed {
        sums[usize::from(place)].add(entry);
    }
    let places = (0..=u16::MAX).zip(sums);
    places.filter(|(_, cell)| !cell.is_empty()).collect()
}

fn sum<C: Cell>(entries: &[(u16, C::Entry)]) -> C {
    let mut cell = C::default();
    for (_, entry) in entries {
        cell.add(*entry);
    }
    cell
}

impl<C: Cell> Page<C> {
    /// A list of this length takes the room of a page of cells.
    const LONGEST_LIST: usize =
        PAGE_LENGTH * size_of::<C>() / size_of::<(u16, <C as Cell>::Entry)>();

    fn add(&mut self, place: u16, entry: C::Entry) {
        match self {
            Self::Summed(cells) => cells[usize::from(place)].add(entry),
            Self::Listed(entries) if entries.len() < Self::LONGEST_LIST => {
                entries.push((place, entry));
            }
            Self::Listed(_) => self.cells()[usize::from(place)].add(entry),
        }
    }

    fn merge(&mut self, added: &Self) {
        match added {
            Self::Listed(entries) => {
                for (place, entry) in entries {
                    self.add(*place, *entry);
                }
            }
            Self::Summed(cells) => self
                .cells()
                .iter_mut()
                .zip(cells)
                .for_each(|(sum, cell)| sum.merge(cell)),
        }
    }

    /// The page's cells, made from its list if need be.
    fn cells(&mut self) -> &mut [C] {
        if let Self::Listed(entries) = self {
            let mut cells = vec![C::default(); PAGE_LENGTH];
            for (place, entry) in entries {
                cells[usize::from(*place)].add(*entry);
            }
            *self = Self::Summed(cells.into_boxed_slice());
        }
        match self {
            Self::Summed(cells) => cells,
            Self::Listed(_) => unreachable!("a list has just become cells"),
        }
    }
}

/// The bits of a float, changed so that they sort as the floats do.
fn key(value: f32) -> u32 {
    // Adding zero makes negative zero positive.
    let bits = (value + 0.0).to_bits();
    match bits >> 31 {
        0 => bits | 1 << 31,
        _ => !bits,
    }
}

/// The float of a key.
fn value_of(key: u32) -> f32 {
    f32::from_bits(match key >> 31 {
        0 => !key,
        _ => key & !(1 << 31),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counted(histograms: &[&Histogram<u64>]) -> Vec<(f32, u64)> {
        let mut found = Vec::new();
        descend::<u64, u64>(histograms, &[], |value, count, _| {
            found.push((value, *count));
        });
        found
    }

    fn of(values: &[f32]) -> Histogram<u64> {
        let mut histogram = Histogram::default();
        values.iter().for_each(|value| histogram.add(*value, ()));
        histogram
    }

    #[test]
    fn values_come_down_from_the_highest_with_both_zeros_as_one() {
        let histogram = of(&[-0.0, 1.0, -2.5, 0.0, f32::MAX, f32::MIN, 1.0, 1e-40]);
        let expected = [
            (f32::MAX, 1),
            (1.0, 2),
            (1e-40, 1),
            (0.0, 2),
            (-2.5, 1),
            (f32::MIN, 1),
        ];
        assert_eq!(counted(&[&histogram]), expected);
    }

    #[test]
    fn a_page_that_is_full_counts_on_in_cells() {
        let mut histogram = Histogram::<u64>::default();
        let more = Page::<u64>::LONGEST_LIST + 10;
        (0..more).for_each(|_| histogram.add(0.75, ()));
        let page = &histogram.pages[(key(0.75) >> 16) as usize];
        assert!(matches!(page, Page::Summed(_)));
        histogram.add(0.7500001, ());
        let expected = [(0.7500001, 1), (0.75, more as u64)];
        assert_eq!(counted(&[&histogram]), expected);
        let small = of(&[0.75, 0.5]);
        let merged = [(0.7500001, 1), (0.75, more as u64 + 1), (0.5, 1)];
        assert_eq!(counted(&[&small, &histogram]), merged);
        let mut both = small.clone();
        both.merge(&histogram);
        assert_eq!(counted(&[&both]), merged);
        histogram.merge(&small);
        assert_eq!(counted(&[&histogram]), merged);
    }

    #[test]
    fn long_lists_are_read_as_short_ones_are() {
        let values: Vec<f32> = (0..3 * LONGEST_SORTED)
            .map(|i| 1.0 + (i % 5000) as f32 * f32::EPSILON)
            .collect();
        let found = counted(&[&of(&values)]);
        assert_eq!(found.len(), 5000);
        assert!(found.is_sorted_by(|a, b| a.0 > b.0));
        assert_eq!(
            found.iter().map(|cell| cell.1).sum::<u64>(),
            values.len() as u64
        );
    }

    proptest! {
        #[test]
        fn keys_sort_as_floats_do(a in proptest::num::f32::ANY, b in proptest::num::f32::ANY) {
            prop_assume!(!a.is_nan() && !b.is_nan());
            prop_assert_eq!(a.partial_cmp(&b), Some(key(a).cmp(&key(b))));
            prop_assert_eq!(value_of(key(a)), a);
        }
    }
}
