//! From anomaly maps to a judgement on the part.
//!
//! Scores views, holds the part against its class's threshold, finds the defect regions and
//! compresses the maps. Pure: no I/O and no clock, the same maps always give the same verdict, byte
//! for byte. Whatever the model or the settings hand in, a part is never called
//! [`Ok`](crate::domain::Decision::Ok) on numbers that are not finite.

mod judge;
mod map_resize;
pub mod maps;
mod regions;
mod size_limit;
#[cfg(test)]
pub(crate) mod testing;
mod view_score;

pub use judge::{ClassThresholds, Judge, JudgeSettings};
pub use maps::{MapError, MapSettings, decode_map, encode_map};
pub use regions::{RegionSettings, find_regions};
pub use size_limit::{drop_detail, fit_to_limit};
pub use view_score::{InvalidMap, pooled_score, view_score};
