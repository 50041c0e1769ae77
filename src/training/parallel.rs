//! Gradients on several cores: the batch is split, each thread has its own graph.
//!
//! candle's element-wise operations run on one thread, so on the CPU the way to use all cores is
//! to give each a share of the batch over the same variables and to add the gradients. The sum is
//! taken in the order of the shards: the result depends neither on the number of threads nor on
//! which of them is faster. Small shards stay within the processor's cache.
//!
//! A GPU is fed by the calling thread alone: each thread has a stream of its own there, and nothing
//! orders what one computes before what another reads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use candle_core::{Device, Result, Tensor, bail};

use super::optimiser::{Gradients, Parameters};

/// Loss and gradients of one step.
#[derive(Debug)]
pub struct StepGradients {
    /// Mean loss over the batch.
    pub loss: f64,
    /// Further numbers that the shards report, averaged.
    pub details: Vec<f64>,
    /// Mean gradient over the batch.
    pub gradients: Gradients,
    /// The loss of each shard, in order.
    pub shard_losses: Vec<f64>,
}

/// What one shard computes: the loss, and numbers to report.
#[derive(Debug)]
pub struct ShardLoss {
    /// A scalar with its graph.
    pub loss: Tensor,
    /// Numbers to report.
    pub details: Vec<f64>,
    /// How many items of the batch it is the mean of.
    pub items: usize,
}

/// Runs the shards on `threads` threads (on the CPU) and averages losses and gradients, each shard
/// weighted by its items.
///
/// # Errors
/// Of the shards that fail the first one's error, in order; also when a shard's thread panics.
pub fn shard_gradients<F>(
    parameters: &Parameters,
    device: &Device,
    threads: usize,
    shards: Vec<F>,
) -> Result<StepGradients>
where
    F: FnOnce() -> Result<ShardLoss> + Send,
{
    let jobs = shards
        .into_iter()
        .map(|shard| move || run_shard(parameters, shard))
        .collect();
    let results = run_in_order(device, threads, jobs)?;
    let mut total = StepGradients {
        loss: 0.0,
        details: Vec::new(),
        gradients: Gradients::new(),
        shard_losses: results.iter().map(|shard| shard.loss).collect(),
    };
    let items: usize = results.iter().map(|shard| shard.items).sum();
    for shard in results {
        let weight = shard.items as f64 / items.max(1) as f64;
        total.loss += shard.loss * weight;
        total.details.resize(shard.details.len(), 0.0);
        for (sum, value) in total.details.iter_mut().zip(shard.details) {
            *sum += value * weight;
        }
        for (name, gradient) in shard.gradients {
            let share = (gradient * weight)?;
            let sum = match total.gradients.remove(&name) {
                None => share,
                Some(sum) => (sum + share)?,
            };
            total.gradients.insert(name, sum.detach());
        }
    }
    Ok(total)
}

/// Runs the jobs, which compute on `device`, and returns what they gave in their order. On the CPU
/// `threads` threads share them; one thread, and the one that feeds another device, is the caller's.
/// After an error no further job is begun.
///
/// # Errors
/// Of the jobs that fail the first one's error, in order; also when a job's thread panics.
pub(crate) fn run_in_order<T, F>(device: &Device, threads: usize, jobs: Vec<F>) -> Result<Vec<T>>
where
    T: Send,
    F: FnOnce() -> Result<T> + Send,
{
    let threads = match device.is_cpu() {
        true => threads.min(jobs.len()),
        false => 1,
    };
    if threads <= 1 {
        return jobs.into_iter().map(|job| job()).collect();
    }
    let queue = Mutex::new(jobs.into_iter().enumerate());
    let has_failed = AtomicBool::new(false);
    let next = || match has_failed.load(Ordering::Relaxed) {
        true => None,
        false => queue.lock().unwrap_or_else(PoisonError::into_inner).next(),
    };
    let work = || {
        let mut done = Vec::new();
        while let Some((index, job)) = next() {
            let result = job();
            if result.is_err() {
                has_failed.store(true, Ordering::Relaxed);
            }
            done.push((index, result));
        }
        done
    };
    let mut results = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut results = Vec::new();
        for thread in running {
            match thread.join() {
                Ok(done) => results.extend(done),
                Err(_) => bail!("a training thread panicked"),
            }
        }
        Ok(results)
    })?;
    // Jobs begin in their order, so all before the first that failed are among the results.
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// What one shard gave.
struct ShardResult {
    loss: f64,
    details: Vec<f64>,
    gradients: Gradients,
    items: usize,
}

