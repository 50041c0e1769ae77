//! What a job is to do: all that its results depend on. A job is known by it, so that the same command goes on
//! with a job, and one that would come to other results does not.

use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::config::{ReassemblySettings, Settings};
use crate::domain::{ClassName, PartId, TopicPartition};
use crate::model::bundle::Manifest;
use crate::pipeline::Selection;
use crate::replay::{Bound, RangeSpec};
use crate::schema::archive::ArchiveManifest;

/// Bytes of a hash that tell jobs apart.
const DIGEST_BYTES: usize = 6;

/// What a job is to do.
pub(super) struct Task<'a> {
    pub(super) range: &'a RangeSpec,
    pub(super) selection: &'a Selection,
    pub(super) settings: &'a Settings,
    pub(super) model: &'a Manifest,
}

impl Task<'_> {
    /// What it is known by, wherever its records come from.
    pub(super) fn digest(&self) -> String {
        digest_of(&self.described())
    }

    /// The name of a job that is given none.
    pub(super) fn job_name(&self, archive: Option<&ArchiveManifest>) -> String {
        let digest = digest_of(&json!([self.described(), archive]));
        format!("panoptes-replay-{digest}")
    }

    fn described(&self) -> Value {
        let Self {
            range,
            selection,
            settings,
            model,
        } = self;
        let mut input = settings.input.clone();
        input.topics.sort_unstable();
        // How much memory there is, and the wall clock, decide nothing in a replay.
        let usual = ReassemblySettings::default();
        let reassembly = ReassemblySettings {
            memory_budget: usual.memory_budget,
            memory_high: usual.memory_high,
            memory_low: usual.memory_low,
            wall_grace: usual.wall_grace,
            ..settings.reassembly.clone()
        };
        let output = &settings.output;
        let classes = selection.classes.iter().flatten().map(ClassName::as_str);
        let parts = selection.parts.as_ref();
        let parts = parts.map(|parts| sorted(parts.iter().map(PartId::as_str)));
        json!({
            "range": [bound(&range.from), bound(&range.to)],
            "lead": humantime::format_duration(range.lead).to_string(),
            "classes": sorted(classes),
            "parts": parts.map(|parts| digest_of(&parts)),
            "model": model,
            "precision": settings.model.precision,
            "input": input,
            "views": settings.views,
            "reassembly": reassembly,
            "lines": settings.lines,
            "limits": settings.limits,
            "output": [json!(output.results_topic), json!(output.dead_letter_topic)],
            "written": [json!(output.format), json!(output.maps), json!(output.regions)],
        })
    }
}

fn bound(bound: &Bound) -> Value {
    match bound {
        Bound::Open => Value::Null,
        Bound::Time(time) => json!(time.0),
        Bound::Offsets(named) => {
            let named = named.iter();
            let named = named.map(|(TopicPartition { topic, partition }, offset)| {
                format!("{topic}[{partition}]={offset}")
            });
            json!(sorted(named))
        }
    }
}

fn sorted<T: Ord>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.collect();
    items.sort_unstable();
    items
}

fn digest_of(described: &impl Serialize) -> String {
    let json =
        serde_json::to_vec(described).expect("text and numbers can always be written as JSON");
    let digest = Sha256::digest(json);
    let short = digest.iter().take(DIGEST_BYTES);
    short.map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::path::Path;

    use super::*;
    use crate::cli::replay::flags::tests::parse;
    use crate::model::bundle::read_manifest;

    /// What jobs are known by, with these flags.
    fn task(words: &str) -> [String; 2] {
        task_of(words, "a\nb\n", |_| ())
    }

    fn task_of(words: &str, listed: &str, change: impl Fn(&mut Manifest)) -> [String; 2] {
        let list = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(list.path(), listed).unwrap();
        let words = words.replace("LIST", list.path().to_str().unwrap());
        let topics = "--set input.topics=b.top,a.left";
        let arguments = parse(&format!("--results-topic x {topics} {words}"));
        let (range, settings) = (arguments.range(), arguments.settings().unwrap());
        let selection = arguments.selection(range.written()).unwrap();
        let mut model = read_manifest(Path::new("models/demo")).unwrap();
        change(&mut model);
        let task = Task {
            range: &range,
            selection: &selection,
            settings: &settings,
            model: &model,
        };
        [task.digest(), task.job_name(None)]
    }

    #[test]
    fn what_changes_the_results_is_another_task() {
        let others = [
            "",
            "--class gear",
            "--class gear --class bolt",
            "--from 2026-01-01T00:00:00Z",
            "--to 2026-01-01T00:00:00Z",
            "--to-offset a[0]=7",
            "--from-offset a[0]=7",
            "--lead 1s",
            "--parts LIST",
            "--set reassembly.timeout=9s",
            "--set views.default=top,left",
            "--set input.line=line7",
            "--set lines.line7.timeout=3s",
            "--set limits.max_width=99",
            "--set model.precision=bf16",
            "--set output.maps.side=64",
            "--topic c.top",
            "--dead-letter-topic y",
        ];
        let mut tasks: Vec<_> = others.into_iter().map(task).collect();
        tasks.push(task_of("--parts LIST", "a\nc\n", |_| ()));
        tasks.push(task_of("", "", |model| {
            model.weights.sha256 = "0".repeat(64)
        }));
        tasks.push(task_of("", "", |model| model.classes.clear()));
        let different: HashSet<_> = tasks.iter().flatten().collect();
        assert_eq!(different.len(), 2 * tasks.len());
    }

    #[test]
    fn what_does_not_change_them_is_the_same_task() {
        for (one, other) in [
            ("", "--rate 9MB --parallel 3"),
            (
                "",
                "--set reassembly.memory_budget=64MiB --set model.max_batch=4",
            ),
            (
                "",
                "--set bus.brokers=other:9092 --set output.delivery=at_least_once",
            ),
            (
                "--topic a.left --topic b.top",
                "--topic b.top --topic a.left",
            ),
            ("--class gear --class bolt", "--class bolt --class gear"),
        ] {
            assert_eq!(task(one), task(other), "{one} {other}");
        }
        let list = |listed| task_of("--parts LIST", listed, |_| ());
        assert_eq!(list("a\nb\n"), list("b\n\na"));
        // However a process hashes.
        let offsets = "--to-offset a[0]=7 --to-offset a[1]=8 --to-offset a[2]=9 --to-offset b[0]=1";
        let first = task(offsets);
        for _ in 0..8 {
            assert_eq!(task(offsets), first);
        }
    }

    #[test]
    fn jobs_of_two_archives_are_not_the_same_and_of_one_are_wherever_it_lies() {
        let archive = |created_at| ArchiveManifest {
            schema_version: ArchiveManifest::VERSION,
            created_by: "panoptes".to_owned(),
            cluster_id: "cluster".to_owned(),
            created_at,
            completed_at: Some(9),
            subscription: Vec::new(),
            range: crate::schema::archive::RequestedRange::default(),
            topics: Vec::new(),
        };
        let arguments = parse("--results-topic x --set input.topics=a");
        let (range, settings) = (arguments.range(), arguments.settings().unwrap());
        let model = read_manifest(Path::new("models/demo")).unwrap();
        let task = Task {
            range: &range,
            selection: &Selection::default(),
            settings: &settings,
            model: &model,
        };
        let name = |created_at| task.job_name(Some(&archive(created_at)));
        assert_eq!(name(1), name(1));
        assert_ne!(name(1), name(2));
        assert_ne!(name(1), task.job_name(None));
    }
}
