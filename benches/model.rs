//! The network's time on a CPU against other runtimes on the same weights and images, in turns.
//!
//! `cargo bench --bench model -- --peer PYTHON` has `benches/peer/model.py` export MVMCAD-S/14 (392 px,
//! four registers) from PyTorch and run it in ONNX Runtime and OpenVINO; PYTHON has what
//! `benches/peer/requirements-model.txt` asks for. Each round runs every side once; a ratio is the median over
//! the rounds of ours by theirs. `--images`, `--threads`, `--rounds` and `--size` change the load. Without
//! `--peer` only this program's sides run, on weights of its own.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use panoptes::model::mvmcad::{Mvmcad, MvmcadConfig};
use panoptes::model::packed::PackedNetwork;
use panoptes::model::vit::VitConfig;
use panoptes::model::{ComputePrecision, Mode};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
type Tensors = HashMap<String, Tensor>;

const SIDE: usize = 392;
/// Anomalies lie between 0 and 2; other orders of summing up change the last digits.
const TOLERANCE: f32 = 1e-5;

struct Options {
    peer: Option<PathBuf>,
    folder: PathBuf,
    size: String,
    images: usize,
    threads: usize,
    rounds: usize,
}

impl Options {
    /// From the command line; cargo adds `--bench`, which says nothing here.
    fn read() -> Result<Self> {
        let mut options = Self {
            peer: None,
            folder: PathBuf::from("target/bench-model"),
            size: "small".to_owned(),
            images: 5,
            threads: 2,
            rounds: 7,
        };
        let mut arguments = std::env::args().skip(1).filter(|name| name != "--bench");
        while let Some(name) = arguments.next() {
            let value = arguments
                .next()
                .ok_or(format!("`{name}`: expected a value"))?;
            match name.as_str() {
                "--peer" => options.peer = Some(value.into()),
                "--folder" => options.folder = value.into(),
                "--size" => options.size = value,
                "--images" => options.images = value.parse()?,
                "--threads" => options.threads = value.parse()?,
                "--rounds" => options.rounds = value.parse()?,
                _ => return Err(format!("expected an option of this bench, found `{name}`").into()),
            }
        }
        Ok(options)
    }
}

fn architecture(size: &str) -> Result<MvmcadConfig> {
    let (width, heads) = match size {
        "small" => (384, 6),
        "base" => (768, 12),
        _ => return Err(format!("`--size`: expected `small` or `base`, found `{size}`").into()),
    };
    Ok(MvmcadConfig::new(VitConfig {
        input_side: SIDE,
        patch: 14,
        width,
        depth: 12,
        heads,
        registers: 4,
        layer_scale: true,
        position_side: SIDE / 14,
        position_interpolation: Default::default(),
        targets: (2..10).collect(),
    }))
}

/// A Python process that runs a network whenever it is asked to.
struct Peer {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    sides: Vec<String>,
}

impl Peer {
    fn start(python: &Path, options: &Options) -> Result<Self> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peer/model.py");
        let mut child = Command::new(python)
            .arg(script)
            .arg(&options.folder)
            .arg(&options.size)
            .args([options.images, options.threads].map(|number| number.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let requests = child.stdin.take().ok_or("the peer has no input")?;
        let mut answers = BufReader::new(child.stdout.take().ok_or("the peer has no output")?);
        // Exporting may print lines of its own.
        let sides = loop {
            let mut line = String::new();
            if answers.read_line(&mut line)? == 0 {
                return Err("the peer did not start".into());
            }
            if let Some(sides) = line.trim().strip_prefix("ready ") {
                break serde_json::from_str(sides)?;
            }
        };
        Ok(Self {
            child,
            requests,
            answers,
            sides,
        })
    }

    /// Milliseconds of one run.
    fn run(&mut self, side: &str) -> Result<f64> {
        writeln!(self.requests, "{side}")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim().parse()?)
    }

    fn end(mut self) -> Result<()> {
        drop(self.requests);
        self.child.wait()?;
        Ok(())
    }
}

/// The composed network, an image a task, each task's products on its own thread.
struct Composed {
    network: Mvmcad,
    images: Vec<Tensor>,
    workers: Vec<rayon::ThreadPool>,
}

