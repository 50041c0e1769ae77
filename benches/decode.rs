//! From a record's bytes to what the network sees, in milliseconds an image, in turns with
//! libjpeg-turbo and OpenCV in Python (`benches/peer/decode.py`): `scripts/bench-decode`.
//!
//! Pictures are rendered, with the renderer's sensor noise, and encoded by OpenCV. Ours is the way of
//! `panoptes run`: envelope, pixels, resize, crop, normalise. Both sides use one thread, one after the
//! other, image by image; medians are printed. That both do the same job shows in the means of their
//! outputs, which must be close.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use panoptes::decode::{EnvelopeDecoder, EnvelopeSettings, ImageLimits, WantedSize, decode_pixels};
use panoptes::domain::{Header, LineId, Record, SourceOffset, Timestamp, Topic};
use panoptes::model::preprocess::{Normalisation, Preprocessor};
use panoptes::synthetic::{ClassKind, SyntheticPart, render};

/// What Dinomaly resizes to and cuts out.
const RESIZE: usize = 448;
const CROP: usize = 392;

const SIZES: [(u32, u32); 2] = [(2448, 2048), (1024, 1024)];
const ROUNDS: usize = 21;
const SEED: u64 = 1;

/// How far the means of the prepared images may be apart, in units of the normalised values: the
/// filters differ.
const MEAN_TOLERANCE: f64 = 0.02;

/// Name, file, content type, pixel format and how the peer reads it.
const CASES: [(&str, &str, &str, Option<&str>, &str); 8] = [
    (
        "JPEG 4:2:0, TurboJPEG",
        "colour.jpg",
        "image/jpeg",
        None,
        "turbojpeg",
    ),
    (
        "JPEG 4:2:0, imdecode",
        "colour.jpg",
        "image/jpeg",
        None,
        "opencv",
    ),
    (
        "JPEG grey, TurboJPEG",
        "grey.jpg",
        "image/jpeg",
        None,
        "turbojpeg",
    ),
    (
        "JPEG grey, imdecode",
        "grey.jpg",
        "image/jpeg",
        None,
        "opencv",
    ),
    ("PNG RGB", "colour.png", "image/png", None, "opencv"),
    ("PNG grey", "grey.png", "image/png", None, "opencv"),
    ("Mono8", "Mono8.raw", "image/x-raw", Some("Mono8"), "mono"),
    (
        "BayerRG8",
        "BayerRG8.raw",
        "image/x-raw",
        Some("BayerRG8"),
        "bayer",
    ),
];

/// Milliseconds of one image, and the means of its channels.
struct Turn {
    decode: f64,
    prepare: f64,
    means: [f64; 3],
}

fn main() -> Result<()> {
    panoptes::process::prepare();
    let python = std::env::args().skip(1).find(|name| name != "--bench");
    let Some(python) = python.map(PathBuf::from) else {
        println!("decode: no Python of the peer given; `scripts/bench-decode` sets one up");
        return Ok(());
    };
    println!("seed {SEED}, {ROUNDS} rounds, milliseconds an image (medians), one thread each\n");
    println!("| image | decode | prepare | sum | peer's decode | prepare | sum | ratio |");
    println!("| --- | --: | --: | --: | --: | --: | --: | --: |");
    for (width, height) in SIZES {
        compare_size(&python, width, height)?;
    }
    Ok(())
}

fn compare_size(python: &Path, width: u32, height: u32) -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("photo.rgb"), picture(width, height))?;
    let sizes = [width.to_string(), height.to_string()];
    let encoded = peer(python, "encode", folder.path(), &sizes).status()?;
    ensure!(encoded.success(), "the peer cannot encode: {encoded}");
    let mut peer = Peer::start(python, folder.path())?;
    for (name, file, content_type, pixel_format, reader) in CASES {
        let record = record(
            &folder.path().join(file),
            content_type,
            pixel_format,
            &sizes,
        )?;
        let question = format!("{file} {reader} {width} {height}");
        compare(
            &mut peer,
            &format!("{width}x{height} {name}"),
            &question,
            &record,
            WantedSize::Full,
        )?;
        if cfg!(feature = "scaled-jpeg") && content_type == "image/jpeg" {
            let name = format!("{width}x{height} {name}, ours at reduced size");
            let wanted = WantedSize::AtLeast(RESIZE as u32);
            compare(&mut peer, &name, &question, &record, wanted)?;
        }
    }
    Ok(())
}

fn compare(
    peer: &mut Peer,
    name: &str,
    question: &str,
    record: &Arc<Record>,
    wanted: WantedSize,
) -> Result<()> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    // The first round of each warms up.
    for _ in 0..=ROUNDS {
        ours.push(our_turn(record, wanted)?);
        theirs.push(peer.turn(question)?);
    }
    for (our_mean, their_mean) in ours[0].means.iter().zip(theirs[0].means) {
        let apart = (our_mean - their_mean).abs();
        ensure!(apart <= MEAN_TOLERANCE, "{name}: means are {apart} apart");
    }
    let [ours, theirs] = [&ours[1..], &theirs[1..]].map(medians);
    println!(
        "| {name} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | **{:.2}** |",
        ours[0],
        ours[1],
        ours[2],
        theirs[0],
        theirs[1],
        theirs[2],
        ours[2] / theirs[2]
    );
    Ok(())
}

