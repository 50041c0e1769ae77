//! The `panoptes` binary as a child process, with its log kept and its admin port asked.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use super::config::Config;
use crate::kafka::{children, repository};

const READY_TIMEOUT: Duration = Duration::from_secs(120);
const EVENT_TIMEOUT: Duration = Duration::from_secs(120);
/// Longer than `bus.drain_timeout` of the tests.
const STOP_TIMEOUT: Duration = Duration::from_secs(150);

/// In the environment: the model costs nothing, where what is tested lies around it (feature `failpoints`).
pub(crate) const FREE_MODEL: (&str, &str) = ("FAILPOINTS", "device-blank-maps=return");

/// Where logs and configurations of the processes are kept.
pub(crate) fn log_folder() -> PathBuf {
    let folder = repository().join("target/test-logs");
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Runs one `panoptes` command to its end.
pub(crate) fn panoptes(folder: &Path, arguments: &[&str]) -> Output {
    binary()
        .current_dir(folder)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Writes a configuration under `name` and returns where.
pub(crate) fn write_config(config: &Config, name: &str) -> PathBuf {
    let path = log_folder().join(format!("{name}.toml"));
    fs::write(&path, config.to_toml()).unwrap();
    path
}

/// The binary under test, unmoved by the environment of whoever runs the tests.
pub(crate) fn binary() -> Command {
    let mut command = children::bound(env!("CARGO_BIN_EXE_panoptes"));
    command.env_remove("RUST_LOG");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PANOPTES__")) {
        command.env_remove(name);
    }
    command
}

/// How a process ended, and what it had to say.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) log: String,
}

/// A running `panoptes run`.
pub(crate) struct Panoptes {
    child: Child,
    admin: String,
    log: PathBuf,
}

impl Panoptes {
    /// Starts it and waits until it is ready; `name` names its log and must differ between processes.
    pub(crate) fn run(config: &Config, name: &str) -> Self {
        let mut process = Self::start(config, name);
        process.wait_until_ready();
        process
    }

    /// Starts it.
    pub(crate) fn start(config: &Config, name: &str) -> Self {
        Self::start_with(config, name, &[])
    }

    /// Starts it with more variables in its environment.
    pub(crate) fn start_with(config: &Config, name: &str, variables: &[(&str, &str)]) -> Self {
        let path = write_config(config, name);
        let log = log_folder().join(format!("{name}.log"));
        let output = File::create(&log).unwrap();
        let mut command = binary();
        command.arg("run").arg("--config").arg(path);
        command.envs(variables.iter().copied());
        command.stdin(Stdio::null());
        command.stdout(output.try_clone().unwrap()).stderr(output);
        Self {
            child: children::spawn(command),
            admin: config.text("admin.listen"),
            log,
        }
    }

    /// Waits until `/readyz` says yes.
    pub(crate) fn wait_until_ready(&mut self) {
        let started = Instant::now();
        while self.get("/readyz").is_none_or(|(status, _)| status != 200) {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("panoptes ended with {status}: {}", self.log_tail());
            }
            let waited = started.elapsed();
            assert!(
                waited < READY_TIMEOUT,
                "not ready after {waited:?}: {}",
                self.log_tail()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asks the admin port; `None` if nobody answers.
    pub(crate) fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(&self.admin).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.admin
        );
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split_whitespace().nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    }

    /// The metrics now.
    pub(crate) fn metrics(&self) -> Metrics {
        let (status, body) = self.get("/metrics").expect("/metrics answers");
        assert_eq!(status, 200, "{body}");
        Metrics::parse(&body)
    }

    /// Waits until a counter, summed over these labels, has reached `value`.
    pub(crate) fn await_metric(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.await_metrics(&format!("{name} to reach {value}"), |metrics| {
            metrics.sum(name, labels) >= value
        });
    }

    /// Waits for what `expected` describes.
    pub(crate) fn await_metrics(&self, expected: &str, holds: impl Fn(&Metrics) -> bool) {
        self.await_that(expected, |process| holds(&process.metrics()));
    }

    /// Waits until it has taken in records that it has not finished.
    pub(crate) fn await_work(&self) {
        self.await_that("unfinished records", |process| {
            // One that has only just been started answers nothing yet.
            process.get("/metrics").is_some_and(|(_, body)| {
                Metrics::parse(&body).sum("panoptes_uncommitted_records", &[]) > 0.0
            })
        });
    }

