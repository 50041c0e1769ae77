//! Cameras on a bad day, for a replay to tell the same of: images that never come, come late, come again
//! as they were or as others, are none, or belong to nothing.
//!
//! When something happens is told by the records' own times, of which ten seconds pass in one at most. What
//! the order of two records decides lies ten of these seconds apart, so that no race on the way does; and
//! nothing is so far apart that a wall clock decides. What should become of each record is known.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::support::line::{Line, PARTITIONS, VIEWS};
use crate::support::shots::Shot;

/// How long a part may take past all cameras, in milliseconds of the records' time as all that follow.
pub(super) const TIMEOUT: i64 = 60_000;
/// From one part to the next.
const TAKT: i64 = 1_000;
/// The pause between two times that records are sent, by the wall clock.
const EVERY: Duration = Duration::from_millis(100);
/// How much longer after a part's first view each camera sees it.
const LAGS: [i64; VIEWS.len()] = [0, 700, 2_300, 1_100, 3_100];
/// At most so much later, by chance, so that a camera's parts come in an order of their own.
const JITTER: i64 = 3_000;
/// How far the clock of the camera `front` is behind.
const FRONT_IS_BEHIND: i64 = 2_500;
/// What comes while its part is open.
const SOON: i64 = 14_000;
/// The view that completes a part which is open for long.
const SLOW: i64 = 30_000;
/// What comes after its part is complete.
const AFTER: i64 = 44_000;
/// What comes after its part's time is over.
const LATE: i64 = TIMEOUT + 35_000;
/// Sound parts at the end, over which the time of all others passes.
const LAST_PARTS: usize = 130;
/// Different images of a view; encoding some for every part would take longer than anything else.
const IMAGES: u64 = 8;

/// The header by which the records are known that should become dead letters.
pub(super) const MADE_FOR: &str = "made-for";

/// What happens to a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mishap {
    None,
    /// The view `back` comes last, and slowly.
    Slow,
    /// The view `back` never comes.
    Incomplete,
    /// The view `back` comes when the part's time is over.
    Late,
    /// The view `top` is no image.
    NoImage,
    /// Another image of `left` comes while the part waits for `back`.
    AnotherImage,
    /// The same after the part is complete.
    AnotherImageAfter,
    /// The same after the time of a part is over that `back` never came of.
    AnotherImageLate,
    /// The very image of `right` comes again while the part waits for `back`.
    Copy,
    /// The same after the part is complete.
    CopyAfter,
    /// The same after the time of a part is over that `back` never came of.
    CopyLate,
    /// A view that no part has comes while the part waits for `back`.
    UnknownView,
    /// The same after the part is complete.
    UnknownViewAfter,
    /// A record without a key comes with the part.
    NoKey,
}

impl Mishap {
    /// In turns: 27 of them, so that each falls on each of four partition numbers.
    pub(super) const TURNS: [Self; 27] = [
        Self::None,
        Self::Incomplete,
        Self::None,
        Self::AnotherImage,
        Self::CopyAfter,
        Self::None,
        Self::Late,
        Self::Slow,
        Self::NoImage,
        Self::None,
        Self::AnotherImageAfter,
        Self::Copy,
        Self::None,
        Self::UnknownView,
        Self::AnotherImageLate,
        Self::None,
        Self::NoKey,
        Self::AnotherImage,
        Self::None,
        Self::CopyLate,
        Self::Late,
        Self::None,
        Self::UnknownViewAfter,
        Self::AnotherImageAfter,
        Self::Slow,
        Self::None,
        Self::Copy,
    ];

    pub(super) fn of(number: usize) -> Self {
        Self::TURNS[number % Self::TURNS.len()]
    }

    /// The views that its result should be without.
    pub(super) fn missing(self) -> &'static [&'static str] {
        match self {
            Self::Incomplete | Self::Late | Self::AnotherImageLate | Self::CopyLate => &["back"],
            _ => &[],
        }
    }

    /// The views whose images should have failed.
    pub(super) fn failed(self) -> &'static [&'static str] {
        match self {
            Self::NoImage => &["top"],
            _ => &[],
        }
    }

    /// The views of which its result should say that others came, too.
    pub(super) fn duplicates(self) -> &'static [&'static str] {
        match self {
            Self::AnotherImage => &["left"],
            _ => &[],
        }
    }

    /// Why a record of it should be a dead letter, if one should.
    pub(super) fn reason(self) -> Option<&'static str> {
        match self {
            Self::NoImage => Some("decode"),
            Self::NoKey => Some("missing_key"),
            Self::UnknownView => Some("unknown_view"),
            Self::Late | Self::UnknownViewAfter => Some("late"),
            Self::AnotherImage | Self::AnotherImageAfter | Self::AnotherImageLate => {
                Some("duplicate")
            }
            Self::None
            | Self::Slow
            | Self::Incomplete
            | Self::Copy
            | Self::CopyAfter
            | Self::CopyLate => None,
        }
    }

    /// Whether the view `back` comes slowly, but in time.
    fn is_slow(self) -> bool {
        use Mishap::{AnotherImage, Copy, Slow, UnknownView};
        matches!(self, Slow | AnotherImage | Copy | UnknownView)
    }
}

