//! What `eval` prints can be read by programs.

use serde_json::Value;
use tempfile::TempDir;

use crate::support::config::model_path;
use crate::support::process::{binary, panoptes};

#[test]
fn figures_in_json_are_all_that_is_printed_on_standard_output() {
    let folder = TempDir::new().unwrap();
    let line =
        "synth --out parts --parts-per-class 2 --defective-share 0.5 --classes bolt --size 96";
    let words: Vec<&str> = line.split(' ').collect();
    assert!(panoptes(folder.path(), &words).status.success());
    let line = "eval --data parts/images --masks parts/masks --format json --model";
    let output = binary()
        .current_dir(folder.path())
        .args(line.split(' '))
        .arg(model_path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["mean"]["parts"], 2);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("10 images of 2 parts"), "{said}");
}
