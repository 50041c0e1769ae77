//! One number a view: the mean of the most anomalous pixels of its map.
//!
//! A mean of the top hundredth is steadier than the highest pixel alone, and still answers to a
//! defect that covers little of the image.

use crate::domain::AnomalyMap;

/// The share of a map's pixels that make its score (Dinomaly and MVMCAD use the same).
const TOP_SHARE: f64 = 0.01;

/// Why a map gives no score.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMap {
    /// The map has no pixels.
    #[error("anomaly map has no pixels, found `{width}` x `{height}`")]
    Empty {
        /// Width it claims.
        width: usize,
        /// Height it claims.
        height: usize,
    },
    /// The values do not fill the stated size.
    #[error("anomaly map of `{width}` x `{height}` pixels holds `{found}` values")]
    WrongLength {
        /// Width it claims.
        width: usize,
        /// Height it claims.
        height: usize,
        /// Values it holds.
        found: usize,
    },
    /// A value is infinite or not a number.
    #[error("anomaly map holds values that are not finite: `{count}` of `{total}`")]
    NotFinite {
        /// How many are not finite.
        count: usize,
        /// How many values there are.
        total: usize,
    },
}

/// The mean of the highest hundredth of the map's pixels, of one pixel at least.
///
/// ```
/// use panoptes::{domain::AnomalyMap, scoring::view_score};
/// let mut values = vec![0.0; 200];
/// values[7] = 3.0;
/// values[8] = 5.0;
/// let map = AnomalyMap { width: 20, height: 10, values };
/// assert_eq!(view_score(&map), Ok(4.0));
/// ```
///
/// # Errors
/// When the map is empty, of the wrong length, or holds values that are not finite.
pub fn view_score(map: &AnomalyMap) -> Result<f32, InvalidMap> {
    pooled_score([map])
}

/// The mean of the highest hundredth of the pixels of all the maps together, of one pixel at least.
///
/// # Errors
/// When there is no map, or one is empty, of the wrong length, or holds values that are not finite.
pub fn pooled_score<'a>(maps: impl IntoIterator<Item = &'a AnomalyMap>) -> Result<f32, InvalidMap> {
    let mut values = Vec::new();
    for map in maps {
        check(map)?;
        values.extend_from_slice(&map.values);
    }
    if values.is_empty() {
        let (width, height) = (0, 0);
        return Err(InvalidMap::Empty { width, height });
    }
    let count = top_count(values.len());
    let first_of_top = values.len() - count;
    values.select_nth_unstable_by(first_of_top, f32::total_cmp);
    let sum: f64 = values[first_of_top..].iter().copied().map(f64::from).sum();
    Ok((sum / count as f64) as f32)
}

/// How many pixels of `total` make the score.
fn top_count(total: usize) -> usize {
    ((total as f64 * TOP_SHARE).floor() as usize).max(1)
}

fn check(map: &AnomalyMap) -> Result<(), InvalidMap> {
    let (width, height, found) = (map.width, map.height, map.values.len());
    if width == 0 || height == 0 {
        return Err(InvalidMap::Empty { width, height });
    }
    if width.checked_mul(height) != Some(found) {
        return Err(InvalidMap::WrongLength {
            width,
            height,
            found,
        });
    }
    let count = map.values.iter().filter(|value| !value.is_finite()).count();
    if count > 0 {
        return Err(InvalidMap::NotFinite {
            count,
            total: found,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_highest_pixels_of_all_views_are_pooled() {
        let mut low = row(vec![0.0; 100]);
        let mut high = row(vec![0.0; 100]);
        (low.values[3], high.values[5], high.values[6]) = (1.0, 7.0, 5.0);
        assert_eq!(pooled_score([&low, &high]), Ok(6.0));
        assert_eq!(pooled_score([&low]), view_score(&low));
        assert!(pooled_score([]).is_err());
    }

    fn row(values: Vec<f32>) -> AnomalyMap {
        AnomalyMap {
            width: values.len(),
            height: 1,
            values,
        }
    }

    #[test]
    fn counts_one_pixel_in_a_hundred_rounded_down() {
        assert_eq!(top_count(1), 1);
        assert_eq!(top_count(199), 1);
        assert_eq!(top_count(200), 2);
        assert_eq!(top_count(256 * 256), 655);
    }

    #[test]
    fn refuses_maps_without_a_meaning() {
        let empty = AnomalyMap {
            width: 0,
            height: 4,
            values: vec![],
        };
        assert_eq!(
            view_score(&empty),
            Err(InvalidMap::Empty {
                width: 0,
                height: 4
            })
        );
        let short = AnomalyMap {
            width: 3,
            height: 2,
            values: vec![0.0; 5],
        };
        assert!(matches!(
            view_score(&short),
            Err(InvalidMap::WrongLength { found: 5, .. })
        ));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error = view_score(&row(vec![0.1, bad])).unwrap_err();
            assert_eq!(error, InvalidMap::NotFinite { count: 1, total: 2 });
        }
    }

    proptest! {
        #[test]
        fn equals_the_mean_of_the_sorted_top(values in prop::collection::vec(-10.0f32..10.0, 1..700)) {
            let mut sorted = values.clone();
            sorted.sort_by(f32::total_cmp);
            let count = (values.len() / 100).max(1);
            let expected = sorted[values.len() - count..].iter().sum::<f32>() / count as f32;
            let score = view_score(&row(values)).unwrap();
            prop_assert!((score - expected).abs() < 1e-4);
        }

        #[test]
        fn lies_between_the_lowest_and_the_highest_pixel(values in prop::collection::vec(-1e30f32..1e30, 1..300)) {
            let lowest = values.iter().copied().fold(f32::INFINITY, f32::min);
            let highest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let score = view_score(&row(values)).unwrap();
            prop_assert!(lowest <= score && score <= highest);
        }
    }
}