/// A part that was sent, and what happened to it.
#[derive(Clone, Debug)]
pub(super) struct SentPart {
    pub(super) name: String,
    pub(super) mishap: Mishap,
}

/// Cameras of a line.
pub(super) struct Cameras<'a> {
    line: &'a Line<'a>,
    /// The time of the first record.
    began: i64,
    random: ChaCha8Rng,
    images: Vec<Vec<Shot>>,
    sent: Vec<SentPart>,
    /// What is to be sent, by when.
    pending: BTreeMap<(i64, usize), Shot>,
    drawn: usize,
}

impl<'a> Cameras<'a> {
    pub(super) fn new(line: &'a Line<'a>, began: i64, seed: u64) -> Self {
        Self {
            line,
            began,
            random: ChaCha8Rng::seed_from_u64(seed),
            images: (0..IMAGES).map(|seed| line.part("", seed)).collect(),
            sent: Vec::new(),
            pending: BTreeMap::new(),
            drawn: 0,
        }
    }

    /// Sends until the other side of `is_enough` is gone, then what is under way and the last parts;
    /// `count` says how many parts have begun.
    pub(super) fn run(mut self, is_enough: Receiver<()>, count: &AtomicUsize) -> Vec<SentPart> {
        let mut last_parts = None;
        for round in 1_i64.. {
            if is_enough.try_recv() == Err(TryRecvError::Disconnected) {
                last_parts.get_or_insert(LAST_PARTS);
            }
            match &mut last_parts {
                None => self.make(Mishap::of(self.sent.len())),
                Some(0) => {}
                Some(left) => {
                    *left -= 1;
                    self.make(Mishap::None);
                }
            }
            count.store(self.sent.len(), Ordering::Relaxed);
            let later = self.pending.split_off(&(TAKT * round, 0));
            let now = std::mem::replace(&mut self.pending, later);
            self.line.send(now.into_values());
            if last_parts == Some(0) && self.pending.is_empty() {
                break;
            }
            // After a stall nothing is made up for: records would come closer together than they may.
            std::thread::sleep(EVERY);
        }
        self.sent
    }

    /// Has all records of the next part wait for their time.
    fn make(&mut self, mishap: Mishap) {
        let number = self.sent.len();
        let name = format!("part-{number:05}");
        let at = TAKT * i64::try_from(number).unwrap();
        let image = self.random.random_range(0..self.images.len());
        for (place, view) in VIEWS.iter().enumerate() {
            let mut shot = self.images[image][place].clone();
            let mut after = LAGS[place] + self.random.random_range(0..JITTER);
            if *view == "back" {
                match mishap {
                    Mishap::Incomplete | Mishap::AnotherImageLate | Mishap::CopyLate => continue,
                    Mishap::Late => (after, shot) = (LATE, shot.header(MADE_FOR, &name)),
                    _ if mishap.is_slow() => after = SLOW,
                    _ => {}
                }
            }
            if *view == "top" && mishap == Mishap::NoImage {
                shot = shot.header(MADE_FOR, &name);
                shot.value.truncate(100);
            }
            self.pend(at + after, shot.keyed(Some(name.as_bytes())));
        }
        if let Some((after, shot)) = self.one_more(mishap, image) {
            let shot = shot.header(MADE_FOR, &name);
            let key = (mishap != Mishap::NoKey).then_some(name.as_bytes());
            self.pend(at + after, shot.keyed(key));
        }
        self.sent.push(SentPart { name, mishap });
    }

    /// The record that a part has beside its views, and when.
    fn one_more(&self, mishap: Mishap, image: usize) -> Option<(i64, Shot)> {
        let of = |image: usize, view: &str| {
            let place = VIEWS.iter().position(|it| *it == view).unwrap();
            self.images[image % self.images.len()][place].clone()
        };
        let (another, copy) = (of(image + 1, "left"), of(image, "right"));
        let unknown = of(image, "front").header("view", "nowhere");
        let more = match mishap {
            Mishap::AnotherImage => (SOON, another),
            Mishap::AnotherImageAfter => (AFTER, another),
            Mishap::AnotherImageLate => (LATE, another),
            Mishap::Copy => (SOON, copy),
            Mishap::CopyAfter => (AFTER, copy),
            Mishap::CopyLate => (LATE, copy),
            Mishap::UnknownView => (SOON, unknown),
            Mishap::UnknownViewAfter => (AFTER, unknown),
            Mishap::NoKey => (SOON, of(image, "top")),
            _ => return None,
        };
        Some(more)
    }

    fn pend(&mut self, at: i64, shot: Shot) {
        let is_front = shot.topic == self.line.camera("front");
        let behind = if is_front { FRONT_IS_BEHIND } else { 0 };
        let partition = i32::try_from(self.sent.len()).unwrap() % PARTITIONS;
        let shot = shot.at(self.began + at - behind).on_partition(partition);
        self.drawn += 1;
        self.pending.insert((at, self.drawn), shot);
    }
}
