//! From the device's answer to what is published: verdicts, results, dead letters.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

use super::output::Output;
use super::prepare::{PendingGroup, PreparedBatch, PreparedGroup, PreparedView};
use super::receipt::Receipt;
use super::wall_clock;
use crate::domain::{AnomalyMap, ScoredGroup, Timestamp, ViewOutcome};
use crate::inference::InferenceAnswer;
use crate::kafka::publisher::{Publication, finished_inputs};
use crate::scoring::Judge;
use crate::telemetry::{self, Stage};

/// Judges answer after answer until the input closes.
pub(crate) async fn score_answers(
    judge: Arc<Judge>,
    output: Arc<Output>,
    mut answers: mpsc::Receiver<InferenceAnswer<PreparedBatch>>,
    publications: mpsc::Sender<Publication<Receipt>>,
) -> anyhow::Result<()> {
    while let Some(InferenceAnswer { maps, context }) = answers.recv().await {
        let PreparedBatch { groups, work } = context;
        drop(work); // the device is done with it
        let (judge, output) = (Arc::clone(&judge), Arc::clone(&output));
        let scored_at = wall_clock();
        let published = tokio::task::spawn_blocking(move || {
            judge_answer(groups, maps, &judge, &output, scored_at)
        })
        .await??;
        for publication in published {
            if publications.send(publication).await.is_err() {
                return Ok(()); // the publisher ended; its own error says why
            }
        }
    }
    Ok(())
}

fn judge_answer(
    groups: Vec<PreparedGroup>,
    maps: Vec<AnomalyMap>,
    judge: &Judge,
    output: &Arc<Output>,
    scored_at: Timestamp,
) -> anyhow::Result<Vec<Publication<Receipt>>> {
    let mut maps = maps.into_iter();
    groups
        .into_iter()
        .map(|prepared| {
            let started = Instant::now();
            let closure = Arc::clone(&prepared.pending.closure);
            let (scored, token) = join_maps(prepared, &mut maps, scored_at);
            let group = scored.group.clone();
            let (mut verdict, rejects) = judge.judge(scored);
            let mut records = vec![output.result(&mut verdict)?];
            records.extend(rejects.iter().map(|reject| output.dead_letter(reject)));
            telemetry::stage_took(Stage::Score, started.elapsed());
            Ok(Publication {
                records,
                closure: Some(output.closed_part(&closure)),
                finishes: finished_inputs(group.records()),
                token: Receipt::for_part(&verdict, &rejects, group, token),
            })
        })
        .collect()
}

/// Gives each submitted view the next map.
fn join_maps(
    prepared: PreparedGroup,
    maps: &mut impl Iterator<Item = AnomalyMap>,
    scored_at: Timestamp,
) -> (ScoredGroup, super::in_flight::InFlightToken) {
    let outcomes = prepared
        .views
        .into_iter()
        .map(|view| match view {
            PreparedView::Submitted(footprint) => ViewOutcome::Scored {
                map: maps
                    .next()
                    .expect("the device answers every image with one map"),
                footprint,
            },
            PreparedView::Failed(reject) => ViewOutcome::Failed(reject),
            PreparedView::Skipped => ViewOutcome::Unscored,
        })
        .collect();
    let PendingGroup { group, token, .. } = prepared.pending;
    let scored = ScoredGroup {
        group,
        outcomes,
        scored_at,
    };
    (scored, token)
}