    /// Waits until it has so many partitions, no more and no fewer.
    pub(crate) fn await_assigned(&self, partitions: i32) {
        self.await_metrics(&format!("{partitions} partitions assigned"), |metrics| {
            let assigned = metrics.sum("panoptes_assigned_partitions", &[]);
            (assigned - f64::from(partitions)).abs() < 0.5
        });
    }

    /// Waits until `path` answers with `status`.
    pub(crate) fn await_answer(&self, path: &str, status: u16) {
        self.await_that(&format!("{path} to answer {status}"), |process| {
            process.get(path).is_some_and(|(found, _)| found == status)
        });
    }

    /// Waits until this is all that keeps it from being ready.
    pub(crate) fn await_unready(&self, reason: &str) {
        let reasons = format!(r#""reasons":["{reason}"]"#);
        self.await_that(&format!("/readyz to say {reasons}"), |process| {
            let answer = process.get("/readyz");
            answer.is_some_and(|(status, body)| status == 503 && body.contains(&reasons))
        });
    }

    /// Waits until the log holds `text`.
    pub(crate) fn await_log(&self, text: &str) {
        self.await_that(&format!("`{text}` in the log"), |process| {
            process.log_text().contains(text)
        });
    }

    fn await_that(&self, expected: &str, holds: impl Fn(&Self) -> bool) {
        let started = Instant::now();
        while !holds(self) {
            let waited = started.elapsed();
            assert!(
                waited < EVENT_TIMEOUT,
                "expected {expected}; waited {waited:?} in vain"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for a process that ends by itself.
    pub(crate) fn await_end(mut self) -> Ended {
        let status = children::wait_for(&mut self.child, EVENT_TIMEOUT);
        Ended {
            status: status.unwrap_or_else(|| panic!("still running after {EVENT_TIMEOUT:?}")),
            log: self.log_text(),
        }
    }

    /// All that it has logged.
    pub(crate) fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Stops it in order (SIGTERM) and fails the test unless it drained.
    pub(crate) fn stop_in_order(mut self) {
        let status = self.terminate();
        assert_eq!(status.code(), Some(0), "{}", self.log_tail());
    }

    /// Asks it to end (SIGTERM) and says how it did.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        children::terminate(&self.child);
        let status = children::wait_for(&mut self.child, STOP_TIMEOUT);
        status.unwrap_or_else(|| {
            let tail = self.log_tail();
            panic!("expected an end {STOP_TIMEOUT:?} after SIGTERM at most, {tail}")
        })
    }

    /// Freezes it (SIGSTOP), as a machine does that hangs or is cut off.
    pub(crate) fn freeze(&self) {
        children::signal(&self.child, "STOP");
    }

    /// Lets it go on (SIGCONT).
    pub(crate) fn thaw(&self) {
        children::signal(&self.child, "CONT");
    }

    /// The memory that it has now.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most memory that it has had since its start, or since that was forgotten.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// Counts the most memory from now on.
    pub(crate) fn forget_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
    }

    fn memory(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    }

    /// Takes it down at once (SIGKILL).
    pub(crate) fn kill(mut self) {
        children::end(&mut self.child);
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// The last lines of the log.
    pub(crate) fn log_tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(30)..].join("\n");
        format!("{}:\n{tail}", self.log.display())
    }
}

impl Drop for Panoptes {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("log of panoptes: {}", self.log_tail());
        }
        children::end(&mut self.child);
    }
}

/// Prometheus text, parsed as far as the tests need it.
#[derive(Debug)]
pub(crate) struct Metrics(Vec<(String, BTreeMap<String, String>, f64)>);

impl Metrics {
    pub(crate) fn parse(text: &str) -> Self {
        let lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(lines.map(parse_sample).collect())
    }

    /// The sum over all samples of `name` that carry these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.0
            .iter()
            .filter(|(sample, found, _)| {
                sample == name
                    && labels
                        .iter()
                        .all(|(label, value)| found.get(*label).is_some_and(|it| it == value))
            })
            .map(|(_, _, value)| value)
            .sum()
    }

    /// Whether there is any sample of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(sample, _, _)| sample == name)
    }
}

fn parse_sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let (head, value) = line.rsplit_once(' ').unwrap();
    let (name, labels) = head.split_once('{').unwrap_or((head, ""));
    let labels = labels
        .trim_end_matches('}')
        .split("\",")
        .filter_map(|pair| {
            let (label, value) = pair.split_once("=\"")?;
            Some((label.to_owned(), value.trim_end_matches('"').to_owned()))
        });
    (name.to_owned(), labels.collect(), value.parse().unwrap())
}
