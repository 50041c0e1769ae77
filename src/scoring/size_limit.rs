//! Keeps results below the broker's message limit by leaving out maps, then regions.
//!
//! Scores and the decision always travel; maps are for people to look at, and the ones with the
//! lowest scores show the least.

use crate::domain::{OutboundRecord, PartVerdict};

/// Encodes a verdict, dropping maps, lowest view score first, and then all regions, until the
/// record is no larger than `limit_bytes`; sets `maps_dropped` when a map had to go.
///
/// A record that is too large even so is returned as it is: it holds nothing that may be lost, and
/// publishing it fails for good.
///
/// # Errors
/// Those of `encode`.
pub fn fit_to_limit<E>(
    verdict: &mut PartVerdict,
    limit_bytes: usize,
    mut encode: impl FnMut(&PartVerdict) -> Result<OutboundRecord, E>,
) -> Result<OutboundRecord, E> {
    loop {
        let record = encode(verdict)?;
        let fits = record.size_bytes() <= limit_bytes;
        if fits || !(drop_lowest_map(verdict) || drop_regions(verdict)) {
            return Ok(record);
        }
    }
}

/// Drops what a result can go without when the broker's limit is lower than the one that it was
/// fitted to: all maps, else all regions. False when it has neither.
pub fn drop_detail(verdict: &mut PartVerdict) -> bool {
    let mut is_smaller = false;
    while drop_lowest_map(verdict) {
        is_smaller = true;
    }
    is_smaller || drop_regions(verdict)
}

fn drop_regions(verdict: &mut PartVerdict) -> bool {
    let mut is_smaller = false;
    for view in &mut verdict.views {
        is_smaller |= !view.regions.is_empty();
        view.regions.clear();
    }
    is_smaller
}

/// Drops the map of the view with the lowest score; false when there is none left.
fn drop_lowest_map(verdict: &mut PartVerdict) -> bool {
    let lowest = verdict
        .views
        .iter_mut()
        .filter(|view| view.map.is_some())
        .min_by(|one, other| {
            let score = |score: Option<f32>| score.unwrap_or(f32::NEG_INFINITY);
            score(one.score).total_cmp(&score(other.score))
        });
    let Some(view) = lowest else {
        return false;
    };
    view.map = None;
    verdict.maps_dropped = true;
    true
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::domain::Region;
    use crate::scoring::testing::{scored_view, verdict_of};

    const MAP_BYTES: usize = 1_000;

    fn verdict() -> PartVerdict {
        let view = |name, score| scored_view(name, score, MAP_BYTES);
        verdict_of(vec![
            view("top", 0.5),
            view("left", 0.1),
            view("right", 0.9),
        ])
    }

    fn encode(verdict: &PartVerdict) -> Result<OutboundRecord, Infallible> {
        let maps = verdict.views.iter().filter_map(|view| view.map.as_ref());
        Ok(OutboundRecord {
            topic: "results".into(),
            partition: None,
            key: None,
            value: Some(maps.flat_map(|map| map.data.clone()).collect()),
            headers: Vec::new(),
        })
    }

    fn kept(limit_bytes: usize) -> (Vec<&'static str>, bool, usize) {
        let mut verdict = verdict();
        let record = fit_to_limit(&mut verdict, limit_bytes, encode).unwrap();
        let names = ["top", "left", "right"]
            .into_iter()
            .zip(&verdict.views)
            .filter(|(_, view)| view.map.is_some())
            .map(|(name, _)| name)
            .collect();
        (names, verdict.maps_dropped, record.value.unwrap().len())
    }

    #[test]
    fn keeps_all_maps_that_fit() {
        assert_eq!(
            kept(4 * MAP_BYTES),
            (vec!["top", "left", "right"], false, 3 * MAP_BYTES)
        );
    }

    #[test]
    fn drops_the_maps_with_the_lowest_scores_first() {
        assert_eq!(
            kept(2 * MAP_BYTES + 500),
            (vec!["top", "right"], true, 2 * MAP_BYTES)
        );
        assert_eq!(kept(MAP_BYTES + 500), (vec!["right"], true, MAP_BYTES));
    }

    #[test]
    fn detail_goes_in_two_steps_and_scores_never() {
        let mut verdict = verdict();
        verdict.views[0].regions.push(Region {
            x: 0,
            y: 0,
            width: 1,
            height: 1,
            area: 1,
            peak: 0.5,
        });
        assert!(drop_detail(&mut verdict));
        assert!(verdict.maps_dropped);
        assert!(verdict.views.iter().all(|view| view.map.is_none()));
        assert_eq!(verdict.views[0].regions.len(), 1);
        assert!(drop_detail(&mut verdict));
        assert!(verdict.views[0].regions.is_empty());
        assert!(!drop_detail(&mut verdict));
        assert!(verdict.views.iter().all(|view| view.score.is_some()));
    }

    #[test]
    fn returns_the_record_without_maps_when_nothing_fits() {
        assert_eq!(kept(0), (vec![], true, 0));
    }
}
