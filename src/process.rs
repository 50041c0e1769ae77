//! How the process uses memory and cores; to be settled before any thread is started.
//!
//! Training and scoring allocate and free hundreds of megabytes many times a second. By default glibc
//! gives much of that back to the system each time (large blocks at once, and the heaps of threads
//! other than the first as soon as they are empty), and the next allocation pays for it with page
//! faults: on two threads they took 37 % of the time of training. So freed memory is kept, and all
//! threads share one heap.
//!
//! candle shares its element-wise operations out to a pool that the whole process has in common, and
//! waits for it in a loop. Here each thread computes an image or a share of a batch of its own, so
//! they would wait for each other: on two cores that took 46 % of the time of scoring. So that pool is
//! left out, unless `CANDLE_NUM_THREADS` says otherwise.

/// What candle reads the size of its pool from.
const CANDLE_THREADS: &str = "CANDLE_NUM_THREADS";

/// Settles both. The caller's thread must be the only one.
pub fn prepare() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    keep_freed_memory();
    if std::env::var_os(CANDLE_THREADS).is_none() {
        #[allow(unsafe_code)]
        // SAFETY: no other thread is there that could read the environment meanwhile.
        unsafe {
            std::env::set_var(CANDLE_THREADS, "1");
        }
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
fn keep_freed_memory() {
    for (parameter, value) in [
        (libc::M_ARENA_MAX, 1),
        (libc::M_MMAP_MAX, 0),
        (libc::M_TRIM_THRESHOLD, libc::c_int::MAX),
    ] {
        // SAFETY: `mallopt` changes a number of the allocator and touches no memory of ours. What it
        // refuses stays as it was, which costs time and nothing else.
        unsafe { libc::mallopt(parameter, value) };
    }
}
