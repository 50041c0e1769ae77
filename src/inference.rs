//! Device threads: OS threads that own a model each. Batches in, anomaly maps out.
//!
//! Several share one queue, and a batch goes to whichever is free; so answers come in any order. A batch too large for the device is halved and tried again; any other failure ends the thread,
//! and with it the run: the inputs are uncommitted, so nothing is lost.

use std::sync::{Arc, Mutex, PoisonError};
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

/// The batches that device threads take from; clones share it.
#[derive(Debug)]
pub struct BatchQueue<Context>(Arc<Mutex<mpsc::Receiver<InferenceBatch<Context>>>>);

impl<Context> BatchQueue<Context> {
    /// Takes from `batches`.
    pub fn new(batches: mpsc::Receiver<InferenceBatch<Context>>) -> Self {
        Self(Arc::new(Mutex::new(batches)))
    }

    /// The next batch, once there is one; none when the input has closed. One thread waits for it, the
    /// other free ones wait for that thread.
    fn next(&self) -> Option<InferenceBatch<Context>> {
        let mut batches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        batches.blocking_recv()
    }
}

impl<Context> Clone for BatchQueue<Context> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
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
        batches: BatchQueue<Context>,
        answers: mpsc::Sender<InferenceAnswer<Context>>,
        activity: Activity,
    ) -> std::io::Result<Self> {
        let thread = thread::Builder::new()
            .name("device".into())
            .spawn(move || {
                let mut limit = max_batch.max(1);
                while let Some(batch) = batches.next() {
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

    /// Says when it has a batch, and answers when it is told to.
    struct GatedDevice {
        identity: ModelIdentity,
        number: usize,
        busy: std::sync::mpsc::Sender<usize>,
        gate: std::sync::mpsc::Receiver<Result<(), ModelError>>,
    }

    impl AnomalyModel for GatedDevice {
        fn identity(&self) -> &ModelIdentity {
            &self.identity
        }

        fn mixes_views(&self) -> bool {
            false
        }

        fn anomaly_maps(
            &mut self,
            images: &[InputImage],
            _views: &[usize],
        ) -> Result<Vec<AnomalyMap>, ModelError> {
            self.busy.send(self.number).unwrap();
            self.gate.recv().unwrap()?;
            let map = AnomalyMap {
                width: 1,
                height: 1,
                values: vec![0.0],
            };
            Ok(vec![map; images.len()])
        }
    }

    /// Device threads with a gate each, what feeds them, and what they say.
    struct Rig {
        threads: Vec<DeviceThread>,
        gates: Vec<std::sync::mpsc::Sender<Result<(), ModelError>>>,
        busy: std::sync::mpsc::Receiver<usize>,
        batches: mpsc::Sender<InferenceBatch<usize>>,
        answers: mpsc::Receiver<InferenceAnswer<usize>>,
    }

    impl Rig {
        fn start(devices: usize) -> Self {
            let (batches, to_infer) = mpsc::channel(1);
            let (to_score, answers) = mpsc::channel(8);
            let (to_busy, busy) = std::sync::mpsc::channel();
            let queue = BatchQueue::new(to_infer);
            let mut gates = Vec::new();
            let threads = (0..devices).map(|number| {
                let (gate, held) = std::sync::mpsc::channel();
                gates.push(gate);
                let device = GatedDevice {
                    identity: SmallDevice::new(0).identity,
                    number,
                    busy: to_busy.clone(),
                    gate: held,
                };
                let (queue, answers) = (queue.clone(), to_score.clone());
                DeviceThread::start(Box::new(device), 4, queue, answers, Activity::default())
            });
            let threads = threads.collect::<Result<_, _>>().unwrap();
            Self {
                threads,
                gates,
                busy,
                batches,
                answers,
            }
        }

        fn send(&self, number: usize) {
            let batch = InferenceBatch {
                images: images(1),
                views: vec![1],
                context: number,
            };
            self.batches.blocking_send(batch).unwrap();
        }
    }

    #[test]
    fn a_batch_goes_to_whichever_device_is_free_and_each_is_answered_once() {
        let mut rig = Rig::start(2);
        rig.send(0);
        let slow = rig.busy.recv().unwrap();
        let fast = 1 - slow;
        for number in 1..4 {
            rig.send(number);
            assert_eq!(rig.busy.recv().unwrap(), fast);
            rig.gates[fast].send(Ok(())).unwrap();
            assert_eq!(rig.answers.blocking_recv().unwrap().context, number);
        }
        rig.gates[slow].send(Ok(())).unwrap();
        assert_eq!(rig.answers.blocking_recv().unwrap().context, 0);
        drop(rig.batches);
        for thread in rig.threads {
            thread.join().unwrap();
        }
        assert!(rig.answers.blocking_recv().is_none());
    }

    #[test]
    fn a_device_that_fails_ends_alone_and_says_why() {
        let mut rig = Rig::start(2);
        rig.send(0);
        let failing = rig.busy.recv().unwrap();
        rig.gates[failing]
            .send(Err(ModelError::Device("unplugged".into())))
            .unwrap();
        let error = rig.threads.remove(failing).join().unwrap_err();
        assert_eq!(error.to_string(), "device failed: unplugged");
        rig.send(1);
        assert_eq!(rig.busy.recv().unwrap(), 1 - failing);
        rig.gates[1 - failing].send(Ok(())).unwrap();
        assert_eq!(rig.answers.blocking_recv().unwrap().context, 1);
        drop(rig.batches);
        rig.threads.remove(0).join().unwrap();
    }

    #[test]
    fn fails_when_a_single_image_does_not_fit() {
        let mut device = SmallDevice::new(0);
        let error = score_in_chunks(&mut device, &images(2), &[1, 1], &mut 8).unwrap_err();
        assert!(matches!(error, ModelError::OutOfMemory { images: 1, .. }));
    }
}
