//! `panoptes model fetch`: from a hub, and from none.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Output;
use std::thread;

use candle_core::{DType, Device, Tensor};
use tempfile::TempDir;

use crate::support::process::binary;

/// The commit that the hub says its files are of.
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A hub of one file, `model.safetensors`, as hf-hub asks for it: by ranges.
fn serve(file: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    // Ends with the test's process.
    thread::spawn(move || {
        for stream in listener.incoming() {
            answer(stream.unwrap(), &file);
        }
    });
    endpoint
}

fn answer(mut stream: TcpStream, file: &[u8]) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let request = lines.next().unwrap().unwrap();
    let mut range = None;
    for line in lines
        .map(Result::unwrap)
        .take_while(|line| !line.is_empty())
    {
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("range")
        {
            range = value.strip_prefix("bytes=").map(str::to_owned);
        }
    }
    let wanted = "GET /facebook/dinov2-with-registers-small/resolve/main/model.safetensors ";
    if !request.starts_with(wanted) {
        let nothing = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        stream.write_all(nothing).unwrap();
        return;
    }
    let range = range.unwrap();
    let (first, last) = range.split_once('-').unwrap();
    let first: usize = first.parse().unwrap();
    let last = last.parse().unwrap_or(file.len() - 1);
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nETag: \"a-tag\"\r\nX-Repo-Commit: {COMMIT}\r\n\
         Content-Range: bytes {first}-{last}/{total}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n",
        total = file.len(),
        length = last + 1 - first
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&file[first..=last]).unwrap();
}

/// An encoder with the names of the hub's files, in half precision and all zeros.
fn encoder(width: usize, depth: usize) -> Vec<u8> {
    let mut tensors: HashMap<String, Tensor> = HashMap::new();
    let mut add = |name: String, shape: &[usize]| {
        let tensor = Tensor::zeros(shape, DType::F16, &Device::Cpu).unwrap();
        tensors.insert(name, tensor);
    };
    add("embeddings.cls_token".to_owned(), &[1, 1, width]);
    add("embeddings.mask_token".to_owned(), &[1, width]);
    add("embeddings.register_tokens".to_owned(), &[1, 4, width]);
    add(
        "embeddings.position_embeddings".to_owned(),
        &[1, 37 * 37 + 1, width],
    );
    let patches = "embeddings.patch_embeddings.projection";
    add(format!("{patches}.weight"), &[width, 3, 14, 14]);
    add(format!("{patches}.bias"), &[width]);
    for block in 0..depth {
        let block = format!("encoder.layer.{block}");
        for (name, rows, columns) in [
            ("attention.attention.query", width, width),
            ("attention.attention.key", width, width),
            ("attention.attention.value", width, width),
            ("attention.output.dense", width, width),
            ("mlp.fc1", 4 * width, width),
            ("mlp.fc2", width, 4 * width),
        ] {
            add(format!("{block}.{name}.weight"), &[rows, columns]);
            add(format!("{block}.{name}.bias"), &[rows]);
        }
        for name in [
            "norm1.weight",
            "norm1.bias",
            "norm2.weight",
            "norm2.bias",
            "layer_scale1.lambda1",
            "layer_scale2.lambda1",
        ] {
            add(format!("{block}.{name}"), &[width]);
        }
    }
    safetensors::serialize(tensors, None).unwrap()
}

fn fetch(home: &Path, endpoint: &str, arguments: &[&str]) -> Output {
    binary()
        .args(["model", "fetch", "small"])
        .args(arguments)
        .env("HF_HOME", home)
        .env("HF_ENDPOINT", endpoint)
        .env("NO_PROXY", "127.0.0.1")
        .output()
        .unwrap()
}

#[test]
fn an_encoder_comes_from_the_hub_and_goes_to_a_folder() {
    let folder = TempDir::new().unwrap();
    let file = encoder(384, 12);
    let endpoint = serve(file.clone());
    let goal = folder.path().join("encoders");
    let output = fetch(
        folder.path(),
        &endpoint,
        &["--output", goal.to_str().unwrap()],
    );
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    let placed = goal.join("dinov2-with-registers-small.safetensors");
    assert!(std::fs::read(&placed).unwrap() == file);
    assert!(printed.contains("patch 14, width 384, 12 blocks, 6 heads, 4 registers"));
    let next = format!("panoptes train --encoder {}", placed.display());
    assert!(printed.contains(&next), "{printed}");
    let hash = printed.lines().find_map(|line| line.strip_prefix("sha256"));
    assert_eq!(hash.unwrap().trim().len(), 64);
}

#[test]
fn what_the_hub_has_is_checked_before_use() {
    let folder = TempDir::new().unwrap();
    let output = fetch(folder.path(), &serve(encoder(64, 2)), &[]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        told.contains("`(14, 384, 12, 4)`, found `(14, 64, 2, 4)`"),
        "{told}"
    );
}

#[test]
fn offline_it_says_how_to_place_the_file_by_hand() {
    let folder = TempDir::new().unwrap();
    // A port that nobody listens on any more.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let output = fetch(folder.path(), &endpoint, &[]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    let path = "facebook/dinov2-with-registers-small/resolve/main/model.safetensors";
    for expected in [
        &format!("{endpoint}/{path}"),
        "dinov2-with-registers-small.safetensors",
        "panoptes train --encoder",
    ] {
        assert!(told.contains(expected), "{expected} in {told}");
    }
}
