//! The codecs of anomaly maps, on maps as smooth as the model's.

use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::images::SEED;
use super::report::Report;
use crate::domain::{AnomalyMap, MapCodec};
use crate::scoring::{MapSettings, decode_map, encode_map};

/// Points along a side of a map's coarse grid, as many as a ViT of 14-pixel patches has at 392 pixels.
const GRID: usize = 28;
/// How many different maps there are.
const VARIETY: usize = 16;

/// Flags of `panoptes bench maps`.
#[derive(Args, Clone, Debug)]
pub struct MapsArguments {
    /// Sides of the maps that the model gives, in pixels
    #[arg(long, value_delimiter = ',', default_value = "192,392", value_parser = clap::value_parser!(u32).range(8..=4096))]
    pub model_side: Vec<u32>,
    /// Side of the maps that travel (`output.maps.side`)
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(8..=1024))]
    pub side: u32,
    /// How often each of 16 maps is encoded and decoded
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub repeat: u32,
}

pub(super) fn run(arguments: &MapsArguments) -> anyhow::Result<Report> {
    let conditions = vec![
        ("side", json!(arguments.side)),
        ("maps", json!(VARIETY)),
        ("repeat", json!(arguments.repeat)),
        ("seed", json!(SEED)),
    ];
    let mut report = Report::new("maps", conditions);
    for &model_side in &arguments.model_side {
        let maps = smooth_maps(model_side as usize);
        for (name, codec) in [("png", MapCodec::Png), ("zstd", MapCodec::Zstd)] {
            let side = arguments.side;
            let settings = MapSettings { codec, side };
            let measured = measure(&maps, settings, arguments.repeat)?;
            report.push(vec![
                ("codec", json!(name)),
                ("model_side", json!(model_side)),
                ("encode_us", json!(micros(measured.encoding))),
                ("decode_us", json!(micros(measured.decoding))),
                ("bytes", json!(measured.bytes)),
            ]);
        }
    }
    Ok(report)
}

/// Medians over all maps and repetitions, the bytes a mean over all maps.
struct Measured {
    encoding: Duration,
    decoding: Duration,
    bytes: usize,
}

fn measure(maps: &[AnomalyMap], settings: MapSettings, repeat: u32) -> anyhow::Result<Measured> {
    let (mut encodings, mut decodings, mut bytes) = (Vec::new(), Vec::new(), 0);
    for _ in 0..repeat {
        for map in maps {
            let started = Instant::now();
            let encoded = encode_map(map, settings);
            encodings.push(started.elapsed());
            bytes += encoded.data.len();
            let started = Instant::now();
            let decoded = decode_map(&encoded)?;
            decodings.push(started.elapsed());
            ensure!(
                decoded.values.len() == encoded.width as usize * encoded.height as usize,
                "expected a map of `{}` x `{}`, found `{}` values",
                encoded.width,
                encoded.height,
                decoded.values.len()
            );
        }
    }
    Ok(Measured {
        bytes: bytes / encodings.len(),
        encoding: median(encodings),
        decoding: median(decodings),
    })
}

/// The middle one, by size.
pub(super) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Coarse noise, interpolated as the model's maps are.
fn smooth_maps(side: usize) -> Vec<AnomalyMap> {
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let mut map = || {
        let grid: Vec<f32> = (0..(GRID + 1) * (GRID + 1))
            .map(|_| random.random_range(0.0..0.3))
            .collect();
        let values = (0..side * side).map(|pixel| {
            let place = |at: usize| at as f32 * GRID as f32 / side as f32;
            let (x, y) = (place(pixel % side), place(pixel / side));
            let (left, top) = (x as usize, y as usize);
            let (right_share, low_share) = (x.fract(), y.fract());
            let row = |row: usize| {
                let at = row * (GRID + 1) + left;
                grid[at] * (1.0 - right_share) + grid[at + 1] * right_share
            };
            row(top) * (1.0 - low_share) + row(top + 1) * low_share
        });
        AnomalyMap {
            width: side,
            height: side,
            values: values.collect(),
        }
    };
    (0..VARIETY).map(|_| map()).collect()
}
