//! Evaluation: how well scores and maps tell good from bad, and where to draw the line.
//!
//! Three levels, as multi-view papers report them: image (one view), sample (one part; its score
//! is the highest of its views), pixel. All numbers are exact over the given scores (ties
//! included), class by class, then averaged over classes. Protocol of AUPRO: Dinomaly's.

pub mod calibration;
pub mod measurement;
pub mod overlap;
pub mod ranking;
pub mod table;
pub mod validation;
