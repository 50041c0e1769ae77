//! Runs that are interrupted and go on from a checkpoint.

use super::*;

#[test]
fn a_resumed_run_ends_with_the_same_weights() {
    for prior in [PriorMode::Off, PriorMode::Calibrated] {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(prior, 9);
        let whole = train(&settings).0;
        let resumed = train_with_a_stop(&settings, folder.path(), 4).tensors;
        assert_eq!(bits(&whole), bits(&resumed), "{prior:?}");
    }
}

#[test]
fn a_run_on_whitened_features_repeats_and_resumes() {
    for prior in [PriorMode::Off, PriorMode::Calibrated] {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = settings(prior, 9);
        settings.architecture.whitening = true;
        settings.recipe.data.altered_share = if prior == PriorMode::Off { 0.7 } else { 0.0 };
        let (whole, _) = train(&settings);
        settings.architecture.tensors().check(&whole).unwrap();
        let resumed = train_with_a_stop(&settings, folder.path(), 4).tensors;
        assert_eq!(bits(&whole), bits(&resumed), "{prior:?}");
    }
}

/// Another processor rounds otherwise: a checkpoint's whitening is not quite what is fitted here.
#[test]
fn a_resumed_run_whitens_as_its_checkpoint_does() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.safetensors");
    let mut settings = settings(PriorMode::Off, 9);
    settings.architecture.whitening = true;
    settings.checkpoint.file = Some(file.clone());
    settings.checkpoint.stop_after = Some(4);
    run(&settings, &mut ()).unwrap_err();
    let bytes = std::fs::read(&file).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap();
    let other = tensors.into_iter().map(|(name, tensor)| {
        let scale = if name.starts_with("parameters.whitening.") {
            2.0
        } else {
            1.0
        };
        (name, (tensor * scale).unwrap())
    });
    let (other, metadata) = (other.collect(), header.metadata().clone().unwrap());
    settings.checkpoint.stop_after = None;
    settings.checkpoint.resume = true;
    let mut resumed = |cache_bytes: u64| {
        checkpoint::write_tensors(&file, &other, metadata.clone()).unwrap();
        settings.cache_bytes = cache_bytes;
        train(&settings).0
    };
    let (kept, anew) = (resumed(u64::MAX), resumed(0));
    assert_eq!(bits(&kept), bits(&anew));
}

fn killed_settings(file: &std::path::Path) -> ReconstructionSettings {
    let mut settings = settings(PriorMode::Off, 60);
    settings.recipe.validation.every = 10;
    settings.recipe.validation.share = 0.5;
    settings.checkpoint.file = Some(file.to_owned());
    settings.checkpoint.every = 7;
    settings
}

/// Says when the iteration before its death is done, and waits for it.
struct Doomed;

impl Observer for Doomed {
    fn row(&mut self, row: &HistoryRow) {
        if row.iteration == 30 {
            println!("ready to be killed");
            let mut line = String::new();
            // Nothing is ever written there: this ends with the process.
            std::io::stdin().read_line(&mut line).unwrap();
            panic!("expected to be killed, went on");
        }
    }
}

/// The test starts itself as a child with the name of a checkpoint in its environment.
#[test]
fn a_run_killed_outright_resumes_as_if_nothing_had_happened() {
    use std::io::BufRead as _;
    use std::process::{Command, Stdio};
    if let Some(file) = std::env::var_os(KILLED_RUN) {
        run(&killed_settings(file.as_ref()), &mut Doomed).unwrap();
        unreachable!("the child is killed on its way");
    }
    let folder = tempfile::tempdir().unwrap();
    let whole = run(
        &killed_settings(&folder.path().join("whole.safetensors")),
        &mut (),
    );
    let file = folder.path().join("killed.safetensors");
    let name = "training::reconstruction::tests::resuming::a_run_killed_outright_resumes_as_if_nothing_had_happened";
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(KILLED_RUN, &file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("ready to be killed")));
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success());
    let mut settings = killed_settings(&file);
    settings.checkpoint.resume = true;
    let mut watcher = Watcher::default();
    let resumed = run(&settings, &mut watcher).unwrap();
    let whole = whole.unwrap();
    // The last checkpoint before iteration 30 is that of 28: the row of 30 is made anew.
    assert_eq!(watcher.rows[0].iteration, 30);
    assert_eq!(bits(&whole.tensors), bits(&resumed.tensors));
    assert_eq!(whole.history, resumed.history);
    assert!(
        whole
            .history
            .rows
            .iter()
            .any(|row| row.validation.is_some())
    );
}

