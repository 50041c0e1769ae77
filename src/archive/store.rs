//! Where an archive is: a folder, or a prefix in an S3-compatible store.
//!
//! Each object is written whole or not at all: a file is renamed to its name once its bytes are on the
//! disk, an object of S3 appears once its last part is there.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Once};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::buffered::BufWriter;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutPayload};
use url::Url;

use super::error::ArchiveError;
use super::folder_lock::FolderLock;

/// What an upload keeps in memory before it sends it: S3 takes at most 10,000 parts, none but the last
/// smaller than 5 MiB.
const PART_BYTES: usize = 8 * 1024 * 1024;
/// What a segment may be asked to hold: parts are left for a record that is larger, and for the index.
pub const MOST_SEGMENT_BYTES: u64 = 9_000 * PART_BYTES as u64;
/// Parts that may be on their way at once, of one upload.
const PARTS_IN_FLIGHT: usize = 2;
/// What one request for a part of an object brings: enough that the time until it is answered matters
/// little, and little enough for a slow line to bring it within the client's 30 s.
const RANGE_BYTES: u64 = 4 * 1024 * 1024;

/// Why a location is none.
#[derive(Debug, thiserror::Error)]
pub enum LocationError {
    /// It is no URL of a kind that is known.
    #[error("expected a folder, `file://` or `s3://bucket/prefix`, found `{0}`")]
    Unknown(String),
    /// An option of the store is unknown.
    #[error("expected an option of an S3 store, such as `aws_endpoint`, found `{0}`")]
    UnknownOption(String),
    /// The store cannot be made of its options.
    #[error("store `{location}` cannot be used: {source}")]
    Options {
        /// The location.
        location: String,
        /// The store's own words.
        source: object_store::Error,
    },
    /// The folder cannot be made or opened.
    #[error("folder `{location}` cannot be used: {source}")]
    Folder {
        /// The location.
        location: String,
        /// The system's words.
        source: io::Error,
    },
}

/// The place of an archive.
#[derive(Clone, Debug)]
pub struct ArchiveStore {
    store: Arc<dyn ObjectStore>,
    location: String,
    /// Where the files are, if they are files.
    folder: Option<PathBuf>,
}

impl ArchiveStore {
    /// The folder or `s3://bucket/prefix` at `location`; a folder that is missing is made. `options` are
    /// those of an S3 store, over the environment's `AWS_...`.
    ///
    /// # Errors
    /// When the location is of no known kind, or an option is refused.
    pub fn at(location: &str, options: &[(String, String)]) -> Result<Self, LocationError> {
        if let Some(path) = folder_at(location)? {
            let made = fs::create_dir_all(path);
            made.map_err(|source| LocationError::Folder {
                location: location.to_owned(),
                source,
            })?;
        }
        Self::existing(location, options)
    }

    /// As [`Self::at`], but a folder must be there.
    ///
    /// # Errors
    /// As [`Self::at`].
    pub fn existing(location: &str, options: &[(String, String)]) -> Result<Self, LocationError> {
        match folder_at(location)? {
            Some(path) => Self::folder(&path, location),
            None => Self::s3(&url_of(location)?, options),
        }
    }

    /// A store that is there already; `location` names it in messages.
    pub fn new(store: Arc<dyn ObjectStore>, location: &str) -> Self {
        Self {
            store,
            location: location.to_owned(),
            folder: None,
        }
    }

    fn folder(path: &FilePath, location: &str) -> Result<Self, LocationError> {
        let store = LocalFileSystem::new_with_prefix(path);
        let store = store.map_err(|source| LocationError::Options {
            location: location.to_owned(),
            source,
        })?;
        Ok(Self {
            folder: Some(path.to_owned()),
            ..Self::new(Arc::new(store.with_fsync(true)), location)
        })
    }

