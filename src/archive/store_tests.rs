use object_store::memory::InMemory;

use super::*;

fn error_at(location: &str, options: &[(String, String)]) -> String {
    ArchiveStore::at(location, options).unwrap_err().to_string()
}

#[test]
fn what_is_no_place_for_an_archive_is_named() {
    let error = error_at("gopher://bucket/plant", &[]);
    assert!(error.ends_with("found `gopher://bucket/plant`"), "{error}");
    let options = [("aws_endpiont".to_owned(), "x".to_owned())];
    let error = error_at("s3://bucket/plant", &options);
    assert!(error.ends_with("found `aws_endpiont`"), "{error}");
    let error = error_at("/proc/none/here", &[]);
    assert!(error.starts_with("folder `/proc/none/here`"), "{error}");
}

#[tokio::test]
async fn a_folder_is_made_where_it_may_be_and_its_objects_are_listed_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let location = folder.path().join("new/archive");
    ArchiveStore::existing(location.to_str().unwrap(), &[]).unwrap_err();
    assert!(!location.exists());
    let store = ArchiveStore::at(location.to_str().unwrap(), &[]).unwrap();
    assert_eq!(store.any_object().await.unwrap(), None);
    for name in ["cam/00000/b.json", "cam/00000/a.json", "cam/00001/c.json"] {
        store.write(name, b"{}".to_vec()).await.unwrap();
    }
    let listed = store.list("cam/00000").await.unwrap();
    assert_eq!(listed, ["cam/00000/a.json", "cam/00000/b.json"]);
    assert_eq!(store.find("cam/00000/d.json").await.unwrap(), None);
    let url = format!("file://{}", location.display());
    let again = ArchiveStore::at(&url, &[]).unwrap();
    assert_eq!(again.read("cam/00001/c.json").await.unwrap(), "{}");
}

/// A store in memory and one in a folder, which is gone with what is returned besides.
fn stores() -> (tempfile::TempDir, [ArchiveStore; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let on_disk = ArchiveStore::at(folder.path().to_str().unwrap(), &[]).unwrap();
    let in_memory = ArchiveStore::new(Arc::new(InMemory::new()), "memory");
    (folder, [in_memory, on_disk])
}

fn bytes(count: u64) -> Vec<u8> {
    (0..count).map(|at| (at % 251) as u8).collect()
}

#[tokio::test]
async fn an_object_is_read_whole_whatever_its_size_and_from_wherever() {
    let (_folder, stores) = stores();
    for store in stores {
        for size in [
            0,
            1,
            RANGE_BYTES - 1,
            RANGE_BYTES,
            RANGE_BYTES + 1,
            3 * RANGE_BYTES,
        ] {
            let whole = bytes(size);
            store.write("a.tar", whole.clone()).await.unwrap();
            for start in [0, size / 2, size.saturating_sub(1), size, size + 1] {
                let pieces = store.stream("a.tar", start).await.unwrap();
                let pieces: Vec<Bytes> = pieces.try_collect().await.unwrap();
                let from = whole.len().min(usize::try_from(start).unwrap());
                // Not by `assert_eq`, which would print megabytes.
                assert!(pieces.concat() == whole[from..], "{size} from {start}");
                let count = size.saturating_sub(start).div_ceil(RANGE_BYTES);
                assert_eq!(pieces.len() as u64, count, "{size} from {start}");
            }
        }
    }
}

#[tokio::test]
async fn nothing_is_asked_for_before_it_is_awaited_and_an_object_that_has_changed_is_named() {
    let (_folder, stores) = stores();
    for store in stores {
        let was = bytes(2 * RANGE_BYTES);
        store.write("a.tar", was.clone()).await.unwrap();
        let mut unread = store.stream("a.tar", 0).await.unwrap();
        let mut half_read = store.stream("a.tar", 0).await.unwrap();
        half_read.try_next().await.unwrap().unwrap();
        let changed = [&was[1..], &[0]].concat();
        store.write("a.tar", changed).await.unwrap();
        let name = store.full_name("a.tar");
        let expected = format!("`{name}` has changed while it was read");
        for stream in [&mut unread, &mut half_read] {
            let error = stream.try_next().await.unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }
}

#[tokio::test]
async fn of_several_who_begin_an_archive_of_objects_one_succeeds() {
    let (_folder, [store, on_disk]) = stores();
    store
        .create("archive.json", b"first".to_vec())
        .await
        .unwrap();
    let second = store.create("archive.json", b"second".to_vec()).await;
    let error = second.unwrap_err().to_string();
    assert!(
        error.starts_with("expected no `memory/archive.json` yet"),
        "{error}"
    );
    assert_eq!(store.read("archive.json").await.unwrap(), "first");
    on_disk
        .create("archive.json", b"{}".to_vec())
        .await
        .unwrap();
    assert_eq!(on_disk.read("archive.json").await.unwrap(), "{}");
}

#[test]
fn only_files_that_were_not_whole_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let store = ArchiveStore::at(folder.path().to_str().unwrap(), &[]).unwrap();
    store.remove_unfinished("cam/00000").unwrap();
    let partition = folder.path().join("cam/00000");
    fs::create_dir_all(&partition).unwrap();
    for name in ["a.tar", "a.tar#1", "b.json#12", "c#d"] {
        fs::write(partition.join(name), "").unwrap();
    }
    store.remove_unfinished("cam/00000").unwrap();
    let left = fs::read_dir(&partition).unwrap();
    let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["a.tar", "c#d"]);
}
