//! The network on a device: held against the processor's, timed at each batch size, and measured by the
//! device's own largest product.
//!
//! `scripts/gpu-check` runs it beside PyTorch on the same card; by itself it takes weights of its own. It
//! prints one JSON object a line. Without a GPU `--device cpu --precision f32` runs all of it, slowly.

use std::collections::HashMap;
use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use panoptes::model::ComputePrecision;
use panoptes::model::device::open_inference_device;
use panoptes::model::device_network::DeviceNetwork;
use panoptes::model::mvmcad::MvmcadConfig;
use panoptes::model::packed::{ImageFeatures, PackedNetwork};
use panoptes::model::vit::VitConfig;
use serde_json::json;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;
type Tensors = HashMap<String, Tensor>;

const SIDE: usize = 392;
/// Runs of a batch that do not count, after its shapes are warm.
const UNCOUNTED: usize = 2;

#[derive(Clone, Debug)]
struct Options {
    device: String,
    precision: ComputePrecision,
    size: String,
    /// `weights.safetensors`, and `images.safetensors` with `images` and what a peer makes of them.
    folder: Option<PathBuf>,
    batches: Vec<usize>,
    /// Workers that share the device when images are copied and answers read.
    workers: Vec<usize>,
    duration: Duration,
    /// Side of the largest product.
    product: usize,
}

impl Options {
    /// From the command line; cargo adds `--bench`, which says nothing here.
    fn read() -> Result<Self> {
        let mut options = Self {
            device: "auto".to_owned(),
            precision: ComputePrecision::Bf16,
            size: "base".to_owned(),
            folder: None,
            batches: vec![1, 8, 64],
            workers: vec![1, 2],
            duration: Duration::from_secs(2),
            product: 8192,
        };
        let numbers = |text: &str| -> Result<Vec<usize>> {
            Ok(text
                .split(',')
                .map(str::parse)
                .collect::<std::result::Result<_, _>>()?)
        };
        let mut arguments = std::env::args().skip(1).filter(|name| name != "--bench");
        while let Some(name) = arguments.next() {
            let missing = format!("`{name}`: expected a value");
            let value = arguments.next().ok_or(missing)?;
            match name.as_str() {
                "--device" => options.device = value,
                "--precision" => options.precision = value.parse()?,
                "--size" => options.size = value,
                "--folder" => options.folder = Some(value.into()),
                "--batches" => options.batches = numbers(&value)?,
                "--workers" => options.workers = numbers(&value)?,
                "--duration" => options.duration = humantime::parse_duration(&value)?,
                "--product" => options.product = value.parse()?,
                _ => return Err(format!("expected an option of this bench, found `{name}`").into()),
            }
        }
        Ok(options)
    }

    fn largest_batch(&self) -> usize {
        self.batches.iter().copied().max().unwrap_or(1)
    }
}

/// As `benches/peer/network.py` has it.
fn architecture(size: &str) -> Result<MvmcadConfig> {
    let (width, heads, targets): (_, _, Vec<usize>) = match size {
        "tiny" => (64, 1, (0..4).collect()),
        "small" => (384, 6, (2..10).collect()),
        "base" => (768, 12, (2..10).collect()),
        "large" => (1024, 16, (4..20).step_by(2).collect()),
        _ => {
            let expected = "`--size`: expected `tiny`, `small`, `base` or `large`";
            return Err(format!("{expected}, found `{size}`").into());
        }
    };
    Ok(MvmcadConfig::new(VitConfig {
        input_side: SIDE,
        patch: 14,
        width,
        depth: 24,
        heads,
        registers: 4,
        layer_scale: true,
        position_side: SIDE / 14,
        position_interpolation: Default::default(),
        targets,
    }))
}

/// Operations of an image's products, two for each multiplication and addition.
fn operations(config: &MvmcadConfig) -> f64 {
    let VitConfig {
        width,
        patch,
        heads,
        ..
    } = config.encoder;
    let tokens = config.encoder.tokens();
    let layers = |count: usize| 2 * tokens * width * width * count;
    let attention = 4 * tokens * tokens * width;
    let linear_attention = 4 * tokens * width * (width / heads);
    let embedding = 2 * config.encoder.grid().pow(2) * 3 * patch * patch * width;
    let encoder = config.encoder.used_depth() * (layers(12) + attention);
    let (bottleneck, amplification) = (layers(8), layers(5) + attention);
    let decoder = config.decoder_depth * (layers(12) + linear_attention);
    (embedding + encoder + bottleneck + amplification + decoder) as f64
}