    fn s3(url: &Url, options: &[(String, String)]) -> Result<Self, LocationError> {
        use_ring();
        let refused = |source| LocationError::Options {
            location: url.to_string(),
            source,
        };
        let mut builder = AmazonS3Builder::from_env().with_url(url.as_str());
        for (name, value) in options {
            let key: AmazonS3ConfigKey = name
                .to_ascii_lowercase()
                .parse()
                .map_err(|_| LocationError::UnknownOption(name.clone()))?;
            builder = builder.with_config(key, value);
        }
        let store = builder.build().map_err(refused)?;
        let prefix = Path::from_url_path(url.path()).map_err(|error| refused(error.into()))?;
        let store = PrefixStore::new(store, prefix);
        Ok(Self::new(Arc::new(store), url.as_str()))
    }

    /// The location as it was given.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// How messages name an object.
    pub(super) fn full_name(&self, object: &str) -> String {
        format!("{}/{object}", self.location.trim_end_matches('/'))
    }

    /// The object, if it is there.
    pub(super) async fn find(&self, object: &str) -> Result<Option<Bytes>, ArchiveError> {
        match self.store.get(&Path::from(object)).await {
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("read", object)(error)),
            Ok(found) => {
                let bytes = found.bytes().await;
                bytes.map(Some).map_err(self.failed("read", object))
            }
        }
    }

    /// The object, which must be there.
    pub(super) async fn read(&self, object: &str) -> Result<Bytes, ArchiveError> {
        let found = self.store.get(&Path::from(object)).await;
        let found = found.map_err(self.failed("read", object))?;
        found.bytes().await.map_err(self.failed("read", object))
    }

    /// Some of an object's bytes.
    pub(super) async fn read_range(
        &self,
        object: &str,
        range: Range<u64>,
    ) -> Result<Bytes, ArchiveError> {
        if range.is_empty() {
            return Ok(Bytes::new()); // stores refuse to read nothing
        }
        let read = self.store.get_range(&Path::from(object), range).await;
        read.map_err(self.failed("read", object))
    }

    /// An object's bytes from `start` on, piece by piece. A piece is asked for when it is awaited, and comes
    /// whole: however slowly they are taken, no request stays open, which a client and a store bear for
    /// seconds only.
    pub(super) async fn stream(
        &self,
        object: &str,
        start: u64,
    ) -> Result<ByteStream, ArchiveError> {
        let found = self.store.head(&Path::from(object)).await;
        let ranges = Ranges {
            store: self.clone(),
            object: object.to_owned(),
            found: found.map_err(self.failed("read", object))?,
            position: start,
        };
        Ok(stream::try_unfold(ranges, Ranges::next).boxed())
    }

    /// Writes a small object.
    pub(super) async fn write(&self, object: &str, bytes: Vec<u8>) -> Result<(), ArchiveError> {
        let written = self.store.put(&Path::from(object), bytes.into()).await;
        written.map(drop).map_err(self.failed("write", object))
    }

    /// Writes a small object that was not there: of several who do so in a store of objects one succeeds. In
    /// a folder that is what the lock is for.
    pub(super) async fn create(&self, object: &str, bytes: Vec<u8>) -> Result<(), ArchiveError> {
        if self.folder.is_some() {
            return self.write(object, bytes).await; // not all file systems can do more
        }
        let (path, bytes) = (Path::from(object), PutPayload::from(bytes));
        let mode = PutMode::Create.into();
        let mut created = self.store.put_opts(&path, bytes.clone(), mode).await;
        if let Err(object_store::Error::NotImplemented { .. }) = created {
            created = self.store.put(&path, bytes).await; // `aws_conditional_put=disabled`
        }
        match created {
            Err(object_store::Error::AlreadyExists { .. }) => Err(ArchiveError::BegunMeanwhile {
                object: self.full_name(object),
            }),
            created => created.map(drop).map_err(self.failed("write", object)),
        }
    }

    /// Keeps other exports out, as long as what is returned lives; none where there are no locks.
    pub(super) fn lock(&self) -> Result<Option<FolderLock>, ArchiveError> {
        let lock = self.folder.as_deref().map(FolderLock::take);
        lock.transpose().map(Option::flatten)
    }

    /// Begins to write a large one, which appears when it is shut down.
    pub(super) fn upload(&self, object: &str) -> BufWriter {
        BufWriter::with_capacity(Arc::clone(&self.store), Path::from(object), PART_BYTES)
            .with_max_concurrency(PARTS_IN_FLIGHT)
    }

    /// The names of all objects in a folder, in order.
    pub(super) async fn list(&self, folder: &str) -> Result<Vec<String>, ArchiveError> {
        let listed = self.store.list(Some(&Path::from(folder)));
        let names = listed.map_ok(|object| object.location.to_string());
        let mut names: Vec<String> = names
            .try_collect()
            .await
            .map_err(self.failed("list", folder))?;
        names.sort_unstable();
        Ok(names)
    }

    /// Removes what kills have left of files that were not whole: `<name>#<number>`. Stores of objects
    /// show none.
    pub(super) fn remove_unfinished(&self, folder: &str) -> io::Result<()> {
        let Some(root) = &self.folder else {
            return Ok(());
        };
        let entries = match fs::read_dir(root.join(folder)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.rsplit_once('#'));
            if number.is_some_and(|(_, number)| number.parse::<u32>().is_ok()) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Any object that is there.
    pub(super) async fn any_object(&self) -> Result<Option<String>, ArchiveError> {
        let first = self.store.list(None).next().await.transpose();
        let first = first.map_err(self.failed("list", ""))?;
        Ok(first.map(|object| object.location.to_string()))
    }

    pub(super) fn failed(
        &self,
        what: &'static str,
        object: &str,
    ) -> impl Fn(object_store::Error) -> ArchiveError + Send + 'static {
        let object = self.full_name(object);
        move |source| ArchiveError::Store {
            what,
            object: object.clone(),
            source,
        }
    }
}

