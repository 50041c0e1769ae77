//! How far each partition has come and what holds it, as Prometheus reads it.
//!
//! These are rendered from a status when somebody scrapes, and not kept: partitions come and go with
//! rebalances, and of parts only the few are named that have held a partition for longest, and too long.

use std::cmp::Reverse;
use std::fmt::Write as _;

use metrics_exporter_prometheus::formatting::{
    sanitize_label_value, write_help_line, write_type_line,
};

use crate::status::{Holder, PartitionStatus};

/// A gauge of partitions.
#[derive(Clone, Copy, Debug)]
pub struct PartitionMetric {
    /// Its name.
    pub name: &'static str,
    /// What it says.
    pub help: &'static str,
    value: fn(&PartitionStatus) -> Option<f64>,
}

/// The gauges of every partition, labelled `topic` and `partition`.
pub const CATALOGUE: [PartitionMetric; 4] = [
    PartitionMetric {
        name: "panoptes_partition_lag_records",
        help: "Records from the lowest unfinished one to the end of the partition.",
        value: |partition| partition.lag.map(|lag| lag as f64),
    },
    PartitionMetric {
        name: "panoptes_partition_unfinished_records",
        help: "Records of the partition that are read and not finished.",
        value: |partition| Some(partition.unfinished as f64),
    },
    PartitionMetric {
        name: "panoptes_watermark_age_seconds",
        help: "How long the part that holds the position of the partition has waited for views.",
        value: |partition| match &partition.held_by {
            Some(Holder::Part { open_ms, .. }) => Some(*open_ms as f64 / 1000.0),
            _ => Some(0.0),
        },
    },
    PartitionMetric {
        name: "panoptes_watermark_missing_views",
        help: "How many views that part waits for.",
        value: |partition| match &partition.held_by {
            Some(Holder::Part { missing_views, .. }) => Some(missing_views.len() as f64),
            _ => Some(0.0),
        },
    },
];

/// The parts that have held a partition for longest, beyond what a part may take on a line whose cameras
/// have come as far as each other: labelled `line`, `part_id` and `missing_views` besides.
pub const HOLDER: PartitionMetric = PartitionMetric {
    name: "panoptes_watermark_holder",
    help: "1 for the parts that have held the position of a partition for longest, and too long.",
    value: |partition| match &partition.held_by {
        Some(Holder::Part { is_overdue, .. }) => is_overdue.then_some(1.0),
        _ => None,
    },
};

/// How many parts are named at most.
const MOST_NAMED: usize = 10;

/// The gauges in Prometheus' text format.
pub fn render(partitions: &[PartitionStatus]) -> String {
    let mut text = String::new();
    for metric in CATALOGUE {
        write_head(&mut text, &metric);
        for partition in partitions {
            write_sample(&mut text, &metric, partition, labels(partition));
        }
    }
    write_head(&mut text, &HOLDER);
    for (_, partition) in longest_held(partitions) {
        write_sample(&mut text, &HOLDER, partition, holder_labels(partition));
    }
    text
}

fn write_head(text: &mut String, metric: &PartitionMetric) {
    write_help_line(text, metric.name, None, None, metric.help);
    write_type_line(text, metric.name, None, None, "gauge");
}

fn write_sample(
    text: &mut String,
    metric: &PartitionMetric,
    partition: &PartitionStatus,
    labels: Labels,
) {
    let Some(value) = (metric.value)(partition) else {
        return;
    };
    let pairs = labels.iter();
    let pairs = pairs.map(|(name, value)| format!("{name}=\"{}\"", sanitize_label_value(value)));
    let labels = pairs.collect::<Vec<_>>().join(",");
    writeln!(text, "{}{{{labels}}} {value}", metric.name)
        .expect("a string takes all that is written");
}

/// The partitions that an overdue part holds, and for how long, the longest first.
fn longest_held(partitions: &[PartitionStatus]) -> Vec<(u64, &PartitionStatus)> {
    let overdue = |partition: &'_ PartitionStatus| match partition.held_by {
        Some(Holder::Part {
            open_ms,
            is_overdue: true,
            ..
        }) => Some(open_ms),
        _ => None,
    };
    let mut held: Vec<_> = partitions
        .iter()
        .filter_map(|partition| Some((overdue(partition)?, partition)))
        .collect();
    held.sort_by_key(|(open_ms, _)| Reverse(*open_ms));
    held.truncate(MOST_NAMED);
    held
}

type Labels = Vec<(&'static str, String)>;

fn labels(partition: &PartitionStatus) -> Labels {
    vec![
        ("topic", partition.topic.clone()),
        ("partition", partition.partition.to_string()),
    ]
}

fn holder_labels(partition: &PartitionStatus) -> Labels {
    let mut labels = labels(partition);
    if let Some(Holder::Part {
        line,
        part_id,
        missing_views,
        ..
    }) = &partition.held_by
    {
        labels.push(("line", line.clone()));
        labels.push(("part_id", part_id.clone()));
        labels.push(("missing_views", missing_views.join(",")));
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(open_ms: u64, is_overdue: bool) -> PartitionStatus {
        PartitionStatus {
            lag: Some(12),
            unfinished: 3,
            held_by: Some(Holder::Part {
                line: "line1".to_owned(),
                part_id: "a \"quoted\" part".to_owned(),
                missing_views: vec!["left".to_owned(), "top".to_owned()],
                open_ms,
                is_overdue,
            }),
            ..PartitionStatus::at("line1.cam.top", 2)
        }
    }

    #[test]
    fn says_how_far_a_partition_has_come_and_what_holds_it() {
        let text = render(&[held(1500, false)]);
        let labels = "{topic=\"line1.cam.top\",partition=\"2\"}";
        for line in [
            format!("panoptes_partition_lag_records{labels} 12\n"),
            format!("panoptes_partition_unfinished_records{labels} 3\n"),
            format!("panoptes_watermark_age_seconds{labels} 1.5\n"),
            format!("panoptes_watermark_missing_views{labels} 2\n"),
        ] {
            assert!(text.contains(&line), "{line}\n{text}");
        }
        assert!(!text.contains("quoted"), "within its time: {text}");
    }

    #[test]
    fn names_a_part_once_it_is_overdue() {
        let text = render(&[held(6000, true)]);
        let line = "panoptes_watermark_holder{topic=\"line1.cam.top\",partition=\"2\",\
                    line=\"line1\",part_id=\"a \\\"quoted\\\" part\",missing_views=\"left,top\"} 1\n";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn names_only_the_parts_that_have_held_a_partition_for_longest() {
        let partitions: Vec<_> = (0..30).map(|age| held(age, true)).collect();
        assert_eq!(
            render(&partitions)
                .matches("panoptes_watermark_holder{")
                .count(),
            MOST_NAMED
        );
        let oldest = longest_held(&partitions)[0].0;
        assert_eq!(oldest, 29);
    }

    #[test]
    fn a_partition_whose_end_is_unknown_has_no_lag() {
        let text = render(&[PartitionStatus::at("cam", 0)]);
        assert!(!text.contains("panoptes_partition_lag_records{"), "{text}");
        assert!(
            text.contains("panoptes_partition_unfinished_records{"),
            "{text}"
        );
    }
}
