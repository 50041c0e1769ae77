//! What this process has used, as Linux tells it; nothing elsewhere.

use std::fs;

/// Units of CPU time in a second, as every Linux tells them to processes.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds of all threads so far.
pub(super) fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The process's name, in brackets, may hold blanks. User and system time are fields 14 and 15.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

/// Mebibytes of memory in use.
pub(super) fn resident_mib() -> Option<f64> {
    status_mib("VmRSS:")
}

/// Lets [`peak_resident_mib`] begin anew, from what is in use now.
pub(super) fn forget_peak() {
    fs::write("/proc/self/clear_refs", "5").ok(); // where that is not allowed, the peak stays what it was
}

/// The most that were in use so far, or since that was forgotten.
pub(super) fn peak_resident_mib() -> Option<f64> {
    status_mib("VmHWM:")
}

fn status_mib(name: &str) -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib / 1024.0)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_used_something() {
        assert!(cpu_seconds().unwrap() >= 0.0);
        assert!(resident_mib().unwrap() > 1.0);
        assert!(peak_resident_mib().unwrap() >= resident_mib().unwrap() / 2.0);
    }
}
