//! When each part is due: at once, at a rate, or as far apart as the cameras took them. Pure.

use std::time::Duration;

use super::folder::PartFolder;

/// How parts follow each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pace {
    /// As fast as the broker takes them.
    Unbounded,
    /// So many parts a second.
    PartsPerSecond(f64),
    /// As far apart as their files were written.
    RealTime,
}

impl Pace {
    /// Puts the parts in the order in which they are due.
    pub(super) fn sort(self, parts: &mut [PartFolder]) {
        if self == Self::RealTime {
            parts.sort_by_key(PartFolder::first_modified_at);
        }
    }

    /// When part `index` is due, from the start.
    pub(super) fn due(self, parts: &[PartFolder], index: usize) -> Duration {
        match self {
            Self::Unbounded => Duration::ZERO,
            Self::PartsPerSecond(rate) => {
                Duration::try_from_secs_f64(index as f64 / rate).unwrap_or(Duration::MAX)
            }
            Self::RealTime => match (parts.first(), parts.get(index)) {
                (Some(first), Some(part)) => {
                    part.first_modified_at().since(first.first_modified_at())
                }
                _ => Duration::ZERO,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::produce::folder::ImageFile;
    use crate::domain::Timestamp;

    fn part(name: &str, times: &[i64]) -> PartFolder {
        let images = times.iter().map(|time| ImageFile {
            view: format!("view{time}"),
            path: "view.jpg".into(),
            content_type: "image/jpeg",
            bytes: 1,
            modified_at: Timestamp(*time),
        });
        PartFolder {
            class: "bolt".to_owned(),
            part: name.to_owned(),
            images: images.collect(),
            expected_views: times.len(),
        }
    }

    #[test]
    fn real_time_follows_the_first_image_of_each_part() {
        let mut parts = vec![
            part("late", &[7_000, 5_500]),
            part("early", &[4_000, 9_000]),
        ];
        Pace::RealTime.sort(&mut parts);
        assert_eq!(parts[0].part, "early");
        assert_eq!(Pace::RealTime.due(&parts, 0), Duration::ZERO);
        assert_eq!(Pace::RealTime.due(&parts, 1), Duration::from_millis(1_500));
    }

    #[test]
    fn a_rate_spaces_parts_evenly() {
        let parts = vec![part("a", &[1]), part("b", &[1])];
        assert_eq!(
            Pace::PartsPerSecond(4.0).due(&parts, 1),
            Duration::from_millis(250)
        );
        assert_eq!(Pace::Unbounded.due(&parts, 1), Duration::ZERO);
    }
}
