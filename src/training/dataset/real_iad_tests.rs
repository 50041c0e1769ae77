use serde_json::{Value, json};

use super::super::testing::{outline, source, write_level, write_text};
use super::*;

/// An entry of the table; `prefix` is what its paths begin with.
fn entry(prefix: &str, kind: &str, number: usize, view: usize, has_mask: bool) -> Value {
    let (folder, code) = match kind {
        "OK" => (format!("{prefix}OK/S{number:04}"), "OK".to_owned()),
        _ => (
            format!("{prefix}NG/{kind}/S{number:04}"),
            format!("NG_{kind}"),
        ),
    };
    // Bad samples have two underscores behind the class.
    let gap = if kind == "OK" { "_" } else { "__" };
    let name = format!("mint{gap}{number:04}_{code}_C{view}_20231021130235");
    json!({
        "category": "mint",
        "anomaly_class": kind,
        "image_path": format!("{folder}/{name}.jpg"),
        "mask_path": has_mask.then(|| format!("{folder}/{name}.png")),
    })
}

fn views(prefix: &str, kind: &str, number: usize, masks: &[usize]) -> Vec<Value> {
    (1..=5)
        .map(|view| entry(prefix, kind, number, view, masks.contains(&view)))
        .collect()
}

/// A training sample, and in the test split a good one and a bad one that shows in two views.
fn table(prefix: &str, meta_prefix: &str) -> Value {
    let test = [views(prefix, "OK", 2, &[]), views(prefix, "BX", 1, &[1, 3])].concat();
    json!({
        "meta": {"prefix": meta_prefix, "normal_class": "OK"},
        "train": views(prefix, "OK", 1, &[]),
        "test": test,
    })
}

/// Writes the table, and all its images below `images`.
fn write(root: &Path, table: &Value, images: &str) {
    write_text(&root.join("realiad_jsons/mint.json"), &table.to_string());
    std::fs::create_dir_all(root.join("realiad_1024/mint")).unwrap();
    for split in ["train", "test"] {
        for entry in table[split].as_array().unwrap() {
            for key in ["image_path", "mask_path"] {
                if let Some(path) = entry[key].as_str() {
                    write_level(&root.join("realiad_1024").join(images).join(path), 9);
                }
            }
        }
    }
}

fn refused(table: &Value, split: Split) -> String {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), table, "mint");
    list(folder.path(), split).unwrap_err().to_string()
}

const TRAIN: [&str; 1] = ["mint/OK-S0001: C1 C2 C3 C4 C5"];
const TEST: [&str; 2] = [
    "mint/NG-BX-S0001: C1! C2 C3! C4 C5",
    "mint/OK-S0002: C1 C2 C3 C4 C5",
];

#[test]
fn images_are_found_by_the_prefix_or_by_the_class() {
    // Paths below the table's prefix, below the class's folder, and with the class in them.
    for (prefix, meta_prefix, images) in [
        ("", "mint/", "mint"),
        ("", "shots/mint", "shots/mint"),
        ("", "elsewhere", "mint"),
        ("", "", "mint"),
        ("mint/", "", ""),
    ] {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &table(prefix, meta_prefix), images);
        let mut source = source(folder.path());
        let listing = source.list().unwrap();
        assert_eq!(
            (listing.layout, listing.warnings),
            (Layout::RealIad, vec![])
        );
        assert_eq!(outline(&listing.parts), TRAIN, "{images}");
        source.split = Some(Split::Test);
        let parts = source.list().unwrap().parts;
        assert_eq!(outline(&parts), TEST, "{images}");
        let files = parts.iter().flat_map(|part| &part.views);
        for file in files.flat_map(|view| view.mask.iter().chain([&view.image])) {
            assert!(file.is_file(), "{}", file.display());
        }
    }
}

#[test]
fn tables_are_found_in_the_inner_folder_too() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &table("", "mint/"), "mint");
    let (outer, inner) = (
        "realiad_jsons/mint.json",
        "realiad_jsons/realiad_jsons/mint.json",
    );
    write_text(&folder.path().join(inner), &table("", "mint/").to_string());
    std::fs::remove_file(folder.path().join(outer)).unwrap();
    let parts = list(folder.path(), Split::Train).unwrap().parts;
    assert_eq!(outline(&parts), TRAIN);
}

#[test]
fn a_view_is_normal_without_a_mask_or_of_the_normal_class() {
    let folder = tempfile::tempdir().unwrap();
    let mut table = table("", "mint/");
    // A defective sample's view without a mask, and a normal view that has an (empty) one.
    table["test"] = json!([
        entry("", "BX", 7, 1, false),
        entry("", "BX", 7, 2, true),
        entry("", "OK", 8, 1, true),
    ]);
    write(folder.path(), &table, "mint");
    let parts = list(folder.path(), Split::Test).unwrap().parts;
    assert_eq!(
        outline(&parts),
        ["mint/NG-BX-S0007: C1 C2!", "mint/OK-S0008: C1"]
    );
}

