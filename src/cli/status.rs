//! `panoptes status`: what a running instance is doing, as its `/status` answers.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use crate::kafka::poll_report::{Pause, Reading};
use crate::status::{Holder, InstanceStatus, PartitionStatus, PipelineStatus};

/// How long an instance may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Flags of `panoptes status`.
#[derive(Args, Clone, Debug)]
pub struct StatusArguments {
    /// The instance's `admin.listen`
    #[arg(
        long,
        default_value = "127.0.0.1:9464",
        env = "PANOPTES__ADMIN__LISTEN"
    )]
    pub admin: String,
    /// Print the answer as it is, one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Asks, and returns what to print.
///
/// # Errors
/// When the instance does not answer, or answers something else.
pub fn run(arguments: &StatusArguments) -> anyhow::Result<String> {
    let url = format!("http://{}/status", arguments.admin);
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .proxy(None) // not the plant's
        .build()
        .into();
    let answer = agent
        .get(&url)
        .call()
        .and_then(|mut answer| answer.body_mut().read_to_string())
        .with_context(|| format!("no instance answers at `{url}`"))?;
    if arguments.json {
        return Ok(answer + "\n");
    }
    let status: InstanceStatus = serde_json::from_str(&answer).with_context(|| {
        format!("expected a status of Panoptes at `{url}`, found something else")
    })?;
    Ok(describe(&status))
}

fn describe(status: &InstanceStatus) -> String {
    let mut text = format!("panoptes {}: ", status.version);
    text += &match status.ready {
        true => "ready".to_owned(),
        false => format!("not ready: {}", status.reasons.join("; ")),
    };
    text.push('\n');
    match &status.pipeline {
        Some(pipeline) => text + &describe_pipeline(pipeline),
        None => text + "no pipeline is running\n",
    }
}

fn describe_pipeline(pipeline: &PipelineStatus) -> String {
    let seconds = |millis: u64| humantime::format_duration(Duration::from_millis(millis));
    let mut lines = vec![
        format!(
            "group `{}`, model {} {}",
            pipeline.group_id, pipeline.model_name, pipeline.model_version
        ),
        format!(
            "{} parts wait for views, {} on their way, {} records finished",
            pipeline.open_parts, pipeline.in_flight, pipeline.finished_records
        ),
        format!(
            "memory {} of {}",
            bytesize::ByteSize(pipeline.memory_used_bytes),
            bytesize::ByteSize(pipeline.memory_budget_bytes)
        ),
    ];
    if let Some(lag) = pipeline.stream_time_lag_ms {
        lines.push(format!("stream time is {} behind the clock", seconds(lag)));
    }
    match pipeline.reading {
        Reading::Running => {}
        Reading::Jammed => {
            lines.push("not reading: the stages behind, or the memory, are full".to_owned())
        }
        Reading::Throttled => {
            lines.push("not reading: as much was read as `--rate` allows".to_owned());
        }
        Reading::Held => {
            lines.push("not reading: the views of a part might not meet".to_owned());
        }
        Reading::Draining => lines.push("not reading: draining".to_owned()),
    }
    if let Some(busy) = pipeline.device_busy_ms {
        lines.push(format!(
            "the device has had its batch for {}",
            seconds(busy)
        ));
    }
    if let Some(open) = pipeline.transaction_open_ms {
        lines.push(format!("a transaction has been open for {}", seconds(open)));
    }
    lines.push(String::new());
    lines.join("\n") + &table(&pipeline.partitions)
}

fn table(partitions: &[PartitionStatus]) -> String {
    let header = [
        "PARTITION",
        "POSITION",
        "END",
        "LAG",
        "UNFINISHED",
        "STATE",
        "HELD BY",
    ];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(partitions.iter().map(row));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..header.len()).filter_map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // Numbers to the right.
            let written = match (1..=4).contains(&column) {
                true => write!(line, "{cell:>width$}  "),
                false => write!(line, "{cell:<width$}  "),
            };
            written.expect("a string takes all that is written");
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn row(partition: &PartitionStatus) -> [String; 7] {
    let number = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |it| it.to_string());
    [
        partition.name(),
        number(partition.position),
        number(partition.end),
        number(partition.lag),
        partition.unfinished.to_string(),
        state(partition).to_owned(),
        partition.held_by.as_ref().map_or_else(String::new, held_by),
    ]
}

fn state(partition: &PartitionStatus) -> &'static str {
    match partition.pause {
        Some(Pause::Memory) => "paused: memory",
        Some(Pause::Unfinished) => "paused: unfinished",
        Some(Pause::EndOfRange) => "at the end of the range",
        Some(Pause::Ahead) => "waits for its time",
        None if partition.is_idle => "idle",
        None if partition.is_at_end => "at the end",
        None => "to be read",
    }
}

fn held_by(holder: &Holder) -> String {
    match holder {
        Holder::Work => "being scored or published".to_owned(),
        Holder::Turn {
            line,
            part_id,
            waited_ms,
        } => {
            let age = humantime::format_duration(Duration::from_secs(waited_ms / 1000));
            format!(
                "part `{part_id}` of {line}: waits for {age} for other cameras' records that were written earlier"
            )
        }
        Holder::Part {
            line,
            part_id,
            missing_views,
            open_ms,
            is_overdue,
        } => {
            // Milliseconds say nothing here.
            let age = humantime::format_duration(Duration::from_secs(open_ms / 1000));
            let missing = match missing_views.as_slice() {
                [] => "more views".to_owned(),
                views => views.join(", "),
            };
            let overdue = if *is_overdue { ", overdue" } else { "" };
            format!("part `{part_id}` of {line}: waits for {missing} for {age}{overdue}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_holds_each_partition() {
        let partition = |number, pause, held_by| PartitionStatus {
            position: Some(100),
            end: Some(1050),
            lag: Some(950),
            is_at_end: false,
            unfinished: 7,
            pause,
            held_by,
            ..PartitionStatus::at("cam.top", number)
        };
        let waits = Holder::Part {
            line: "line1".to_owned(),
            part_id: "P-1".to_owned(),
            missing_views: vec!["left".to_owned(), "back".to_owned()],
            open_ms: 65_300,
            is_overdue: true,
        };
        let text = table(&[
            partition(0, None, Some(waits)),
            partition(1, Some(Pause::Memory), Some(Holder::Work)),
            PartitionStatus::at("cam.top", 12),
        ]);
        let expected = "\
PARTITION    POSITION   END  LAG  UNFINISHED  STATE           HELD BY
cam.top[0]        100  1050  950           7  to be read      part `P-1` of line1: waits for left, back for 1m 5s, overdue
cam.top[1]        100  1050  950           7  paused: memory  being scored or published
cam.top[12]         -     -    -           0  at the end
";
        assert_eq!(text, expected);
    }

    #[test]
    fn an_instance_that_does_not_answer_is_named() {
        let arguments = StatusArguments {
            admin: "127.0.0.1:1".to_owned(),
            json: false,
        };
        let error = run(&arguments).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no instance answers at `http://127.0.0.1:1/status`"
        );
    }
}
