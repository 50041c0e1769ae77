//! The device thread: one OS thread that owns the model. Batches in, anomaly maps out.
//!
//! A batch too large for the device is halved and tried again; any other failure ends the thread,
//! and with it the run: the inputs are uncommitted, so nothing is lost.

use std::thread;
use std::time::Instant;

use tokio::sync::mpsc;

use crate::activity::Activity;
use crate::domain::AnomalyMap;
use crate::model::{AnomalyModel, InputImage, ModelError};
use crate::telemetry;

/// Images for the model, with whatever the caller needs to make sense of the answer.
#[derive(Debug)]
pub struct InferenceBatch<Context> {
    /// Prepared images.
    pub images: Vec<InputImage>,
    /// How many consecutive images each part has.
    pub views: Vec<usize>,
    /// Comes back unchanged.
    pub context: Context,
}

/// One anomaly map an image, in the same order.
#[derive(Debug)]
pub struct InferenceAnswer<Context> {
    /// The maps.
    pub maps: Vec<AnomalyMap>,
    /// What the batch carried.
    pub context: Context,
}

/// A running device thread; it ends when its input closes.
pub struct DeviceThread {
    thread: thread::JoinHandle<Result<(), ModelError>>,
}

impl DeviceThread {
    /// Starts the thread; `activity` is told of each batch.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start<Context: Send + 'static>(
        mut model: Box<dyn AnomalyModel>,
        max_batch: usize,
        mut batches: mpsc::Receiver<InferenceBatch<Context>>,
        answers: mpsc::Sender<InferenceAnswer<Context>>,
        activity: Activity,
    ) -> std::io::Result<Self> {
        let thread = thread::Builder::new()
            .name("device".into())
            .spawn(move || {
                let mut limit = max_batch.max(1);
                while let Some(batch) = batches.blocking_recv() {
                    let started = Instant::now();
                    let underway = activity.begin();
                    fail::fail_point!("device-batch"); // a test makes the device slow
                    let maps =
                        score_in_chunks(model.as_mut(), &batch.images, &batch.views, &mut limit)?;
                    drop(underway);
                    telemetry::stage_took(telemetry::Stage::Model, started.elapsed());
                    let answer = InferenceAnswer {
                        maps,
                        context: batch.context,
                    };
                    if answers.blocking_send(answer).is_err() {
                        break; // the pipeline is ending with an error of its own
                    }
                }
                Ok(())
            })?;
        Ok(Self { thread })
    }

    /// Waits for the thread's end.
    ///
    /// # Errors
    /// The device's failure.
    pub fn join(self) -> Result<(), ModelError> {
        self.thread
            .join()
            .unwrap_or_else(|_| Err(ModelError::Device("the device thread panicked".into())))
    }
}

/// Scores at most `limit` images at a time; halves the limit for good when memory runs out. For a
/// model that mixes views a part stays whole, be it larger than the limit.
fn score_in_chunks(
    model: &mut dyn AnomalyModel,
    images: &[InputImage],
    views: &[usize],
    limit: &mut usize,
) -> Result<Vec<AnomalyMap>, ModelError> {
    // A test that is not about the model spares its cost.
    fail::fail_point!("device-blank-maps", |_| Ok(vec![
        AnomalyMap {
            width: 8,
            height: 8,
            values: vec![0.0; 64],
        };
        images.len()
    ]));
    let units = match model.mixes_views() {
        true => views.to_vec(),
        false => vec![1; images.len()],
    };
    let mut maps = Vec::with_capacity(images.len());
    let mut rest = units.as_slice();
    while !rest.is_empty() {
        let (now, later) = rest.split_at(units_within(rest, *limit));
        let chunk = &images[maps.len()..][..now.iter().sum()];
        match model.anomaly_maps(chunk, now) {
            Ok(chunk_maps) if chunk_maps.len() == chunk.len() => {
                maps.extend(chunk_maps);
                rest = later;
            }
            Ok(chunk_maps) => {
                return Err(ModelError::Device(format!(
                    "model answered {} images with {} maps",
                    chunk.len(),
                    chunk_maps.len()
                )));
            }
            Err(ModelError::OutOfMemory { images, message }) if now.len() > 1 => {
                *limit = chunk.len() / 2;
                tracing::warn!(images, message, limit, "device out of memory: batch halved");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(maps)
}

/// How many of the first units have at most `limit` images together; at least one.
fn units_within(units: &[usize], limit: usize) -> usize {
    let mut images = 0;
    let fitting = units.iter().take_while(|&&unit| {
        images += unit;
        images <= limit
    });
    fitting.count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{MapFootprint, ModelIdentity};

    /// Answers each image with its first value; refuses batches above `memory`.
    struct SmallDevice {
        identity: ModelIdentity,
        memory: usize,
        mixes_views: bool,
        calls: Vec<usize>,
    }

    impl SmallDevice {
        fn new(memory: usize) -> Self {
            Self {
                identity: ModelIdentity {
                    name: "small".into(),
                    version: "1".into(),
                },
                memory,
                mixes_views: false,
                calls: Vec::new(),
            }
        }
    }

    impl AnomalyModel for SmallDevice {
        fn identity(&self) -> &ModelIdentity {
            &self.identity
        }

        fn mixes_views(&self) -> bool {
            self.mixes_views
        }

        fn anomaly_maps(
            &mut self,
            images: &[InputImage],
            views: &[usize],
        ) -> Result<Vec<AnomalyMap>, ModelError> {
            assert_eq!(views.iter().sum::<usize>(), images.len());
            self.calls.push(images.len());
            if images.len() > self.memory {
                return Err(ModelError::OutOfMemory {
                    images: images.len(),
                    message: "full".into(),
                });
            }
            Ok(images
                .iter()
                .map(|image| AnomalyMap {
                    width: 1,
                    height: 1,
                    values: vec![image.values[0]],
                })
                .collect())
        }
    }

    fn images(count: usize) -> Vec<InputImage> {
        (0..count)
            .map(|index| InputImage {
                values: vec![index as f32],
                footprint: MapFootprint {
                    x: 0.0,
                    y: 0.0,
                    width: 1.0,
                    height: 1.0,
                },
                subject: None,
            })
            .collect()
    }

    #[test]
    fn halves_the_batch_until_it_fits_and_keeps_the_order() {
        let mut device = SmallDevice::new(3);
        let mut limit = 16;
        let maps = score_in_chunks(&mut device, &images(10), &[10], &mut limit).unwrap();
        let scores: Vec<f32> = maps.iter().map(|map| map.values[0]).collect();
        assert_eq!(
            scores,
            (0..10).map(|index| index as f32).collect::<Vec<_>>()
        );
        assert_eq!(limit, 2);
        assert_eq!(device.calls, [10, 5, 2, 2, 2, 2, 2]);
    }

    #[test]
    fn keeps_parts_whole_for_a_model_that_mixes_views() {
        let mut device = SmallDevice::new(6);
        device.mixes_views = true;
        let mut limit = 8;
        let maps = score_in_chunks(&mut device, &images(14), &[2, 3, 0, 3, 5, 1], &mut limit);
        assert_eq!(maps.unwrap().len(), 14);
        assert_eq!(device.calls, [8, 2, 3, 3, 5, 1]);
    }

    #[test]
    fn fails_when_a_single_image_does_not_fit() {
        let mut device = SmallDevice::new(0);
        let error = score_in_chunks(&mut device, &images(2), &[1, 1], &mut 8).unwrap_err();
        assert!(matches!(error, ModelError::OutOfMemory { images: 1, .. }));
    }
}
