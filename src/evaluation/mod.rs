//! Evaluation: how well scores and maps tell good from bad, and where to draw the line.
//!
//! # Levels and figures
//!
//! Three levels, as multi-view papers report them: image (one view, by its view score), pixel (all
//! map pixels of a class together, at the map's own size), sample (one part; its score is the
//! highest of its views, as Real-IAD defines it; beside it the *pooled* score, the mean of the
//! highest hundredth of the pixels of all views). At each: AUROC (ties count half), average
//! precision (no interpolation), and F1-max, the highest F1 of any threshold. For pixels also AUPRO
//! up to 30 % false alarms, by Dinomaly's protocol.
//!
//! A map pixel counts as defect if any mask pixel that it covers is one. Papers differ here: Dinomaly
//! shrinks masks with a smoothing filter and picks every so many pixels of all that is not zero then,
//! others cut at one half. What a model's preparation crops away is in no figure of pixels.
//!
//! Figures are numbers from 0 to 1, class by class; the mean is over the classes that have the
//! figure, each counting the same. They are exact over the given scores (equal to scikit-learn's),
//! whatever the number of pixels: maps are [counted](pixels) one by one and not kept.

pub mod calibration;
pub mod figures;
mod histogram;
pub mod measurement;
mod overlap;
pub mod pixels;
pub mod published;
pub mod ranking;
pub mod report;
pub mod sheet;
pub mod validation;