fn url_of(location: &str) -> Result<Url, LocationError> {
    Url::parse(location).map_err(|_| LocationError::Unknown(location.to_owned()))
}

/// The folder that a location names, unless it is a store of objects.
fn folder_at(location: &str) -> Result<Option<PathBuf>, LocationError> {
    let Some((scheme, _)) = location.split_once("://") else {
        return Ok(Some(PathBuf::from(location)));
    };
    let unknown = |()| LocationError::Unknown(location.to_owned());
    match scheme {
        "file" => url_of(location)?.to_file_path().map(Some).map_err(unknown),
        "s3" => Ok(None),
        _ => Err(unknown(())),
    }
}

/// Bytes as they come.
pub(super) type ByteStream = stream::BoxStream<'static, Result<Bytes, ArchiveError>>;

/// An object that is read range by range.
struct Ranges {
    store: ArchiveStore,
    object: String,
    /// As it was when its reading began.
    found: ObjectMeta,
    position: u64,
}

impl Ranges {
    /// The next range's bytes; none behind the last one.
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, ArchiveError> {
        let range = self.position..self.found.size.min(self.position + RANGE_BYTES);
        if range.is_empty() {
            return Ok(None);
        }
        self.position = range.end;
        let bytes = self.read(range).await;
        bytes.map(|bytes| Some((bytes, self)))
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes, ArchiveError> {
        let tag = self.found.e_tag.clone();
        let options = GetOptions {
            range: Some(range.into()),
            if_unmodified_since: tag.is_none().then_some(self.found.last_modified),
            if_match: tag,
            ..GetOptions::default()
        };
        let failed = |error| match error {
            object_store::Error::Precondition { .. } => ArchiveError::Changed {
                object: self.store.full_name(&self.object),
            },
            error => self.store.failed("read", &self.object)(error),
        };
        let path = Path::from(self.object.as_str());
        let found = self.store.store.get_opts(&path, options).await;
        let found = found.map_err(failed)?;
        found.bytes().await.map_err(failed)
    }
}

/// The S3 client takes whatever provider of cryptography the process has, and fails without one.
fn use_ring() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Fails where there is one already, which then is as good.
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
    });
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
