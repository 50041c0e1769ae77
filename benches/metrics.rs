//! Time and memory of the figures on a set of any size: smooth maps of 256 x 256 pixels are made on
//! the fly and counted, 30 classes one after the other, good parts apart from bad ones, as `panoptes
//! eval` does. Parts have one view.
//!
//! `cargo bench --bench metrics -- --images 114585` is a set of Real-IAD's size. Making the maps is
//! timed apart from counting them. The peak of memory (VmHWM) is what Linux says of this process.

use std::time::{Duration, Instant};

use panoptes::domain::AnomalyMap;
use panoptes::evaluation::figures::ClassSums;
use panoptes::evaluation::measurement::{MeasuredPart, MeasuredView};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const SIDE: usize = 256;
/// Points of a map's coarse grid, as many as a ViT of 14-pixel patches has at 392 pixels.
const GRID: usize = 28;

/// What to run.
struct Options {
    images: usize,
    classes: usize,
}

impl Options {
    /// From the command line; cargo adds `--bench`, which says nothing here.
    fn read() -> Result<Self, String> {
        let mut options = Self {
            images: 600,
            classes: 30,
        };
        let mut arguments = std::env::args().skip(1).filter(|name| name != "--bench");
        while let Some(name) = arguments.next() {
            let number = arguments.next().and_then(|number| number.parse().ok());
            let number = number.filter(|number| *number > 0);
            let number = number.ok_or(format!("`{name}`: expected a number above 0"))?;
            match name.as_str() {
                "--images" => options.images = number,
                "--classes" => options.classes = number,
                _ => {
                    return Err(format!(
                        "expected `--images` or `--classes`, found `{name}`"
                    ));
                }
            }
        }
        Ok(options)
    }
}

fn main() -> Result<(), String> {
    let Options { images, classes } = Options::read()?;
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let (mut making, mut counting, mut reading) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for class in 0..classes {
        let mut sums = ClassSums::default();
        // The images that are left, spread over the classes that are left.
        for image in 0..images * (class + 1) / classes - images * class / classes {
            let start = Instant::now();
            let is_bad = image % 9 < 4;
            let (map, defect) = smooth_map(&mut random, is_bad);
            let part = part(map, defect, is_bad);
            making += start.elapsed();
            let start = Instant::now();
            let counted = sums.add(&part, None);
            counted.map_err(|fault| fault.to_string())?;
            counting += start.elapsed();
        }
        let start = Instant::now();
        let figures = sums.figures().all.figures;
        reading += start.elapsed();
        let auroc = figures.pixel.map(|ranking| ranking.auroc);
        println!(
            "class {class}: AUROC {:.4}, AUPRO {:.4}, peak {} MiB",
            auroc.unwrap_or(f64::NAN),
            figures.aupro.unwrap_or(f64::NAN),
            peak_mebibytes()
        );
    }
    let seconds = (counting + reading).as_secs_f64();
    println!(
        "{images} maps of {SIDE}x{SIDE} in {classes} classes: counting {:.1} s, reading off {:.1} s, \
         {:.0} images/s, {:.1} ns a pixel; making the maps {:.1} s; peak memory {} MiB",
        counting.as_secs_f64(),
        reading.as_secs_f64(),
        images as f64 / seconds,
        1e9 * seconds / (images * SIDE * SIDE) as f64,
        making.as_secs_f64(),
        peak_mebibytes()
    );
    Ok(())
}

fn part(map: AnomalyMap, defect: Vec<bool>, is_anomalous: bool) -> MeasuredPart {
    let view = MeasuredView {
        view: "top".to_owned(),
        score: map.values.iter().copied().fold(0.0, f32::max),
        map,
        defect,
        is_anomalous,
    };
    MeasuredPart {
        class: "class".to_owned(),
        part: "part".to_owned(),
        views: vec![view],
    }
}

/// A grid of random distances, skewed as those of good images are, drawn out to the map's size; a
/// bad one has a defect of one grid cell to a quarter of the side, with higher distances.
fn smooth_map(random: &mut ChaCha8Rng, is_bad: bool) -> (AnomalyMap, Vec<bool>) {
    let mut grid = [[0f32; GRID + 1]; GRID + 1];
    for value in grid.iter_mut().flatten() {
        *value = 0.02 + 0.1 * random.random::<f32>().powi(3);
    }
    let mut defect = Vec::new();
    if is_bad {
        let (side_x, side_y) = (random.random_range(9..64), random.random_range(9..64));
        let left = random.random_range(0..SIDE - side_x);
        let top = random.random_range(0..SIDE - side_y);
        defect = vec![false; SIDE * SIDE];
        for y in top..top + side_y {
            defect[y * SIDE + left..y * SIDE + left + side_x].fill(true);
        }
        let raised = random.random_range(0.0..0.4);
        for row in &mut grid[top * GRID / SIDE..=(top + side_y) * GRID / SIDE] {
            for value in &mut row[left * GRID / SIDE..=(left + side_x) * GRID / SIDE] {
                *value += raised;
            }
        }
    }
    let mut values = Vec::with_capacity(SIDE * SIDE);
    let place = |pixel: usize| {
        let place = (pixel * GRID) as f32 / SIDE as f32;
        (place as usize, place.fract())
    };
    for y in 0..SIDE {
        let (row, down) = place(y);
        for x in 0..SIDE {
            let (column, right) = place(x);
            let between =
                |row: &[f32; GRID + 1]| row[column] + right * (row[column + 1] - row[column]);
            let (above, below) = (between(&grid[row]), between(&grid[row + 1]));
            values.push(above + down * (below - above));
        }
    }
    let map = AnomalyMap {
        width: SIDE,
        height: SIDE,
        values,
    };
    (map, defect)
}

/// The most memory that this process has had, where the system tells.
fn peak_mebibytes() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = peak.and_then(|peak| peak.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.map_or_else(
        || "?".to_owned(),
        |kibibytes| (kibibytes / 1024).to_string(),
    )
}
