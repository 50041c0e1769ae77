//! The model held against code that others wrote, tensor by tensor.
//!
//! The peers (timm, transformers, Dinomaly, ToST, INP-Former, Pillow) have answered already: their
//! inputs, weights and outputs lie in a folder of cases that `generate.py` wrote. Without
//! `PARITY_CASES` it is `golden/`, small enough to be kept here, so that this needs no Python;
//! `make parity` makes one at full size and names it. All through the crate's public interface.
//!
//! Prints a table and fails when one figure is over its bound. A word on the command line chooses
//! the cases whose description has it; the test harness's flags say nothing here.
#![allow(clippy::unwrap_used, reason = "a failed unwrap here is a failed test")]

mod cases;
mod comparison;
mod encoder;
mod loss;
mod network;
mod optimiser;
mod resize;

use std::process::ExitCode;

use cases::{Case, Folder, Kind};
use comparison::Comparison;

/// Flags of the test harness whose value is the next argument.
const FLAGS_WITH_VALUE: [&str; 7] = [
    "--color",
    "--format",
    "--logfile",
    "--shuffle-seed",
    "--skip",
    "--test-threads",
    "-Z",
];

/// The arguments that are neither flags nor their values.
fn words(mut arguments: impl Iterator<Item = String>) -> Vec<String> {
    let mut words = Vec::new();
    while let Some(argument) = arguments.next() {
        if FLAGS_WITH_VALUE.contains(&argument.as_str()) {
            arguments.next();
        } else if !argument.starts_with('-') {
            words.push(argument);
        }
    }
    words
}

fn main() -> ExitCode {
    let folder = Folder::from_environment();
    let wanted = words(std::env::args().skip(1));
    println!("cases of {}\n", folder.path.display());
    println!("| what | peer | tensors | largest error | bound | |");
    println!("| --- | --- | --: | --: | --: | --- |");
    let (mut compared, mut failed) = (0, 0);
    for case in folder.cases() {
        if !wanted.iter().all(|word| case.what.contains(word)) {
            continue;
        }
        let found = compare(&folder, &case);
        let is_within = found.largest <= case.bound;
        println!(
            "| {} | {} | {} | {:.1e} | {:.0e} | {} |",
            case.what,
            case.peer,
            found.tensors,
            found.largest,
            case.bound,
            if is_within { "ok" } else { "FAILED" }
        );
        compared += 1;
        failed += usize::from(!is_within);
    }
    println!("\n{compared} cases, {failed} failed");
    // A filter for other tests may leave none of these; where these are meant, there must be some.
    let must_compare = folder.is_named || wanted.is_empty();
    ExitCode::from(u8::from(failed > 0 || (compared == 0 && must_compare)))
}

fn compare(folder: &Folder, case: &Case) -> Comparison {
    let tensors = folder.tensors(&case.tensors);
    match &case.kind {
        Kind::Encoder(settings) => encoder::compare(folder, settings, &tensors),
        Kind::Network(settings) => network::compare(folder, settings, &tensors),
        Kind::Layer(settings) => network::compare_layer(settings, &tensors),
        Kind::Loss(settings) => loss::compare(settings, &tensors),
        Kind::Optimiser(settings) => optimiser::compare(settings, &tensors),
        Kind::Resize(settings) => resize::compare(settings, &tensors),
    }
}
