//! From a batch of groups to the device's input: image bytes to pixels to normalised tensors.
//!
//! Every view is its own unit of work on the thread pool; a view that cannot be decoded becomes
//! a reject and its part goes on without it.

use std::sync::Arc;
use std::time::Instant;

use rayon::prelude::*;
use tokio::sync::mpsc;

use super::batching::DeviceBatch;
use super::in_flight::InFlightToken;
use crate::decode::{ImageLimits, decode_pixels};
use crate::domain::{
    ClassName, Group, MapFootprint, PartClosure, Reject, RejectReason, ScoringOrder, View,
};
use crate::inference::InferenceBatch;
use crate::model::preprocess::Preprocessor;
use crate::model::{InputImage, Subject};
use crate::telemetry::{self, Stage};

/// What is made of a view's bytes for the model.
#[derive(Clone, Copy, Debug)]
pub enum Preparation {
    /// They are decoded, resized and normalised.
    Pixels(Preprocessor),
    /// Nothing, for a stand-in that looks at no pixel: `panoptes bench` measures all else with it.
    Nothing,
}

/// A closed group on its way to its result.
#[derive(Debug)]
pub(crate) struct PendingGroup {
    pub(crate) group: Group,
    pub(crate) closure: Arc<PartClosure>,
    pub(crate) token: InFlightToken,
}

/// A group whose views are with the device.
#[derive(Debug)]
pub(crate) struct PreparedGroup {
    pub(crate) pending: PendingGroup,
    /// One entry a view, in the order of `group.views`.
    pub(crate) views: Vec<PreparedView>,
}

/// A batch that is with the device.
#[derive(Debug)]
pub(crate) struct PreparedBatch {
    pub(crate) groups: Vec<PreparedGroup>,
    /// Says that a device has work.
    pub(crate) work: InFlightToken,
}

/// What became of a view before the device.
#[derive(Debug)]
pub(crate) enum PreparedView {
    /// The next image of the batch is this view's.
    Submitted(MapFootprint),
    /// It could not be decoded.
    Failed(Reject),
    /// The device is not asked (timeout policy `review`).
    Skipped,
}

/// Decodes and preprocesses batch after batch until the input closes.
pub(crate) async fn prepare_batches(
    preparation: Preparation,
    limits: ImageLimits,
    mut batches: mpsc::Receiver<DeviceBatch>,
    prepared: mpsc::Sender<InferenceBatch<PreparedBatch>>,
) -> anyhow::Result<()> {
    while let Some((batch, work)) = batches.recv().await {
        let batch =
            tokio::task::spawn_blocking(move || prepare(batch.groups, work, preparation, limits))
                .await?;
        telemetry::batch_closed(batch.images.len());
        if prepared.send(batch).await.is_err() {
            break; // the device thread ended; its own error says why
        }
    }
    Ok(())
}

fn prepare(
    groups: Vec<PendingGroup>,
    work: InFlightToken,
    preparation: Preparation,
    limits: ImageLimits,
) -> InferenceBatch<PreparedBatch> {
    let mut images = Vec::new();
    let mut views_of_parts = Vec::with_capacity(groups.len());
    let mut prepared_groups = Vec::with_capacity(groups.len());
    for pending in groups {
        let views = &pending.group.views;
        let prepared: Vec<(PreparedView, Option<InputImage>)> =
            match (pending.group.scoring, preparation) {
                (ScoringOrder::Skip, _) => views
                    .iter()
                    .map(|_| (PreparedView::Skipped, None))
                    .collect(),
                (ScoringOrder::Score, Preparation::Nothing) => {
                    views.iter().map(|_| blank()).collect()
                }
                (ScoringOrder::Score, Preparation::Pixels(preprocessor)) => views
                    .par_iter()
                    .map(|view| {
                        let class = pending.group.class.as_ref();
                        prepare_view(view, class, &preprocessor, limits)
                    })
                    .collect(),
            };
        let mut views = Vec::with_capacity(prepared.len());
        let before = images.len();
        for (view, image) in prepared {
            views.push(view);
            images.extend(image);
        }
        views_of_parts.push(images.len() - before);
        prepared_groups.push(PreparedGroup { pending, views });
    }
    InferenceBatch {
        images,
        views: views_of_parts,
        context: PreparedBatch {
            groups: prepared_groups,
            work,
        },
    }
}

/// An image without pixels.
fn blank() -> (PreparedView, Option<InputImage>) {
    let footprint = MapFootprint {
        x: 0.,
        y: 0.,
        width: 1.,
        height: 1.,
    };
    let image = InputImage {
        values: Vec::new(),
        footprint,
        subject: None,
    };
    (PreparedView::Submitted(footprint), Some(image))
}

fn prepare_view(
    view: &View,
    class: Option<&ClassName>,
    preprocessor: &Preprocessor,
    limits: ImageLimits,
) -> (PreparedView, Option<InputImage>) {
    let started = Instant::now();
    let pixels = match decode_pixels(view, &limits, preprocessor.least_side().into()) {
        Ok(pixels) => pixels,
        Err(error) => return failed(view, error.reason, error.message),
    };
    telemetry::stage_took(Stage::Decode, started.elapsed());
    let started = Instant::now();
    let mut image = match preprocessor.prepare(pixels) {
        Ok(image) => image,
        Err(error) => return failed(view, RejectReason::Decode, error.to_string()),
    };
    telemetry::stage_took(Stage::Preprocess, started.elapsed());
    image.subject = class.map(|class| Subject {
        class: class.clone(),
        view: view.view.clone(),
    });
    (PreparedView::Submitted(image.footprint), Some(image))
}

fn failed(view: &View, reason: RejectReason, error: String) -> (PreparedView, Option<InputImage>) {
    let reject = Reject {
        record: Arc::clone(&view.record),
        reason,
        error,
    };
    (PreparedView::Failed(reject), None)
}
