//! All that camera topics hold, replayed with any model: for the benches.

use super::beginning::job_range;
use super::*;

/// A replay that is about to run.
pub(in crate::cli) struct Backlog {
    work: Arc<Work>,
    watch: TopicWatch,
}

impl Backlog {
    /// Makes the job, which has the name of the settings' group. Waits for the brokers.
    ///
    /// # Errors
    /// When the topics are not there or the brokers do not answer.
    pub(in crate::cli) fn new(
        settings: Settings,
        load: LoadModel,
        instances: usize,
    ) -> anyhow::Result<Self> {
        let bus = bus_settings(&settings.bus);
        let survey = OffsetSurvey::connect(&bus, SURVEY_PATIENCE)?;
        let plan = Plan::resolve(&survey, &settings.input.topics, &RangeSpec::default())?;
        let partitions = plan.partitions.iter().map(|one| one.partition.clone());
        let job = Job::connect(&bus, &settings.bus.group_id, partitions.collect())?;
        let range = job_range(&plan);
        job.make(&range, "backlog")?;
        let watch = TopicWatch::new(survey, &range, BTreeSet::new());
        let work = Work {
            settings,
            load,
            plan,
            selection: Selection::default(),
            ends: Arc::new(range.ends()),
            range,
            rate: None,
            instances: (0..instances).map(|_| Readiness::default()).collect(),
            archive: None,
            job: Arc::new(job),
            was_complete: false,
        };
        Ok(Self {
            work: Arc::new(work),
            watch,
        })
    }

    /// What its instances tell of themselves.
    pub(in crate::cli) fn readiness(&self) -> Vec<Readiness> {
        self.work.instances.clone()
    }

    /// Runs it until it is complete.
    ///
    /// # Errors
    /// With whatever stopped it.
    pub(in crate::cli) async fn run(self) -> anyhow::Result<()> {
        self.work.run(self.watch, None).await.map(|_| ())
    }
}
