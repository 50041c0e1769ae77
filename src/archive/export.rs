//! Writes a range of camera topics to an archive, and goes on where an export that was killed ended.
//!
//! The range is taken when the archive is begun and kept in its manifest: running the same command again
//! reads the same offsets, whatever was produced meanwhile. One export may write to an archive at a time; in a
//! folder a second one is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::{StreamExt as _, stream};
use tokio::task::spawn_blocking;

use super::error::ArchiveError;
use super::folder_lock::FolderLock;
use super::layout::MANIFEST;
use super::partition_export::PartitionExport;
use super::plan::plan;
use super::progress::ExportProgress;
use super::reader::{PartitionArchive, find_manifest};
use super::resume::{OnBus, expect_rest_on_bus, expect_same_request};
use super::store::ArchiveStore;
use crate::domain::{Timestamp, Topic, TopicPartition};
use crate::kafka::client::BusSettings;
use crate::kafka::offset_survey::OffsetSurvey;
use crate::kafka::topic_reader::CONNECT_TIMEOUT;
use crate::schema::archive::{ArchiveManifest, RequestedRange};

/// What to read and how to cut it.
#[derive(Clone, Debug)]
pub struct ExportSettings {
    /// How to reach the brokers.
    pub bus: BusSettings,
    /// Topics by name, or one regular expression that begins with `^`.
    pub subscription: Vec<String>,
    /// What of them.
    pub range: RequestedRange,
    /// A segment ends before it has more bytes than this, unless one record alone has more; not 0, and no
    /// more than [`MOST_SEGMENT_BYTES`](super::MOST_SEGMENT_BYTES).
    pub segment_bytes: u64,
    /// Partitions that are read at the same time.
    pub parallel: usize,
}

/// How an export ended.
#[derive(Clone, Debug)]
pub struct Exported {
    /// What the archive holds.
    pub manifest: ArchiveManifest,
    /// Whether it was complete before.
    pub was_complete: bool,
}

/// What would be read. Blocking.
///
/// # Errors
/// When the brokers do not tell, or a topic does not exist.
pub fn survey(settings: &ExportSettings, now: Timestamp) -> Result<ArchiveManifest, ArchiveError> {
    let survey = OffsetSurvey::connect(&settings.bus, CONNECT_TIMEOUT)?;
    plan(&survey, settings, now)
}

/// Reads the range into the archive.
///
/// # Errors
/// When the archive is another one's, or something cannot be read or written. What is whole by then
/// stays, and the same export goes on behind it.
pub async fn export(
    store: &ArchiveStore,
    settings: &ExportSettings,
    now: impl Fn() -> Timestamp,
    progress: &Arc<ExportProgress>,
) -> Result<Exported, ArchiveError> {
    if let Some(manifest) = find_complete(store, settings).await? {
        progress.plan(&manifest);
        return Ok(Exported {
            manifest,
            was_complete: true,
        });
    }
    let shared = Arc::new(SharedExport {
        _lock: store.lock()?,
        store: store.clone(),
        settings: settings.clone(),
        progress: Arc::clone(progress),
        stop: AtomicBool::new(false),
    });
    let mut manifest = begin(store, settings, now()).await?;
    progress.plan(&manifest);
    read_partitions(&shared, &mut manifest).await?;
    manifest.completed_at = Some(now().0);
    store.write(MANIFEST, manifest.to_bytes()).await?;
    Ok(Exported {
        manifest,
        was_complete: false,
    })
}

/// What the exports of all partitions share.
pub(super) struct SharedExport {
    /// No other export is at the archive as long as one of these threads may be.
    _lock: Option<FolderLock>,
    pub(super) store: ArchiveStore,
    pub(super) settings: ExportSettings,
    pub(super) progress: Arc<ExportProgress>,
    pub(super) stop: AtomicBool,
}

/// The manifest of an archive to which nothing is left to do. It may lie where nothing can be written any
/// more, not even a lock.
async fn find_complete(
    store: &ArchiveStore,
    settings: &ExportSettings,
) -> Result<Option<ArchiveManifest>, ArchiveError> {
    let found = find_begun(store, settings).await?;
    Ok(found.filter(|found| found.completed_at.is_some()))
}

/// The manifest of the archive that is there, if this export began it; else of a new one, once that is
/// written.
async fn begin(
    store: &ArchiveStore,
    settings: &ExportSettings,
    now: Timestamp,
) -> Result<ArchiveManifest, ArchiveError> {
    let asked = settings.clone();
    if let Some(found) = find_begun(store, settings).await? {
        if found.completed_at.is_none() {
            let bus = in_thread(move || OnBus::ask(&asked)).await?;
            expect_rest_on_bus(store, &found, &bus).await?;
        }
        return Ok(found);
    }
    let planned = in_thread(move || survey(&asked, now)).await?;
    store.create(MANIFEST, planned.to_bytes()).await?;
    Ok(planned)
}

/// The manifest of the archive that is there, which must be of this export; none where there is nothing.
async fn find_begun(
    store: &ArchiveStore,
    settings: &ExportSettings,
) -> Result<Option<ArchiveManifest>, ArchiveError> {
    if let Some(found) = find_manifest(store).await? {
        expect_same_request(store, settings, &found)?;
        return Ok(Some(found));
    }
    match store.any_object().await? {
        None => Ok(None),
        Some(found) => {
            let location = store.location().to_owned();
            Err(ArchiveError::Occupied { location, found })
        }
    }
}

/// Waits for what blocks.
async fn in_thread<T: Send + 'static>(
    run: impl FnOnce() -> Result<T, ArchiveError> + Send + 'static,
) -> Result<T, ArchiveError> {
    let outcome = spawn_blocking(run).await;
    let outcome = outcome.map_err(|error| ArchiveError::Panicked(error.to_string()));
    outcome.flatten()
}

/// Reads all partitions, some at a time. When one fails the others end, too.
async fn read_partitions(
    shared: &Arc<SharedExport>,
    manifest: &mut ArchiveManifest,
) -> Result<(), ArchiveError> {
    let partitions = manifest.topics.iter_mut().flat_map(|topic| {
        let name = Topic::from(topic.topic.as_str());
        let partitions = topic.partitions.iter_mut();
        partitions.map(move |range| (name.clone(), range))
    });
    let runs = partitions.map(|(topic, range)| {
        let partition = TopicPartition {
            topic,
            partition: range.partition,
        };
        let archive = PartitionArchive::new(&shared.store, &partition, *range);
        let export = PartitionExport::new(Arc::clone(shared), archive);
        async move {
            let outcome = in_thread(move || export.run()).await;
            outcome.map(|totals| range.totals = Some(totals))
        }
    });
    let parallel = shared.settings.parallel.max(1);
    let mut runs = stream::iter(runs).buffer_unordered(parallel);
    let mut first_error = None;
    while let Some(outcome) = runs.next().await {
        if let Err(error) = outcome {
            shared.stop.store(true, Ordering::Relaxed);
            first_error.get_or_insert(error);
        }
    }
    first_error.map_or(Ok(()), Err)
}
