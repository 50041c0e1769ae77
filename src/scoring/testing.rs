//! Verdicts for the tests of what carries them.

use crate::domain::{
    CloseCause, Decision, EncodedMap, MapCodec, PartKey, PartVerdict, Timestamp, ViewStatus,
    ViewVerdict,
};

/// A scored view whose map takes so many bytes.
pub(crate) fn scored_view(name: &str, score: f32, map_bytes: usize) -> ViewVerdict {
    ViewVerdict {
        view: name.into(),
        status: ViewStatus::Scored,
        score: Some(score),
        source: None,
        captured_at: None,
        map: Some(EncodedMap {
            codec: MapCodec::Zstd,
            width: 8,
            height: 8,
            scale: 1.0,
            offset: 0.0,
            data: vec![0; map_bytes],
        }),
        regions: Vec::new(),
        error: None,
    }
}

/// The verdict on part `p-1` with these views.
pub(crate) fn verdict_of(views: Vec<ViewVerdict>) -> PartVerdict {
    PartVerdict {
        part: PartKey {
            line: "line1".into(),
            part: "p-1".into(),
        },
        class: None,
        decision: Decision::Review,
        score: views.iter().filter_map(|view| view.score).reduce(f32::max),
        threshold: None,
        is_partial: false,
        closed_by: CloseCause::Complete,
        views,
        duplicates: Vec::new(),
        maps_dropped: false,
        first_view_at: Timestamp(0),
        last_view_at: Timestamp(0),
        scored_at: Timestamp(0),
        traceparent: None,
    }
}