impl Composed {
    fn run(&self, part: &str) -> Result<()> {
        let share = self.images.len().div_ceil(self.workers.len());
        let run = |images: &[Tensor]| -> candle_core::Result<()> {
            for image in images {
                match part {
                    "encoder" => drop(self.network.encode(image, Mode::Inference)?),
                    _ => drop(self.network.patch_anomalies(image, &[1])?),
                }
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let tasks: Vec<_> = self
                .images
                .chunks(share)
                .zip(&self.workers)
                .map(|(images, worker)| scope.spawn(move || worker.install(|| run(images))))
                .collect();
            tasks.into_iter().try_for_each(|task| {
                task.join()
                    .map_err(|_| "a thread panicked")?
                    .map_err(Into::into)
            })
        })
    }
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// Weights and images: the peer's, or first values and a pattern.
fn load(options: &Options, config: &MvmcadConfig, has_peer: bool) -> Result<(Tensors, Tensors)> {
    let cpu = &Device::Cpu;
    if has_peer {
        let [weights, images] = ["weights", "images"].map(|name| {
            candle_core::safetensors::load(options.folder.join(format!("{name}.safetensors")), cpu)
        });
        return Ok((weights?, images?));
    }
    let count = options.images * 3 * SIDE * SIDE;
    let values: Vec<f32> = (0..count)
        .map(|index| (index % 251) as f32 / 100.0 - 1.25)
        .collect();
    let images = Tensor::from_vec(values, (options.images, 3, SIDE, SIDE), cpu)?;
    let weights = config.tensors().initial_values(1, cpu)?;
    Ok((weights, HashMap::from([("images".to_owned(), images)])))
}

fn main() -> Result<()> {
    let options = Options::read()?;
    let config = architecture(&options.size)?;
    let mut peer = match &options.peer {
        None => None,
        Some(python) => Some(Peer::start(python, &options)?),
    };
    let (weights, given) = load(&options, &config, peer.is_some())?;
    let values = given["images"].flatten_from(1)?.to_vec2::<f32>()?;
    let images: Vec<&[f32]> = values.iter().map(Vec::as_slice).collect();
    let mut packed = Vec::new();
    for precision in [ComputePrecision::F32, ComputePrecision::Bf16] {
        match PackedNetwork::of_tensors(&config, &weights, precision, options.threads) {
            Ok(mut network) => {
                compare(&mut network, precision, &images, &given)?;
                packed.push((precision, network));
            }
            Err(error) => println!("{error}"),
        }
    }
    let composed = Composed {
        network: {
            let weights = VarBuilder::from_tensors(weights.clone(), DType::F32, &Device::Cpu);
            Mvmcad::new(&config, weights.pp("encoder"), weights)?
        },
        images: given["images"].chunk(options.images, 0)?,
        workers: (0..options.threads)
            .map(|_| rayon::ThreadPoolBuilder::new().num_threads(1).build())
            .collect::<std::result::Result<_, _>>()?,
    };
    let mut times: BTreeMap<(String, String), Vec<f64>> = BTreeMap::new();
    for _ in 0..options.rounds {
        for part in ["encoder", "network"] {
            let mut note = |side: &str, milliseconds| {
                times
                    .entry((part.to_owned(), side.to_owned()))
                    .or_default()
                    .push(milliseconds);
            };
            for (precision, network) in &mut packed {
                let time = timed(|| {
                    match part {
                        "encoder" => network.encode(&images),
                        _ => drop(network.run(&images, &[])),
                    }
                    Ok(())
                })?;
                note(&format!("panoptes {precision}"), time);
            }
            note("candle, composed", timed(|| composed.run(part))?);
            if let Some(peer) = &mut peer {
                for side in peer.sides.clone() {
                    if let Some(runtime) = side.strip_suffix(part) {
                        note(runtime.trim(), peer.run(&side)?);
                    }
                }
            }
        }
    }
    if let Some(peer) = peer {
        peer.end()?;
    }
    print(&times, options.images);
    Ok(())
}

/// Says how far the anomalies are from the peer's.
fn compare(
    network: &mut PackedNetwork,
    precision: ComputePrecision,
    images: &[&[f32]],
    given: &Tensors,
) -> Result<()> {
    let found = network.run(images, &[]);
    for (name, answer) in given.iter().filter(|(name, _)| name.ends_with("network.0")) {
        let expected = answer.flatten_all()?.to_vec1::<f32>()?;
        let found = found.iter().flat_map(|image| &image.anomalies);
        let worst = found
            .zip(&expected)
            .fold(0f32, |most, (a, b)| most.max((a - b).abs()));
        println!("largest difference of an anomaly, {precision} and {name}: {worst:.1e}");
        if precision == ComputePrecision::F32 && name.starts_with("onnx") && worst > TOLERANCE {
            return Err(
                format!("expected the anomalies of `{name}`, found some {worst} off").into(),
            );
        }
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn print(times: &BTreeMap<(String, String), Vec<f64>>, images: usize) {
    println!("| part | side | ms an image | images/s | panoptes f32 by it | panoptes bf16 by it |");
    println!("| --- | --- | --: | --: | --: | --: |");
    for ((part, side), own) in times {
        let ratio = |precision: &str| {
            let ours = times.get(&(part.clone(), format!("panoptes {precision}")));
            ours.map_or(String::new(), |ours| {
                format!(
                    "{:.2}",
                    median(ours.iter().zip(own).map(|(ours, own)| ours / own).collect())
                )
            })
        };
        let each = median(own.clone()) / images as f64;
        let (single, brain) = (ratio("f32"), ratio("bf16"));
        println!(
            "| {part} | {side} | {each:.1} | {:.2} | {single} | {brain} |",
            1e3 / each
        );
    }
}