#[test]
fn whoever_asks_a_run_to_stop_gets_a_checkpoint_to_go_on_from() {
    struct Impatient(crate::training::iteration::StopRequest);
    impl Observer for Impatient {
        fn row(&mut self, _: &HistoryRow) {
            self.0.request();
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(PriorMode::Off, 30);
    let whole = run(&settings, &mut ()).unwrap();
    let file = folder.path().join("run.safetensors");
    settings.checkpoint.file = Some(file.clone());
    let mut impatient = Impatient(settings.checkpoint.stop.clone());
    let stopped = run(&settings, &mut impatient).unwrap_err().to_string();
    let expected = format!(
        "stopped after iteration `25` of `30`; its checkpoint is `{}`",
        file.display()
    );
    assert_eq!(stopped, expected);
    // Asked before it begins, it does not begin.
    let early = run(&settings, &mut ()).unwrap_err();
    assert!(matches!(early, TrainingError::InterruptedEarly), "{early}");
    settings.checkpoint.stop = Default::default();
    settings.checkpoint.resume = true;
    let resumed = run(&settings, &mut ()).unwrap();
    assert_eq!(whole.history, resumed.history);
    assert_eq!(bits(&whole.tensors), bits(&resumed.tensors));
}

#[test]
fn a_full_disk_ends_the_run_and_leaves_the_last_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(PriorMode::Off, 9);
    let whole = train(&settings).0;
    let file = folder.path().join("run.safetensors");
    settings.checkpoint.file = Some(file.clone());
    settings.checkpoint.stop_after = Some(4);
    run(&settings, &mut ()).unwrap_err();
    let unfinished = folder.path().join("run.safetensors.unfinished");
    std::os::unix::fs::symlink("/dev/full", &unfinished).unwrap();
    settings.checkpoint.stop_after = None;
    settings.checkpoint.resume = true;
    let error = run(&settings, &mut ()).unwrap_err().to_string();
    let file = file.display().to_string();
    assert!(
        error.contains(&file) && error.contains("No space left"),
        "{error}"
    );
    assert_eq!(bits(&whole), bits(&train(&settings).0));
    assert!(!unfinished.exists());
}

#[test]
fn the_weights_of_the_best_validation_are_kept_over_an_interruption() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(PriorMode::Off, 8);
    settings.recipe.validation.every = 2;
    settings.recipe.validation.weights = Weights::Best;
    settings.checkpoint.file = Some(folder.path().join("run.safetensors"));
    settings.checkpoint.stop_after = Some(5);
    // The second of four is the best, and met only once.
    let mut watcher = Watcher {
        answers: vec![0.8, 0.9, 0.6],
        ..Watcher::default()
    };
    run(&settings, &mut watcher).unwrap_err();
    let best = watcher.judged.swap_remove(1);
    settings.checkpoint.stop_after = None;
    settings.checkpoint.resume = true;
    let mut watcher = Watcher {
        answers: vec![0.7, 0.85],
        ..Watcher::default()
    };
    let trained = run(&settings, &mut watcher).unwrap();
    assert_eq!(trained.iteration, 4);
    assert_eq!(bits(&best), bits(&trained.tensors));
    settings.checkpoint = CheckpointSettings::default();
    let mut same = Watcher {
        answers: vec![0.5; 4],
        ..Watcher::default()
    };
    assert_eq!(run(&settings, &mut same).unwrap().iteration, 8);
    settings.recipe.validation.weights = Weights::Last;
    let last = run(
        &settings,
        &mut Watcher {
            answers: vec![0.5; 4],
            ..Watcher::default()
        },
    );
    assert_ne!(bits(&best), bits(&last.unwrap().tensors));
}

#[test]
fn a_checkpoint_of_other_settings_or_data_names_what_differs() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(PriorMode::Off, 4);
    settings.checkpoint.file = Some(folder.path().join("run.safetensors"));
    train(&settings);
    settings.checkpoint.resume = true;
    settings.recipe.optimiser.learning_rate = 1e-3;
    let error = run(&settings, &mut ()).unwrap_err().to_string();
    let expected = "data: `optimiser.learning_rate`: expected `0.001`, found `0.002`";
    assert!(error.ends_with(expected), "{error}");
    settings.recipe.optimiser.learning_rate = 2e-3;
    settings.recipe.input.map_side = Some(20);
    settings.recipe.input.resize = Some(SIDE);
    let error = run(&settings, &mut ()).unwrap_err().to_string();
    let expected = "data: `input.map_side`: expected `20`, found `32`";
    assert!(error.ends_with(expected), "{error}");
    settings.recipe.input.map_side = None;
    settings.recipe.input.resize = Some(40);
    let error = run(&settings, &mut ()).unwrap_err().to_string();
    let expected = "data: `input.resize`: expected `40`, found `32`";
    assert!(error.ends_with(expected), "{error}");
    settings.recipe.input.resize = None;
    let other = TrainingImages::given([("bolt".to_owned(), images()[..9].to_vec())]);
    let result = reconstruct(
        &settings,
        &encoder(&settings),
        &other,
        &Device::Cpu,
        &mut (),
    );
    let error = result.unwrap_err().to_string();
    assert!(
        error.contains("data: `images`: expected `9 with digest"),
        "{error}"
    );
    assert!(!error.contains("optimiser"), "{error}");
}
