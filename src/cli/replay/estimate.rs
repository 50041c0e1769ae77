//! What a replay would be: records, parts, bytes, time.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use bytesize::ByteSize;

use super::archived;
use super::flags::ReplayArguments;
use crate::archive::Archive;
use crate::cli::bench::model::{pace, prepared_images};
use crate::config::Settings;
use crate::domain::Topic;
use crate::kafka::topic_reader::{
    CONNECT_TIMEOUT, ReadFrom, ReadUntil, TopicReader, TopicReaderSettings,
};
use crate::model::bundle::Bundle;
use crate::model::candle_model::CandleModel;
use crate::pipeline::bus_settings;
use crate::replay::Plan;

/// Of how many records of each partition the size is taken.
const SAMPLE: u32 = 8;
/// How long the broker may be silent while they are read.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the model is measured.
const MEASURED: Duration = Duration::from_secs(3);

/// Reads a few records of each topic and runs the model for a moment; says what the whole would be.
pub(super) fn estimate(
    settings: &Settings,
    arguments: &ReplayArguments,
    plan: &Plan,
    archive: Option<&Archive>,
) -> anyhow::Result<String> {
    let mut records = BTreeMap::<&Topic, i64>::new();
    for one in &plan.partitions {
        *records.entry(&one.partition.topic).or_default() += (one.end - one.start).max(0);
    }
    let mut bytes = 0.0;
    for (topic, count) in &records {
        let mean = match archive {
            Some(archive) => archived::mean_bytes(archive, topic),
            None => mean_bytes(settings, topic)?,
        };
        bytes += mean * *count as f64;
    }
    let all: i64 = records.values().sum();
    let parts = records.values().max().copied().unwrap_or(0);
    let images_per_second = images_per_second(settings)?;
    let by_model = all as f64 / images_per_second;
    let by_rate = arguments
        .rate
        .map_or(0.0, |rate| bytes / rate.as_u64().max(1) as f64);
    let seconds = Duration::from_secs(by_model.max(by_rate).ceil() as u64);
    let cut = plan.partitions.iter().filter(|one| one.is_cut).count();
    Ok(format!(
        "topics      {}\n\
         records     {all} at most: offsets between the ends, what transactions and compaction left out \
         included\n\
         parts       {parts} at most, where each topic has one view of a part\n\
         bytes       {}\n\
         model       {images_per_second:.1} images a second on this machine\n\
         time        {}{}\n\
         deleted     {cut} of {} partitions begin within the range, or may: what was before is {}\n",
        records.len(),
        ByteSize::b(bytes as u64),
        humantime::format_duration(seconds),
        if by_rate > by_model {
            ", by `--rate`"
        } else {
            ", by the model"
        },
        plan.partitions.len(),
        match archive {
            Some(_) => "not in the archive",
            None => "gone",
        },
    ))
}

/// Of the last records of each of its partitions.
fn mean_bytes(settings: &Settings, topic: &Topic) -> anyhow::Result<f64> {
    let mut reader = TopicReader::open(&TopicReaderSettings {
        bus: bus_settings(&settings.bus),
        topic: topic.clone(),
        from: ReadFrom::Last(SAMPLE),
        until: ReadUntil::EndOfTopic,
        connect_timeout: CONNECT_TIMEOUT,
    })?;
    let (mut count, mut bytes) = (0_usize, 0_usize);
    reader.read_to_end(PATIENCE, |record| {
        count += 1;
        bytes += record.size_bytes();
    })?;
    Ok(bytes as f64 / count.max(1) as f64)
}

fn images_per_second(settings: &Settings) -> anyhow::Result<f64> {
    let bundle = Bundle::load(&settings.model.path)?;
    let images = prepared_images(&bundle)?;
    let device = settings.model.device.0.first().context("no device")?;
    let (batch, precision) = (settings.model.max_batch, settings.model.precision);
    let mut model = CandleModel::with_precision(&bundle, &device.to_string(), precision, batch)?;
    Ok(pace(&mut model, &images, batch, MEASURED)?.rate)
}
