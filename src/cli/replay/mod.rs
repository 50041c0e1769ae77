//! `panoptes replay`: scores a range of archived camera topics again, into another results topic.
//!
//! The live line is not touched: the job is a consumer group of its own, results and dead letters go to
//! topics of its own, and nothing is read faster than `--rate` allows. The same command goes on with a job
//! that was interrupted. The records come from the topics, or from an archive (`archived`).

mod archived;
mod backlog;
mod beginning;
mod estimate;
mod flags;
mod progress;
mod report;
mod retention;
mod summary;
mod task;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures::FutureExt as _;
use tokio::sync::watch;

pub(in crate::cli) use self::backlog::Backlog;
pub use self::flags::{ReplayArguments, ReplayFlagError};
pub use self::report::ReplayReportArguments;

use self::archived::Instance;
use self::beginning::{Begun, begin, tell_what_is_gone, topics_left};
use self::progress::{Display, views_out_of_order};
use self::report::Report;
use self::retention::{Retention, TopicWatch};
use self::summary::Summary;
use self::task::Task;
use super::run::{run_until_stopped, stop_signal};
use crate::admin::Readiness;
use crate::archive::Archive;
use crate::config::Settings;
use crate::kafka::job_offsets::{Job, JobError, JobProgress, JobRange};
use crate::kafka::offset_survey::OffsetSurvey;
use crate::kafka::read_range::ReadRange;
use crate::model::bundle::{Bundle, Manifest, read_manifest};
use crate::pipeline::{PipelineSetup, Selection, ServedModel, bus_settings};
use crate::replay::{Plan, RangeSpec, plan_archive};
use crate::schema::result::RunKind;
use crate::status::StatusBoard;
use crate::telemetry;

/// How often it is looked how far the job is.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// The same near its end, which is not to be waited for.
const LAST_LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How often it is committed again what the job was made of: brokers forget groups that nobody is in.
const KEEP_INTERVAL: Duration = Duration::from_secs(3600);

/// How long the brokers may take to say where partitions begin and end.
const SURVEY_PATIENCE: Duration = Duration::from_secs(20);

/// Makes the job, or goes on with it, until it is complete.
///
/// # Errors
/// With wrong settings or flags before any I/O; later with whatever stopped the stream, or an interruption.
pub fn run(arguments: &ReplayArguments) -> anyhow::Result<()> {
    let mut settings = arguments.settings()?;
    let spec = arguments.range();
    spec.check()?;
    arguments.check_report()?;
    telemetry::init_logs(&settings.telemetry)?;
    let bus = bus_settings(&settings.bus);
    let survey = OffsetSurvey::connect(&bus, SURVEY_PATIENCE)?;
    let archive = arguments.archived.open()?;
    let resolve = |topics: &[String], spec: &RangeSpec| -> anyhow::Result<Plan> {
        match &archive {
            None => Ok(Plan::resolve(&survey, topics, spec)?),
            Some(archive) => {
                super::block_on(async { Ok(plan_archive(archive, topics, spec).await?) })
            }
        }
    };
    let mut topics = match &settings.input.topic_regex {
        Some(regex) => vec![regex.clone()],
        None => settings.input.topics.clone(),
    };
    let selection = arguments.selection(spec.written())?;
    if arguments.dry_run {
        let plan = resolve(&topics, &spec)?;
        let estimate = estimate::estimate(&settings, arguments, &plan, archive.as_ref())?;
        return print_lines(&estimate);
    }
    let model = Bundle::load(&settings.model.path)?.manifest;
    let task = Task {
        range: &spec,
        selection: &selection,
        settings: &settings,
        model: &model,
    };
    let digest = task.digest();
    settings.bus.group_id = match &arguments.job {
        Some(job) => job.clone(),
        None => task.job_name(archive.as_ref().map(Archive::manifest)),
    };
    if archive.is_none() {
        topics = topics_left(&settings, &survey, topics)?;
    }
    let plan = resolve(&topics, &spec)?;
    if let Some(archive) = &archive {
        archived::tell_what_is_missing(archive, &plan);
        arguments.archived.prepare_topics(&survey, &plan, &bus)?;
    }
    let instances = usize::from(arguments.parallel).min(archived::partition_count(&plan));
    let Begun { job, range, gone } = begin(arguments, &settings, &survey, &plan, &digest)?;
    match &archive {
        None => {
            archived::claim_for_group(&job, &settings, &plan)?;
            tell_what_is_gone(&range);
        }
        Some(_) => archived::claim(&job, &settings, &plan)?,
    }
    let was_complete = job.progress(&range, &gone)?.is_complete && range.offsets() > 0;
    let lead = Duration::ZERO;
    let without_lead = resolve(&topics, &RangeSpec { lead, ..spec })?;
    let report = Report::plan(arguments, &settings, &range, &without_lead, &selection)?;
    let work = Work {
        settings,
        load: Arc::new(move |settings| load_model(settings, &model)),
        plan,
        selection,
        ends: Arc::new(range.ends()),
        range,
        rate: arguments.rate.map(|rate| rate.as_u64()),
        instances: (0..instances).map(|_| Readiness::default()).collect(),
        archive,
        job: Arc::new(job),
        was_complete,
    };
    let display = Display::new(arguments.progress_interval);
    super::block_on(async move {
        let watch = TopicWatch::new(survey, &work.range, gone);
        let ended = Arc::new(work).run(watch, Some(display)).await?;
        close(ended, report).await
    })
}

