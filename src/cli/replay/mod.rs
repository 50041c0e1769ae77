//! `panoptes replay`: scores a range of archived camera topics again, into another results topic.
//!
//! The live line is not touched: the job is a consumer group of its own, results and dead letters go to
//! topics of its own, and nothing is read faster than `--rate` allows. The same command goes on with a job
//! that was interrupted. The records come from the topics, or from an archive (`archived`).

mod archived;
mod estimate;
mod flags;
mod progress;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures::FutureExt as _;
use serde_json::json;
use tokio::sync::watch;

pub use self::flags::{ReplayArguments, ReplayFlagError};

use self::archived::Instance;
use self::progress::Display;
use super::run::{run_until_stopped, stop_signal};
use crate::admin::Readiness;
use crate::archive::Archive;
use crate::config::Settings;
use crate::kafka::consumer::Commits;
use crate::kafka::job_offsets::{Job, JobError, JobProgress};
use crate::kafka::offset_survey::OffsetSurvey;
use crate::kafka::read_range::ReadRange;
use crate::model::bundle::Bundle;
use crate::pipeline::{PipelineSetup, Selection, bus_settings};
use crate::replay::{Plan, plan_archive};
use crate::schema::result::RunKind;
use crate::status::StatusBoard;
use crate::telemetry;

/// How often it is looked how far the job is.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// How long the brokers may take to say where partitions begin and end.
const SURVEY_PATIENCE: Duration = Duration::from_secs(20);

/// Makes the job, or goes on with it, until it is complete.
///
/// # Errors
/// With wrong settings or flags before any I/O; later with whatever stopped the stream, or an interruption.
pub fn run(arguments: &ReplayArguments) -> anyhow::Result<()> {
    let mut settings = arguments.settings()?;
    telemetry::init_logs(&settings.telemetry)?;
    let bus = bus_settings(&settings.bus);
    let survey = OffsetSurvey::connect(&bus, SURVEY_PATIENCE)?;
    let topics = match &settings.input.topic_regex {
        Some(regex) => vec![regex.clone()],
        None => settings.input.topics.clone(),
    };
    let archive = arguments.archived.open()?;
    let spec = arguments.range();
    let plan = match &archive {
        None => Plan::resolve(&survey, &topics, &spec)?,
        Some(archive) => {
            super::block_on(async { Ok(plan_archive(archive, &topics, &spec).await?) })?
        }
    };
    let selection = arguments.selection(plan.written.clone())?;
    if arguments.dry_run {
        let estimate = estimate::estimate(&settings, arguments, &plan, archive.as_ref())?;
        print!("{estimate}");
        return Ok(());
    }
    let bundle = Bundle::load(&settings.model.path)?;
    settings.bus.group_id = arguments.job_id(&bundle.manifest.identity(), &topics);
    let mut instances = usize::from(arguments.parallel);
    match &archive {
        None => tell_what_is_gone(&plan),
        Some(archive) => {
            archived::tell_what_is_missing(archive, &plan);
            arguments.archived.prepare_topics(&survey, &plan, &bus)?;
            instances = instances.min(archived::partition_count(&plan));
        }
    }
    let partitions = plan.partitions.iter().map(|one| one.partition.clone());
    let job = Job::connect(&bus, &settings.bus.group_id, partitions.collect())
        .context("failed to make a client")?;
    let range = match job.find()? {
        Some(range) => {
            tracing::info!(job = settings.bus.group_id, "going on with the job");
            range
        }
        None => job.make(&plan.ranges())?,
    };
    if archive.is_some() {
        archived::claim(&job, &range, &settings, &plan)?;
    }
    let job = Arc::new(job);
    let work = Work {
        settings,
        plan,
        selection,
        range: Arc::new(range),
        rate: arguments.rate.map(|rate| rate.as_u64()),
        instances,
        archive,
        job: Arc::clone(&job),
    };
    super::block_on(work.run(job, Display::new(arguments.progress_interval)))
}

/// What the brokers no longer have of the range.
fn tell_what_is_gone(plan: &Plan) {
    for one in plan.partitions.iter().filter(|one| one.is_cut) {
        tracing::warn!(
            topic = %one.partition.topic,
            partition = one.partition.partition,
            first_offset = one.earliest,
            deleted_offsets = one.deleted,
            "records at the beginning of the range are deleted, or may be"
        );
    }
}

/// A job as instances of this process do it.
struct Work {
    settings: Settings,
    plan: Plan,
    selection: Selection,
    range: Arc<ReadRange>,
    rate: Option<u64>,
    instances: usize,
    archive: Option<Archive>,
    job: Arc<Job>,
}

