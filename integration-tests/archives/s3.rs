//! An archive in an S3-compatible store: a server of others' making, in memory, over HTTP.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

use super::{Export, await_that, errors, outcome_of, send_parts};
use crate::kafka::{Broker, children, free_port, repository};
use crate::support::line::Line;
use crate::support::process::{binary, log_folder, write_config};
use crate::support::shots::Shot;

/// Fetches the server, if it is not there: one test does, and the others wait for it.
fn fetch() {
    static FETCHED: LazyLock<bool> = LazyLock::new(|| {
        let fetched = Command::new(repository().join("scripts/s3-fetch")).status();
        fetched.unwrap().success()
    });
    assert!(*FETCHED, "`scripts/s3-fetch` failed");
}

/// The server, with a bucket `plant`.
struct S3 {
    port: u16,
    child: Child,
}

impl S3 {
    fn start() -> Self {
        fetch();
        let port = free_port();
        let mut command = children::bound(repository().join("target/s3/bin/moto_server"));
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        let log = std::fs::File::create(log_folder().join(format!("s3-{port}.log"))).unwrap();
        command.stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let child = children::spawn(command);
        let server = Self { port, child };
        await_that("an S3 server", || server.ask("PUT", "/plant").is_some());
        server
    }

    /// The body of the answer; none where nobody answers or the answer is no.
    fn ask(&self, method: &str, path: &str) -> Option<Vec<u8>> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        // The server wants to know who asks, and does not verify it.
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=tests/20260101/us-east-1/s3/aws4_request, \
             SignedHeaders=host, Signature=00\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let end = answer.windows(4).position(|part| part == b"\r\n\r\n")?;
        let status = answer.split(|byte| *byte == b' ').nth(1)?;
        status.starts_with(b"2").then(|| answer[end + 4..].to_vec())
    }

    fn panoptes(&self, arguments: &[&str]) -> std::process::Output {
        let mut command = binary();
        command.args(arguments).stdin(Stdio::null());
        command.current_dir(log_folder());
        command
            .env("AWS_ACCESS_KEY_ID", "tests")
            .env("AWS_SECRET_ACCESS_KEY", "tests")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ENDPOINT", format!("http://127.0.0.1:{}", self.port))
            .env("AWS_ALLOW_HTTP", "true");
        command.output().unwrap()
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        children::end(&mut self.child);
    }
}

#[test]
fn an_archive_in_s3_is_written_in_parts_verified_and_damaged() {
    const ARCHIVE: &str = "s3://plant/lines/archive";
    let s3 = S3::start();
    let line = Line::of(Broker::shared(), "archive-s3", &["top", "side"], 1);
    send_parts(&line, 0..20);
    // Enough for several parts of an upload.
    let large = (0..24).map(|number| {
        let value = vec![number; 900_000];
        Shot::of(&line.camera("side"), "large", "image/x-raw", value)
    });
    line.send(large);
    let export = Export::of(&line);
    let outcome = outcome_of(&s3.panoptes(&export.arguments(ARCHIVE, &["--verify"])));
    assert_eq!(outcome["records"], 64);
    let manifest = s3.ask("GET", "/plant/lines/archive/archive.json").unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["topics"][0]["topic"], line.camera("side"));
    let again = outcome_of(&s3.panoptes(&export.arguments(ARCHIVE, &[])));
    assert_eq!(again["was_complete"], true);

    let listing = s3.ask("GET", "/plant?list-type=2&prefix=lines/").unwrap();
    let listing = String::from_utf8(listing).unwrap();
    let names = listing.split("<Key>").skip(1);
    let mut names = names.map(|rest| rest.split('<').next().unwrap());
    let tar = names.find(|name| name.ends_with(".tar")).unwrap();
    assert!(s3.ask("DELETE", &format!("/plant/{tar}")).is_some());
    let checked = s3.panoptes(&["archive", "check", ARCHIVE]);
    assert_eq!(checked.status.code(), Some(1));
    let object = tar.strip_prefix("lines/archive/").unwrap();
    let text = errors(&checked);
    assert!(text.contains(&format!("{ARCHIVE}/{object}")), "{text}");
}

#[test]
fn an_archive_in_s3_is_replayed() {
    const ARCHIVE: &str = "s3://plant/lines/replayed";
    let s3 = S3::start();
    let line = Line::of(Broker::shared(), "archive-s3-replay", &["top", "side"], 2);
    send_parts(&line, 0..20);
    let export = Export::of(&line);
    let option = "aws_conditional_put=disabled";
    let flags = ["--segment-bytes", "40kB", "--store-option", option];
    outcome_of(&s3.panoptes(&export.arguments(ARCHIVE, &flags)));
    let into = Line::of(line.broker, "archive-s3-replay-again", &["none"], 1);
    let config = write_config(&line.exactly_once_config(), &line.name);
    let topic = into.results_topic();
    let words = ["replay", "--config", config.to_str().unwrap()];
    let words = [
        &words[..],
        &["--archive", ARCHIVE, "--results-topic", &topic],
    ]
    .concat();
    let summary = outcome_of(&s3.panoptes(&words));
    assert_eq!(summary["archive"]["location"], ARCHIVE);
    let names = (0..20).map(|number| format!("part-{number:04}"));
    let names: Vec<String> = names.collect();
    into.outcomes().assert_one_whole_result_each(&names);
}
