//! The seed that random schedules follow from.

/// The seed of `PANOPTES_TEST_SEED`, else always the same; printed, so that a failed test tells it.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("PANOPTES_TEST_SEED").ok();
    let seed = given.map_or(4, |seed| seed.parse().unwrap());
    println!("PANOPTES_TEST_SEED={seed}");
    seed
}