/// Weights and images: the peer's, or first values and a pattern.
fn load(options: &Options, config: &MvmcadConfig) -> Result<(Tensors, Tensors)> {
    let cpu = &Device::Cpu;
    if let Some(folder) = &options.folder {
        let read = |name: &str| candle_core::safetensors::load(folder.join(name), cpu);
        return Ok((read("weights.safetensors")?, read("images.safetensors")?));
    }
    let values = (0..2 * 3 * SIDE * SIDE).map(|index| (index % 251) as f32 / 100.0 - 1.25);
    let images = Tensor::from_iter(values, cpu)?.reshape((2, 3, SIDE, SIDE))?;
    let weights = config.tensors().initial_values(1, cpu)?;
    Ok((weights, HashMap::from([("images".to_owned(), images)])))
}

fn network(options: &Options, config: &MvmcadConfig, weights: &Tensors) -> Result<DeviceNetwork> {
    let device = open_inference_device(&options.device)?;
    let (precision, batch) = (options.precision, options.largest_batch());
    Ok(DeviceNetwork::new(
        config, weights, device, precision, batch,
    )?)
}

fn values_of(features: &[ImageFeatures]) -> Vec<f32> {
    features
        .iter()
        .flat_map(|image| image.anomalies.clone())
        .collect()
}

/// How far anomalies are from those that are expected.
fn compare(side: &str, expected: &[f32], found: &[f32]) -> Result<serde_json::Value> {
    if expected.len() != found.len() || expected.is_empty() {
        let (expected, found) = (expected.len(), found.len());
        return Err(format!("{side}: expected `{expected}` anomalies, found `{found}`").into());
    }
    let count = expected.len() as f32;
    let mean = expected.iter().sum::<f32>() / count;
    let spread = expected
        .iter()
        .map(|value| (value - mean).powi(2))
        .sum::<f32>()
        / count;
    let differences = expected.iter().zip(found).map(|(a, b)| (a - b).abs());
    // A value that is no number must not pass for a small difference.
    let worst = differences
        .clone()
        .fold(0f32, |most, difference| match difference <= most {
            true => most,
            false => difference,
        });
    Ok(json!({
        "kind": "parity",
        "side": side,
        "largest_difference": worst,
        "mean_difference": differences.sum::<f32>() / count,
        "deviation": spread.sqrt(),
    }))
}

fn main() -> Result<()> {
    let options = Options::read()?;
    let config = architecture(&options.size)?;
    let (weights, given) = load(&options, &config)?;
    let say = |mut row: serde_json::Value| {
        row["size"] = json!(options.size);
        row["precision"] = json!(options.precision.to_string());
        row["device"] = json!(options.device);
        println!("{row}");
    };
    say(peak(&options)?);
    let images = given["images"].flatten_from(1)?.to_vec2::<f32>()?;
    let images: Vec<&[f32]> = images.iter().map(Vec::as_slice).collect();
    for row in parity(&options, &config, &weights, &given, &images)? {
        say(row);
    }
    for &batch in &options.batches {
        let inputs: Vec<&[f32]> = images.iter().copied().cycle().take(batch).collect();
        let rate = resident(&options, &config, &weights, &inputs);
        say(rate_row("network", &config, batch, 1, rate));
    }
    for &workers in &options.workers {
        let batch = options.largest_batch().min(64);
        let inputs: Vec<&[f32]> = images.iter().copied().cycle().take(batch).collect();
        let rate = with_copies(&options, &config, &weights, &inputs, workers);
        say(rate_row("copies", &config, batch, workers, rate));
    }
    Ok(())
}

/// A rate, or why there is none: a large batch may exceed a device's memory, and smaller ones still count.
fn rate_row(
    kind: &str,
    config: &MvmcadConfig,
    batch: usize,
    workers: usize,
    rate: Result<f64>,
) -> serde_json::Value {
    let row = json!({"kind": kind, "batch": batch, "workers": workers});
    let mut row = row.as_object().cloned().unwrap_or_default();
    match rate {
        Ok(rate) => {
            row.insert("images_per_second".to_owned(), json!(rate));
            let tera = rate * operations(config) / 1e12;
            row.insert("tera_operations_per_second".to_owned(), json!(tera));
        }
        Err(error) => drop(row.insert("error".to_owned(), json!(error.to_string()))),
    }
    row.into()
}