/// One view of a part, cut to size.
fn picture(width: u32, height: u32) -> Vec<u8> {
    let part = SyntheticPart {
        class: ClassKind::ALL[0],
        seed: SEED,
        defect: None,
    };
    let view = render(&part, width.max(height)).swap_remove(1);
    let top = (view.image.height - height) as usize / 2;
    let stride = width as usize * 3;
    view.image.pixels[top * stride..][..height as usize * stride].to_vec()
}

fn record(
    file: &Path,
    content_type: &str,
    pixel_format: Option<&str>,
    [width, height]: &[String; 2],
) -> Result<Arc<Record>> {
    let mut headers = vec![("content-type", content_type)];
    if let Some(pixel_format) = pixel_format {
        headers.extend([
            ("pixel-format", pixel_format),
            ("width", width),
            ("height", height),
        ]);
    }
    let headers = headers.into_iter().map(|(name, value)| Header {
        name: name.into(),
        value: Some(value.as_bytes().to_vec()),
    });
    Ok(Arc::new(Record {
        source: SourceOffset {
            topic: Topic::from("line1.cam.top"),
            partition: 0,
            offset: 0,
        },
        generation: 0,
        key: Some(b"part-1".to_vec()),
        value: Some(std::fs::read(file)?),
        headers: headers.collect(),
        timestamp: Some(Timestamp(0)),
        lease: None,
    }))
}

fn our_turn(record: &Arc<Record>, wanted: WantedSize) -> Result<Turn> {
    let limits = ImageLimits::default();
    let envelopes = EnvelopeDecoder::new(EnvelopeSettings {
        default_line: LineId::from("line1"),
        default_class: None,
        limits,
    });
    let preprocessor =
        Preprocessor::new(Normalisation::imagenet(RESIZE), CROP).map_err(anyhow::Error::msg)?;
    let start = Instant::now();
    let view = envelopes.decode(Arc::clone(record), Timestamp(0));
    let view = view.map_err(|reject| anyhow::anyhow!(reject.error))?;
    let image = decode_pixels(&view, &limits, wanted)?;
    let decode = start.elapsed();
    let start = Instant::now();
    let input = preprocessor.prepare(image)?;
    let prepare = start.elapsed();
    let mut planes = input.values.chunks_exact(CROP * CROP);
    let means = [(); 3].map(|()| {
        let plane = planes.next().unwrap_or_default();
        plane.iter().map(|value| f64::from(*value)).sum::<f64>() / plane.len() as f64
    });
    Ok(Turn {
        decode: decode.as_secs_f64() * 1e3,
        prepare: prepare.as_secs_f64() * 1e3,
        means,
    })
}

/// Of decoding, of preparing, and of both together.
fn medians(turns: &[Turn]) -> [f64; 3] {
    let median = |of: fn(&Turn) -> f64| {
        let mut values: Vec<f64> = turns.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    [
        median(|turn| turn.decode),
        median(|turn| turn.prepare),
        median(|turn| turn.decode + turn.prepare),
    ]
}

fn peer(python: &Path, command: &str, folder: &Path, numbers: &[String; 2]) -> Command {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peer/decode.py");
    let mut peer = Command::new(python);
    peer.arg(script).arg(command).arg(folder).args(numbers);
    peer
}

/// The peer's process, which answers a line with a line.
struct Peer {
    process: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    fn start(python: &Path, folder: &Path) -> Result<Self> {
        let sizes = [RESIZE, CROP].map(|size| size.to_string());
        let mut process = peer(python, "serve", folder, &sizes)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let questions = process.stdin.take();
        let answers = process
            .stdout
            .take()
            .context("the peer's output is piped")?;
        let mut peer = Self {
            process,
            questions,
            answers: BufReader::new(answers),
        };
        let ready = peer.read_line()?;
        ensure!(ready == "ready", "the peer says `{ready}`");
        Ok(peer)
    }

    fn turn(&mut self, question: &str) -> Result<Turn> {
        let questions = self
            .questions
            .as_mut()
            .context("the peer's input is open")?;
        writeln!(questions, "{question}")?;
        questions.flush()?;
        let answer = self.read_line()?;
        let numbers: Result<Vec<f64>, _> = answer.split_whitespace().map(str::parse).collect();
        let Ok([decode, prepare, means @ ..]) = numbers.as_deref() else {
            bail!("the peer answers `{answer}`");
        };
        Ok(Turn {
            decode: decode * 1e3,
            prepare: prepare * 1e3,
            means: means.try_into().context("one mean a channel")?,
        })
    }

    fn read_line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // With its input closed it ends.
        self.questions = None;
        if let Err(error) = self.process.wait() {
            eprintln!("decode: the peer did not end: {error}");
        }
    }
}
