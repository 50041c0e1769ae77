//! `panoptes demo`: one command, no set-up.

use std::time::{Duration, Instant};

use crate::support::config::model_path;
use crate::support::process::panoptes;

/// On an idle machine the demo takes a third of this; here other tests run beside it.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn the_demo_accounts_for_every_part_and_writes_its_report() {
    let folder = tempfile::tempdir().unwrap();
    let model = model_path();
    let started = Instant::now();
    let output = panoptes(
        folder.path(),
        &["demo", "--parts", "12", "--model", model.to_str().unwrap()],
    );
    let printed = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{printed}{errors}");
    assert!(started.elapsed() < PATIENCE, "took {:?}", started.elapsed());
    for word in [
        "decision",
        "late",
        "duplicate",
        "decode",
        "missing",
        "parts a second",
    ] {
        assert!(printed.contains(word), "`{word}` is not in: {printed}");
    }
    let report = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(report.contains("<html") && report.contains("data:image/"));
    assert!(
        report.contains("</image><rect"),
        "no region is drawn over a picture"
    );
}