/// Loads the bundle that the job was begun with, and none that stands in its place since.
fn load_model(settings: &Settings, begun_with: &Manifest) -> anyhow::Result<ServedModel> {
    let found = read_manifest(&settings.model.path)?;
    if found != *begun_with {
        bail!(
            "expected the model of the job's beginning in `{}`, `{} {}`, found another one, `{} {}`",
            settings.model.path.display(),
            begun_with.name,
            begun_with.version,
            found.name,
            found.version
        );
    }
    ServedModel::load(settings)
}

/// Prints to standard output; whoever reads it may have gone.
fn print_lines(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("failed to write to standard output"),
    }
}

/// A job that is complete.
struct Ended {
    work: Arc<Work>,
    progress: JobProgress,
    watch: TopicWatch,
    took: Duration,
    views_out_of_order: u64,
}

/// Tells what was done, and how its results differ from those of then.
async fn close(ended: Ended, report: Option<Report>) -> anyhow::Result<()> {
    let Ended {
        work,
        progress,
        watch,
        took,
        views_out_of_order,
    } = ended;
    let bus = bus_settings(&work.settings.bus);
    let range = work.range.clone();
    let topics = work.plan.topics();
    let mut retention = Retention::learn(range, topics, progress.skipped, watch, &bus).await;
    if work.archive.is_some() {
        retention.forget_added(); // what the topics have beside the archive was not asked for
    }
    let made = match report {
        None => None,
        Some(report) => {
            let making = tokio::task::spawn_blocking(move || report.make());
            tokio::select! {
                made = making => Some(made.context("the report panicked")?),
                () = stop_signal()? => bail!(
                    "interrupted: the replay is done, its report is not; the same command makes it"
                ),
            }
        }
    };
    let summary = Summary {
        job: work.settings.bus.group_id.clone(),
        results_topic: work.settings.output.results_topic.clone(),
        dead_letter_topic: work.settings.output.dead_letter_topic.clone(),
        offsets: work.range.offsets(),
        was_complete: work.was_complete,
        took,
        views_out_of_order,
        archive: work
            .archive
            .as_ref()
            .map(|archive| archived::summary(archive, &work.plan)),
        retention,
    };
    let (made, failed) = match made {
        Some(Err(error)) => (None, Some(error)),
        Some(Ok((made, files))) => (Some(made), files.err()),
        None => (None, None),
    };
    print_lines(&summary.to_print(made.as_ref()))?;
    match failed {
        None => Ok(()),
        Some(error) => Err(error
            .context("the replay is done, but not its report; the same command makes it again")),
    }
}

/// Loads the model of an instance.
pub(in crate::cli) type LoadModel =
    Arc<dyn Fn(&Settings) -> anyhow::Result<ServedModel> + Send + Sync>;

/// A job as instances of this process do it.
struct Work {
    settings: Settings,
    load: LoadModel,
    plan: Plan,
    selection: Selection,
    range: JobRange,
    ends: Arc<ReadRange>,
    rate: Option<u64>,
    /// One for each.
    instances: Vec<Readiness>,
    archive: Option<Archive>,
    job: Arc<Job>,
    /// Nothing was left of it when this process came to it.
    was_complete: bool,
}

