//! The model held against code that others wrote, tensor by tensor.
//!
//! The peers (timm, transformers, Dinomaly, ToST, INP-Former, Pillow) have answered already: their
//! inputs, weights and outputs lie in a folder of cases that `generate.py` wrote. Without
//! `PARITY_CASES` it is `golden/`, small enough to be kept here, so that this needs no Python;
//! `make parity` makes one at full size and names it. All through the crate's public interface.
//!
//! Prints a table and fails when one figure is over its bound. A word on the command line chooses
//! the cases whose description has it.
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

fn main() -> ExitCode {
    let folder = Folder::from_environment();
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
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
    // A filter for other tests may leave none of these; without one there must be some.
    ExitCode::from(u8::from(failed > 0 || (compared == 0 && wanted.is_empty())))
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