#[test]
fn a_sample_with_four_views_is_a_part_of_four_views() {
    let folder = tempfile::tempdir().unwrap();
    let mut table = table("", "mint/");
    table["train"].as_array_mut().unwrap().remove(3);
    write(folder.path(), &table, "mint");
    let parts = list(folder.path(), Split::Train).unwrap().parts;
    assert_eq!(outline(&parts), ["mint/OK-S0001: C1 C2 C3 C5"]);
}

#[test]
fn folder_and_name_must_tell_the_same_sample() {
    let mut moved = table("", "mint/");
    let path = moved["train"][2]["image_path"].as_str().unwrap();
    moved["train"][2]["image_path"] = json!(path.replace("mint_0001", "mint_0003"));
    let error = refused(&moved, Split::Train);
    assert!(error.contains("entry `train[2]`"), "{error}");
    assert!(
        error.contains("`mint_0001_OK`, found one of `mint_0003_OK`"),
        "{error}"
    );

    let mut split = table("", "mint/");
    let path = split["train"][4]["image_path"].as_str().unwrap();
    split["train"][4]["image_path"] = json!(path.replace("S0001", "S0009"));
    let error = refused(&split, Split::Train);
    assert!(
        error.contains("in `OK/S0001`, found one in `OK/S0009`"),
        "{error}"
    );

    let mut twice = table("", "mint/");
    twice["train"][1] = twice["train"][0].clone();
    let error = refused(&twice, Split::Train);
    assert!(error.contains("one image of view `C1`"), "{error}");
}

#[test]
fn a_path_that_leaves_the_folder_is_refused() {
    for outside in [
        "../../secret/mint_0001_OK_C1_0.jpg",
        "/etc/mint_0001_OK_C1_0.jpg",
    ] {
        let mut table = table("", "mint/");
        write(tempfile::tempdir().unwrap().path(), &table, "mint");
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &table, "mint");
        table["train"][0]["image_path"] = json!(outside);
        let text = table.to_string();
        write_text(&folder.path().join("realiad_jsons/mint.json"), &text);
        let error = list(folder.path(), Split::Train).unwrap_err().to_string();
        assert!(error.contains("entry `train[0]`"), "{error}");
        assert!(error.contains(&format!("found `{outside}`")), "{error}");
    }
    let mut prefixed = table("", "../elsewhere");
    let error = refused(&prefixed, Split::Train);
    assert!(error.contains("`meta.prefix`"), "{error}");
    prefixed["meta"]["prefix"] = json!("mint/");
    prefixed["test"][5]["mask_path"] = json!("../mask.png");
    let error = refused(&prefixed, Split::Test);
    assert!(
        error.contains("entry `test[5]`") && error.contains("`../mask.png`"),
        "{error}"
    );
}

#[test]
fn what_a_table_lacks_is_named() {
    let mut table = table("", "mint/");
    table["train"][0]
        .as_object_mut()
        .unwrap()
        .remove("anomaly_class");
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("realiad_1024/mint")).unwrap();
    write_text(
        &folder.path().join("realiad_jsons/mint.json"),
        &table.to_string(),
    );
    let error = list(folder.path(), Split::Train).unwrap_err().to_string();
    assert!(error.contains("mint.json"), "{error}");
    assert!(
        error.contains("train[0]") && error.contains("anomaly_class"),
        "{error}"
    );
}

#[test]
fn a_class_without_its_folder_is_left_out_and_told() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &table("", "mint/"), "mint");
    let text = table("", "usb/").to_string();
    write_text(&folder.path().join("realiad_jsons/usb.json"), &text);
    let listing = list(folder.path(), Split::Train).unwrap();
    assert_eq!(outline(&listing.parts), TRAIN);
    assert!(listing.warnings[0].contains("class `usb` is left out"));
    std::fs::remove_dir_all(folder.path().join("realiad_1024/mint/OK")).unwrap();
    std::fs::remove_dir_all(folder.path().join("realiad_1024/mint/NG")).unwrap();
    let error = list(folder.path(), Split::Train).unwrap_err().to_string();
    assert!(
        error.contains("expected its images below one of"),
        "{error}"
    );
}

#[test]
fn a_table_that_is_named_after_another_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &table("", "mint/"), "mint");
    let odd = folder.path().join("realiad_jsons/...json");
    write_text(&odd, &table("", "mint/").to_string());
    let error = list(folder.path(), Split::Train).unwrap_err().to_string();
    assert!(
        error.contains("...json") && error.ends_with("found `..`"),
        "{error}"
    );
}
