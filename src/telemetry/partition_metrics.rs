//! How far each partition has come and what holds it, as Prometheus reads it.
//!
//! These are rendered from a status when somebody scrapes, and not kept: partitions come and go with
//! rebalances, and a part is named only while it is the one that holds a partition for longer than its
//! timeout. So their number is bounded by that of the partitions.

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

/// The gauges, each labelled `topic` and `partition`; the last one `line`, `part_id` and
/// `missing_views`, too.
pub const CATALOGUE: [PartitionMetric; 5] = [
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
    PartitionMetric {
        name: "panoptes_watermark_holder",
        help: "1 for a part that holds the position of a partition for longer than its timeout.",
        value: |partition| match &partition.held_by {
            Some(Holder::Part { is_overdue, .. }) => is_overdue.then_some(1.0),
            _ => None,
        },
    },
];

/// The gauges in Prometheus' text format.
pub fn render(partitions: &[PartitionStatus]) -> String {
    let mut text = String::new();
    for metric in CATALOGUE {
        write_help_line(&mut text, metric.name, None, None, metric.help);
        write_type_line(&mut text, metric.name, None, None, "gauge");
        for partition in partitions {
            if let Some(value) = (metric.value)(partition) {
                let labels = labels(metric.name, partition);
                writeln!(text, "{}{{{labels}}} {value}", metric.name)
                    .expect("a string takes all that is written");
            }
        }
    }
    text
}

fn labels(metric: &str, partition: &PartitionStatus) -> String {
    let mut labels = vec![
        ("topic", partition.topic.clone()),
        ("partition", partition.partition.to_string()),
    ];
    if let (
        "panoptes_watermark_holder",
        Some(Holder::Part {
            line,
            part_id,
            missing_views,
            ..
        }),
    ) = (metric, &partition.held_by)
    {
        labels.push(("line", line.clone()));
        labels.push(("part_id", part_id.clone()));
        labels.push(("missing_views", missing_views.join(",")));
    }
    let pairs: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}=\"{}\"", sanitize_label_value(value)))
        .collect();
    pairs.join(",")
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
    fn a_partition_whose_end_is_unknown_has_no_lag() {
        let text = render(&[PartitionStatus::at("cam", 0)]);
        assert!(!text.contains("panoptes_partition_lag_records{"), "{text}");
        assert!(
            text.contains("panoptes_partition_unfinished_records{"),
            "{text}"
        );
    }
}