/// Runs `work` for the duration, but for a few first times, and says how often a second.
fn pace<T>(
    options: &Options,
    mut work: impl FnMut() -> Result<T>,
    mut wait: impl FnMut() -> Result<()>,
) -> Result<f64> {
    for _ in 0..UNCOUNTED {
        work()?;
    }
    wait()?;
    let (started, mut times) = (Instant::now(), 0u32);
    while times == 0 || started.elapsed() < options.duration {
        // Few enough are on their way that the duration holds.
        for _ in 0..4 {
            work()?;
            times += 1;
        }
        wait()?;
    }
    Ok(f64::from(times) / started.elapsed().as_secs_f64())
}

/// What the device makes of its largest product.
fn peak(options: &Options) -> Result<serde_json::Value> {
    let device = open_inference_device(&options.device)?;
    let (device, side) = (device.device(), options.product);
    let dtype = match device.is_cpu() {
        true => DType::F32, // candle multiplies no `bf16` there
        false => DType::BF16,
    };
    let factor = || Tensor::randn(0f32, 1.0, (side, side), device)?.to_dtype(dtype);
    let (left, right) = (factor()?, factor()?.t()?);
    let rate = pace(
        options,
        || Ok(left.matmul(&right)?),
        || Ok(device.synchronize()?),
    )?;
    let tera = rate * 2.0 * (side as f64).powi(3) / 1e12;
    Ok(
        json!({"kind": "peak", "side": side, "factors": dtype.as_str(), "tera_operations_per_second": tera}),
    )
}

/// The device against the processor in f32, in both precisions, and the processor against the peer.
fn parity(
    options: &Options,
    config: &MvmcadConfig,
    weights: &Tensors,
    given: &Tensors,
    images: &[&[f32]],
) -> Result<Vec<serde_json::Value>> {
    let mut packed = PackedNetwork::of_tensors(config, weights, ComputePrecision::F32, 0)?;
    let expected = values_of(&packed.run(images, &[]));
    let mut rows = Vec::new();
    if let Some(peer) = given.get("anomalies") {
        let peer = peer.flatten_all()?.to_vec1::<f32>()?;
        rows.push(compare("processor f32 by peer f32", &peer, &expected)?);
    }
    let mut precisions = vec![ComputePrecision::F32];
    precisions.extend(Some(options.precision).filter(|&other| other != ComputePrecision::F32));
    for precision in precisions {
        let options = Options {
            precision,
            batches: vec![images.len()],
            ..options.clone()
        };
        let mut network = network(&options, config, weights)?;
        let found = values_of(&network.run(images, &[images.len()], false)?);
        let side = format!("device {precision} by processor f32");
        rows.push(compare(&side, &expected, &found)?);
    }
    Ok(rows)
}

/// Images a second of the network alone: the batch is on the device, and the answers stay there.
fn resident(
    options: &Options,
    config: &MvmcadConfig,
    weights: &Tensors,
    images: &[&[f32]],
) -> Result<f64> {
    let options = Options {
        batches: vec![images.len()],
        ..options.clone()
    };
    let mut network = network(&options, config, weights)?;
    let batch = network.upload(images)?;
    let views = [images.len()];
    let rate = pace(
        &options,
        || Ok(network.anomalies(&batch, &views)?),
        || Ok(network.synchronize()?),
    )?;
    Ok(rate * images.len() as f64)
}

/// Images a second from the processor's memory to anomalies in it, by several workers on one device.
fn with_copies(
    options: &Options,
    config: &MvmcadConfig,
    weights: &Tensors,
    images: &[&[f32]],
    workers: usize,
) -> Result<f64> {
    let options = Options {
        batches: vec![images.len()],
        ..options.clone()
    };
    let mut networks = Vec::new();
    for _ in 0..workers {
        networks.push(network(&options, config, weights)?);
    }
    let views = [images.len()];
    let rates: Vec<Result<f64>> = std::thread::scope(|scope| {
        let tasks: Vec<_> = networks
            .iter_mut()
            .map(|network| {
                let options = &options;
                let work = move || Ok(network.run(images, &views, false)?);
                scope.spawn(move || pace(options, work, || Ok(())))
            })
            .collect();
        let ended = tasks.into_iter().map(|task| task.join());
        ended
            .map(|rate| rate.unwrap_or_else(|_| Err("a worker panicked".into())))
            .collect()
    });
    let rates: Vec<f64> = rates.into_iter().collect::<Result<_>>()?;
    Ok(rates.iter().sum::<f64>() * images.len() as f64)
}
