//! The cameras: parts all the while, and among them records that nothing can be made of.
//!
//! The views of several parts come mixed and spread over a second or so, so that at any moment some
//! parts are complete and some are open. What is sent follows from the seed.

use std::time::{Duration, Instant};

use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::Settings;
use crate::support::line::Line;
use crate::support::shots::Shot;

/// Parts whose views come mixed.
const PARTS_AT_ONCE: usize = 8;
/// In so many bursts.
const BURSTS: usize = 6;
/// How much later a late copy is sent, in rounds of so many parts.
const LATE_BY: std::ops::Range<u32> = 1..40;
/// Encoding images for every part would take longer than anything else.
const DIFFERENT_PARTS: u64 = 8;

/// The header by which a bad record is told from all others.
pub(super) const MARK: &str = "mark";

/// What is wrong with a record.
#[derive(Clone, Copy, Debug)]
enum Flaw {
    NoKey,
    NoImage,
    UnknownView,
    /// The view has come before, with other bytes.
    OtherBytes,
    /// The same long after its part is whole.
    Late,
}

impl Flaw {
    const ALL: [Self; 5] = [
        Self::NoKey,
        Self::NoImage,
        Self::UnknownView,
        Self::OtherBytes,
        Self::Late,
    ];

    /// What its dead letter may give as the reason.
    fn reasons(self) -> &'static [&'static str] {
        match self {
            Self::NoKey => &["missing_key"],
            Self::NoImage => &["decode"],
            // Topics are read at their own paces: the part may be whole before this is read.
            Self::UnknownView => &["unknown_view", "late"],
            Self::OtherBytes | Self::Late => &["duplicate", "late"],
        }
    }
}

/// All that was sent.
#[derive(Default)]
pub(super) struct Sent {
    pub(super) parts: Vec<SentPart>,
    pub(super) bad_records: Vec<BadRecord>,
}

pub(super) struct SentPart {
    pub(super) name: String,
    /// When the first of its views had not been sent yet.
    pub(super) after: Instant,
}

pub(super) struct BadRecord {
    pub(super) shot: Shot,
    /// The value of the header [`MARK`].
    pub(super) mark: String,
    pub(super) reasons: &'static [&'static str],
}

/// Sends parts to a line.
pub(super) struct Cameras<'a> {
    line: &'a Line<'a>,
    random: ChaCha8Rng,
    every: Duration,
    bad_share: f64,
    images: Vec<Vec<Shot>>,
    sent: Sent,
    /// What is sent with later parts: how many rounds are left for each.
    late: Vec<(u32, Shot)>,
}

impl<'a> Cameras<'a> {
    pub(super) fn new(line: &'a Line<'a>, settings: &Settings, seed: u64) -> Self {
        Self {
            line,
            random: ChaCha8Rng::seed_from_u64(seed),
            every: Duration::from_secs_f64(PARTS_AT_ONCE as f64 / settings.parts_a_second),
            bad_share: settings.bad_share,
            images: (0..DIFFERENT_PARTS)
                .map(|seed| line.part("", seed))
                .collect(),
            sent: Sent::default(),
            late: Vec::new(),
        }
    }

    /// Sends until `is_enough`, given how many parts were sent.
    pub(super) fn run(mut self, is_enough: impl Fn(usize) -> bool) -> Sent {
        while !is_enough(self.sent.parts.len()) {
            let began = Instant::now();
            let bursts = self.next_bursts(began);
            let pause = self.every / u32::try_from(bursts.len()).expect("there are few");
            for (number, burst) in (1..).zip(bursts) {
                self.line.send(burst);
                // The line's own pace.
                std::thread::sleep((pause * number).saturating_sub(began.elapsed()));
            }
        }
        self.line.send(self.late.into_iter().map(|(_, shot)| shot));
        self.sent
    }

    fn next_bursts(&mut self, now: Instant) -> Vec<Vec<Shot>> {
        // The sound one of two views must come first, or the other one counts.
        let (mut first, mut mixed) = (Vec::new(), self.late_by_now());
        for _ in 0..PARTS_AT_ONCE {
            let name = format!("part-{:05}", self.sent.parts.len());
            let images = self.images.choose(&mut self.random);
            let mut shots = images.expect("there are some").clone();
            for shot in &mut shots {
                shot.key = Some(name.clone().into_bytes());
            }
            self.sent.parts.push(SentPart { name, after: now });
            if self.random.random_bool(self.bad_share) {
                first.extend(self.spoil(&mut shots));
            }
            mixed.extend(shots);
        }
        mixed.shuffle(&mut self.random);
        first.extend(mixed);
        let a_burst = first.len().div_ceil(BURSTS);
        first.chunks(a_burst).map(<[Shot]>::to_vec).collect()
    }

    /// The late copies whose time has come.
    fn late_by_now(&mut self) -> Vec<Shot> {
        for (rounds, _) in &mut self.late {
            *rounds -= 1;
        }
        let due = self.late.extract_if(.., |(rounds, _)| *rounds == 0);
        due.map(|(_, shot)| shot).collect()
    }

    /// Adds a bad record to a part's, or puts one in a sound one's place. A view that is sent twice is
    /// taken out and returned.
    fn spoil(&mut self, shots: &mut Vec<Shot>) -> Vec<Shot> {
        let flaw = *Flaw::ALL.choose(&mut self.random).expect("there are some");
        let view = self.random.random_range(0..shots.len());
        let mut spoilt = shots[view].clone();
        match flaw {
            Flaw::NoKey => spoilt.key = None,
            Flaw::UnknownView => spoilt = spoilt.header("view", "nowhere"),
            Flaw::NoImage => {
                shots.swap_remove(view);
                spoilt.value = b"no image".to_vec();
            }
            Flaw::OtherBytes => {
                spoilt.value.push(0);
                return vec![shots.swap_remove(view), self.bad(flaw, spoilt)];
            }
            Flaw::Late => {
                spoilt.value.push(0);
                let rounds = self.random.random_range(LATE_BY);
                let spoilt = self.bad(flaw, spoilt);
                self.late.push((rounds, spoilt));
                return Vec::new();
            }
        }
        let spoilt = self.bad(flaw, spoilt);
        shots.push(spoilt);
        Vec::new()
    }

    fn bad(&mut self, flaw: Flaw, shot: Shot) -> Shot {
        let mark = format!("{flaw:?}-{}", self.sent.bad_records.len());
        let shot = shot.header(MARK, &mark);
        self.sent.bad_records.push(BadRecord {
            shot: shot.clone(),
            mark,
            reasons: flaw.reasons(),
        });
        shot
    }
}
