//! The number of threads changes no result.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::support::config::model_path;
use crate::support::process::{binary, panoptes};

fn synthesise(folder: &Path) {
    let output = panoptes(
        folder,
        &[
            "synth",
            "--out",
            "parts",
            "--parts-per-class",
            "4",
            "--defective-share",
            "0.5",
            "--classes",
            "bolt",
        ],
    );
    assert!(output.status.success(), "{output:?}");
}

/// The anomaly maps of every part, as bytes, from `threads` threads.
fn maps(folder: &Path, threads: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let maps = folder.join(format!("maps-{threads}"));
    let output = binary()
        .current_dir(folder)
        .args(["eval", "--data", "parts/images"])
        .args(["--masks", "parts/masks", "--maps"])
        .arg(&maps)
        .arg("--model")
        .arg(model_path())
        .env("RAYON_NUM_THREADS", threads)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let files = std::fs::read_dir(maps.join("bolt")).unwrap();
    files
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = PathBuf::from(path.file_name().unwrap());
            (name, std::fs::read(path).unwrap())
        })
        .collect()
}

#[test]
fn one_thread_and_several_give_the_same_maps_bit_for_bit() {
    let folder = TempDir::new().unwrap();
    synthesise(folder.path());
    let one = maps(folder.path(), "1");
    assert_eq!(one.len(), 4);
    assert!(maps(folder.path(), "2") == one);
    assert!(maps(folder.path(), "3") == one);
}