impl Work {
    async fn run(
        self: Arc<Self>,
        watch: TopicWatch,
        display: Option<Display>,
    ) -> anyhow::Result<Ended> {
        let began = Instant::now();
        let boards: Vec<StatusBoard> = (0..self.instances.len())
            .map(|_| StatusBoard::default())
            .collect();
        let is_ending = Arc::new(AtomicBool::new(false));
        let (told, mut progress) = watch::channel(JobProgress::default());
        let looking = {
            let look = Look {
                work: Arc::clone(&self),
                boards: boards.clone(),
                is_ending: Arc::clone(&is_ending),
                told,
            };
            tokio::task::spawn_blocking(move || look.until_complete(watch, display))
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
        let instances = boards.iter().cloned().enumerate().map(|(number, board)| {
            let work = Arc::clone(&self);
            let readiness = self.instances[number].clone();
            let setup = move || work.setup(number, board.clone());
            run_until_stopped(setup, readiness, stop.clone())
        });
        let outcome = futures::future::try_join_all(instances).await;
        is_ending.store(true, Ordering::Relaxed);
        let progress = looking.await.context("looking at the job panicked")?;
        let (progress, watch) = match progress {
            // Whatever ended the pipelines is its consequence.
            Err(error) if matches!(error.downcast_ref(), Some(JobError::TakenOver(_))) => {
                return Err(error);
            }
            progress => {
                outcome?;
                progress?
            }
        };
        if !progress.is_complete {
            bail!(
                "interrupted with `{}` offsets left; the same command goes on",
                progress.left
            );
        }
        Ok(Ended {
            work: self,
            progress,
            watch,
            took: began.elapsed(),
            views_out_of_order: views_out_of_order(&boards),
        })
    }

    fn setup(&self, number: usize, board: StatusBoard) -> anyhow::Result<PipelineSetup> {
        let (settings, readiness) = (&self.settings, self.instances[number].clone());
        let served = (self.load)(settings)?;
        let mut setup = PipelineSetup::around(served, settings, readiness, board);
        let topics: BTreeSet<&str> = self.range.0.keys().map(|one| one.topic.as_str()).collect();
        setup.consumer.subscription = topics.into_iter().map(str::to_owned).collect();
        setup.consumer.range = Some(Arc::clone(&self.ends));
        setup.consumer.most_bytes_per_second = self
            .rate
            .map(|rate| rate.div_ceil(self.instances.len() as u64));
        setup.name_instance(number);
        if let Some(archive) = &self.archive {
            let instance = Instance {
                number,
                of: self.instances.len(),
            };
            archived::read_archive(&mut setup, archive, &self.plan, &self.job, instance)?;
        }
        setup.reassembly.wall_grace = None;
        setup.selection = self.selection.clone();
        setup.output.results.run.kind = RunKind::Replay;
        Ok(setup)
    }
}

/// Looks how far a job is.
struct Look {
    work: Arc<Work>,
    boards: Vec<StatusBoard>,
    is_ending: Arc<AtomicBool>,
    told: watch::Sender<JobProgress>,
}

impl Look {
    /// Tells how far the job is until it is complete, or until the pipelines have ended; then once more.
    fn until_complete(
        self,
        mut watch: TopicWatch,
        mut display: Option<Display>,
    ) -> anyhow::Result<(JobProgress, TopicWatch)> {
        let mut kept_at = Instant::now();
        loop {
            if kept_at.elapsed() >= KEEP_INTERVAL {
                self.work.job.keep(&self.work.range)?;
                kept_at = Instant::now();
            }
            let is_last = self.is_ending.load(Ordering::Relaxed);
            let progress = self.work.job.progress(&self.work.range, watch.gone())?;
            if let Some(display) = &mut display {
                display.show(&progress, self.work.range.offsets(), &self.boards);
            }
            self.told.send_replace(progress.clone());
            if is_last || progress.is_complete {
                return Ok((progress, watch));
            }
            let is_near_end = progress.left < self.work.range.offsets() / 64;
            std::thread::sleep(match is_near_end {
                true => LAST_LOOK_INTERVAL,
                false => LOOK_INTERVAL,
            });
        }
    }
}