fn run_shard<F>(parameters: &Parameters, shard: F) -> Result<ShardResult>
where
    F: FnOnce() -> Result<ShardLoss>,
{
    let ShardLoss {
        loss,
        details,
        items,
    } = shard()?;
    let store = loss.backward()?;
    let gradients = parameters
        .iter()
        .filter_map(|(name, var)| {
            store
                .get(var)
                .map(|gradient| (name.clone(), gradient.clone()))
        })
        .collect();
    Ok(ShardResult {
        loss: f64::from(loss.to_scalar::<f32>()?),
        details,
        gradients,
        items,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    use candle_core::Var;

    use super::*;

    #[test]
    fn one_thread_is_the_callers() {
        let caller = thread::current().id();
        let jobs = |count| vec![|| Ok(thread::current().id()); count];
        let alone = run_in_order(&Device::Cpu, 1, jobs(3)).unwrap();
        assert_eq!(alone, [caller; 3]);
        assert_eq!(run_in_order(&Device::Cpu, 4, jobs(1)).unwrap(), [caller]);
        let shared = run_in_order(&Device::Cpu, 2, jobs(3)).unwrap();
        assert!(shared.iter().all(|thread| *thread != caller));
    }

    #[test]
    fn after_an_error_no_job_begins_and_the_first_in_order_is_told() {
        for threads in [1, 2] {
            let (begun, meet) = (AtomicUsize::new(0), Barrier::new(threads));
            let jobs = (0..6).map(|index| {
                let (begun, meet) = (&begun, &meet);
                move || -> Result<()> {
                    begun.fetch_add(1, Ordering::Relaxed);
                    // No thread fails before each has a job.
                    meet.wait();
                    bail!("job {index} failed")
                }
            });
            let error = run_in_order(&Device::Cpu, threads, jobs.collect()).unwrap_err();
            assert!(error.to_string().contains("job 0 failed"), "{error}");
            assert_eq!(begun.into_inner(), threads);
        }
    }

    #[test]
    fn shards_give_the_gradient_of_the_whole_batch() {
        let var = Var::new(&[1.0f32, -2.0], &Device::Cpu).unwrap();
        let parameters = Parameters::from([("w".to_owned(), var.clone())]);
        let rows = [[0.5f32, 1.0], [2.0, -1.0], [1.5, 3.0], [-1.0, 0.25]];
        let shard = |rows: &[[f32; 2]]| {
            let (count, rows) = (rows.len(), rows.concat());
            let var = var.clone();
            move || {
                let rows = Tensor::from_vec(rows, (count, 2), &Device::Cpu)?;
                let loss = rows.broadcast_mul(&var)?.sqr()?.mean_all()?;
                Ok(ShardLoss {
                    loss,
                    details: vec![2.0],
                    items: count,
                })
            }
        };
        let whole = shard_gradients(&parameters, &Device::Cpu, 2, vec![shard(&rows)]).unwrap();
        let values = |step: &StepGradients| step.gradients["w"].to_vec1::<f32>().unwrap();
        for cut in 1..4 {
            let shards = vec![shard(&rows[..cut]), shard(&rows[cut..])];
            let shards = shard_gradients(&parameters, &Device::Cpu, 2, shards).unwrap();
            assert!((whole.loss - shards.loss).abs() < 1e-6);
            assert_eq!(shards.details, [2.0]);
            for (a, b) in values(&whole).iter().zip(values(&shards)) {
                assert!((a - b).abs() < 1e-6, "cut at {cut}");
            }
        }
    }
}