impl Work {
    async fn run(self, job: Arc<Job>, display: Display) -> anyhow::Result<()> {
        let began = Instant::now();
        let boards: Vec<StatusBoard> = (0..self.instances)
            .map(|_| StatusBoard::default())
            .collect();
        let is_ending = Arc::new(AtomicBool::new(false));
        let (told, mut progress) = watch::channel(JobProgress::default());
        let looking = {
            let (range, boards, is_ending) = (
                Arc::clone(&self.range),
                boards.clone(),
                Arc::clone(&is_ending),
            );
            tokio::task::spawn_blocking(move || {
                look(&job, &range, &boards, display, &is_ending, &told)
            })
        };
        let complete = async move {
            // An error ends the sender: the pipelines are then stopped, and the error is told below.
            progress.wait_for(|one| one.is_complete).await.ok();
        };
        let signal = stop_signal()?;
        let stop = async move {
            tokio::select! {
                () = signal => {}
                () = complete => {}
            }
        };
        let stop = stop.boxed().shared();
        let work = Arc::new(self);
        let instances = boards.into_iter().enumerate().map(|(number, board)| {
            let work = Arc::clone(&work);
            let readiness = Readiness::default();
            let setup = {
                let readiness = readiness.clone();
                move || work.setup(number, readiness.clone(), board.clone())
            };
            run_until_stopped(setup, readiness, stop.clone())
        });
        let outcome = futures::future::try_join_all(instances).await;
        is_ending.store(true, Ordering::Relaxed);
        let progress = looking.await.context("looking at the job panicked")?;
        if let Err(error) = &progress
            && matches!(error.downcast_ref(), Some(JobError::TakenOver(_)))
        {
            return progress.map(drop); // and whatever ended the pipelines is its consequence
        }
        outcome?;
        let progress = progress?;
        if !progress.is_complete {
            bail!(
                "interrupted with `{}` offsets left; the same command goes on",
                progress.left
            );
        }
        let summary = work.summary(began.elapsed());
        println!("{summary}");
        Ok(())
    }

    /// What was done, and what could not be.
    fn summary(&self, took: Duration) -> serde_json::Value {
        let cut = self.plan.partitions.iter().filter(|one| one.is_cut);
        let cut = cut.map(|one| {
            json!({
                "topic": one.partition.topic.as_str(),
                "partition": one.partition.partition,
                "first_offset": one.earliest,
                "deleted_offsets": one.deleted,
            })
        });
        let mut summary = json!({
            "job": self.settings.bus.group_id,
            "results_topic": self.settings.output.results_topic,
            "dead_letter_topic": self.settings.output.dead_letter_topic,
            "offsets": self.plan.offsets(),
            "seconds": took.as_secs_f64(),
            "cut": cut.collect::<Vec<_>>(),
        });
        if let Some(archive) = &self.archive {
            summary["archive"] = archived::summary(archive, &self.plan);
        }
        summary
    }

    fn setup(
        &self,
        number: usize,
        readiness: Readiness,
        board: StatusBoard,
    ) -> anyhow::Result<PipelineSetup> {
        let mut setup = PipelineSetup::from_settings(&self.settings, readiness, board)?;
        let topics: BTreeSet<&str> = self
            .plan
            .partitions
            .iter()
            .map(|one| one.partition.topic.as_str())
            .collect();
        setup.consumer.subscription = topics.into_iter().map(str::to_owned).collect();
        setup.consumer.range = Some(Arc::clone(&self.range));
        setup.consumer.most_bytes_per_second =
            self.rate.map(|rate| rate.div_ceil(self.instances as u64));
        if let Commits::InTransactions(transactions) = &mut setup.consumer.commits {
            transactions.transactional_id += &format!("-{number}");
        }
        if let Some(archive) = &self.archive {
            let instance = Instance {
                number,
                of: self.instances,
            };
            archived::read_archive(&mut setup, archive, &self.plan, &self.job, instance)?;
        }
        setup.reassembly.wall_grace = None;
        setup.selection = self.selection.clone();
        setup.output.results.run.kind = RunKind::Replay;
        Ok(setup)
    }
}

/// Tells how far the job is until it is complete, or until the pipelines have ended; then once more.
fn look(
    job: &Job,
    range: &ReadRange,
    boards: &[StatusBoard],
    mut display: Display,
    is_ending: &AtomicBool,
    told: &watch::Sender<JobProgress>,
) -> anyhow::Result<JobProgress> {
    loop {
        let is_last = is_ending.load(Ordering::Relaxed);
        let progress = job.progress(range)?;
        display.show(&progress, boards);
        told.send_replace(progress.clone());
        if is_last || progress.is_complete {
            return Ok(progress);
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}
