//! A comparison in tables and sentences, for the terminal; the page shows the same tables.

use super::notices::described;
use crate::cli::tail::printable;
use crate::comparison::{
    Advice, Changes, ClassComparison, Comparison, Cut, DECISIONS, DecisionCounts, Flip, Judgement,
    ScoreSummary, ViewChange, ViewJudgement,
};
use crate::evaluation::sheet::{Column, Sheet};
use crate::schema::result::ViewStatus;

/// How many flips a terminal shows.
const PRINTED_FLIPS: usize = 20;

/// Heights of a bar, from nothing to all.
const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// What the advice is, in a sentence.
pub(super) const ADVICE_RULE: &str = "advised is the threshold with the highest balanced accuracy of \
    B's scores against A's ok and ng (the mean of the shares of both that it decides alike), from \
    parts that B scored whole; A's decisions are no truth";

/// All for a terminal, with what else a person should know at its end.
pub(super) fn text(found: &Comparison, notices: &[String]) -> String {
    let mut text = String::new();
    for (name, side) in [("A", &found.a), ("B", &found.b)] {
        text += &format!("{name}: {}\n", described(side));
    }
    text += &format!(
        "parts in both: {}, decided differently: {}\n\n",
        found.joined, found.flipped
    );
    let mut sheets = vec![
        decisions(found),
        changes(&found.changes),
        scores(found),
        thresholds(found),
    ];
    if !found.flips.is_empty() {
        sheets.push(flips(found, PRINTED_FLIPS));
    }
    let sheets: Vec<String> = sheets.iter().map(Sheet::to_text).collect();
    text += &format!("{}\nnote: {ADVICE_RULE}\n", sheets.join("\n"));
    for notice in notices {
        text += &format!("note: {}\n", printable(notice));
    }
    text
}

/// Who decided what, class by class.
pub(super) fn decisions(found: &Comparison) -> Sheet {
    let row = |class: String, a, b, changes: &Changes| {
        let of = |counts: DecisionCounts| DECISIONS.map(|it| counts.of(it).to_string());
        let both: u64 = DECISIONS.iter().map(|it| changes.of(*it).total()).sum();
        let both = [both.to_string(), changes.flipped().to_string()];
        [vec![class], of(a).to_vec(), of(b).to_vec(), both.to_vec()].concat()
    };
    let mut rows: Vec<Vec<String>> = found
        .classes
        .iter()
        .map(|class| {
            row(
                class_name(class),
                class.a.decisions,
                class.b.decisions,
                &class.changes,
            )
        })
        .collect();
    let has_summary = rows.len() > 1;
    if has_summary {
        rows.push(row(
            "all".to_owned(),
            found.a.decisions,
            found.b.decisions,
            &found.changes,
        ));
    }
    let groups =
        ["A", "B"].map(|group| ["ok", "ng", "review"].map(|name| Column::numbers(group, name)));
    let both = ["parts", "flipped"].map(|name| Column::numbers("both", name));
    Sheet {
        title: "decisions".to_owned(),
        columns: [vec![Column::words("class")], groups.concat(), both.to_vec()].concat(),
        rows,
        has_summary,
    }
}

/// What became of A's decisions.
pub(super) fn changes(changes: &Changes) -> Sheet {
    let rows = DECISIONS.map(|a| {
        let of_b = changes.of(a);
        [
            vec![a.as_str().to_owned()],
            DECISIONS.map(|b| of_b.of(b).to_string()).to_vec(),
        ]
        .concat()
    });
    let of_b = ["ok", "ng", "review"].map(|name| Column::numbers("in B", name));
    Sheet {
        title: "what became of A's decisions".to_owned(),
        columns: [vec![Column::words("in A")], of_b.to_vec()].concat(),
        rows: rows.to_vec(),
        has_summary: false,
    }
}

/// Where the scores of both lie.
pub(super) fn scores(found: &Comparison) -> Sheet {
    let row = |class: &ClassComparison, side: &str, summary: ScoreSummary, counts: &[u64]| {
        let numbers =
            [summary.lowest, summary.median, summary.highest].map(|score| format!("{score:.4}"));
        let mut cells = vec![
            class_name(class),
            side.to_owned(),
            summary.scored.to_string(),
        ];
        cells.extend(numbers);
        cells.push(bars(counts));
        cells
    };
    let mut rows = Vec::new();
    for class in &found.classes {
        let Some(histogram) = &class.histogram else {
            continue;
        };
        rows.extend(
            class
                .a
                .scores
                .map(|summary| row(class, "A", summary, &histogram.a)),
        );
        rows.extend(
            class
                .b
                .scores
                .map(|summary| row(class, "B", summary, &histogram.b)),
        );
    }
    let numbers = ["scored", "lowest", "median", "highest"].map(|name| Column::numbers("", name));
    Sheet {
        title:
            "scores of the parts in both, A and B over the same range of scores and thresholds; \
                heights are logarithmic"
                .to_owned(),
        columns: [
            vec![Column::words("class"), Column::words("")],
            numbers.to_vec(),
            vec![Column::words("histogram")],
        ]
        .concat(),
        rows,
        has_summary: false,
    }
}

/// One character a bin; any count at all shows.
fn bars(counts: &[u64]) -> String {
    let most = counts.iter().copied().max().unwrap_or(0);
    let bar = |count: u64| BARS[(height(count, most) * 8.0).ceil() as usize];
    let bars: String = counts.iter().map(|count| bar(*count)).collect();
    format!("|{bars}|")
}

/// The logarithmic height of a bar, from 0 for nothing to 1 for the most.
pub(super) fn height(count: u64, most: u64) -> f64 {
    let height = |count: u64| (1.0 + count as f64).ln();
    if count == 0 {
        0.0
    } else {
        (height(count) / height(most)).min(1.0)
    }
}

/// What B's thresholds are and should be to decide as A did.
pub(super) fn thresholds(found: &Comparison) -> Sheet {
    let cut = |cut: Option<Cut>| match cut {
        None => ["-", "-", "-"].map(str::to_owned),
        Some(cut) => [
            format!("{:.4}", cut.threshold),
            cut.ok_called_ng.to_string(),
            cut.ng_called_ok.to_string(),
        ],
    };
    let rows = found.classes.iter().map(|class| {
        let threshold = class.threshold;
        let (advised, words) = match threshold.advice {
            Advice::Keep => (threshold.present, "keep".to_owned()),
            Advice::Change { advised } => (Some(advised), "change".to_owned()),
            Advice::NoneAgrees => (None, "none: no threshold agrees with A".to_owned()),
            Advice::TooFew { needed } => (None, format!("none: too few, {needed} of each needed")),
        };
        let parts = [threshold.ok_parts, threshold.ng_parts].map(|parts| parts.to_string());
        [
            vec![class_name(class)],
            parts.to_vec(),
            cut(threshold.present).to_vec(),
            cut(advised).to_vec(),
            vec![words],
        ]
        .concat()
    });
    let parts = ["ok", "ng"].map(|name| Column::numbers("A's parts", name));
    let cuts = ["B's present", "advised"].map(|group| {
        ["threshold", "ok as ng", "ng as ok"].map(|name| Column::numbers(group, name))
    });
    Sheet {
        title: "thresholds".to_owned(),
        columns: [
            vec![Column::words("class")],
            parts.to_vec(),
            cuts.concat(),
            vec![Column::words("advice")],
        ]
        .concat(),
        rows: rows.collect(),
        has_summary: false,
    }
}

/// The first of the parts that flipped.
pub(super) fn flips(found: &Comparison, most: usize) -> Sheet {
    let judged = |it: &Judgement| {
        let number = |value: Option<f32>| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"))
        };
        [
            it.decision.as_str().to_owned(),
            number(it.score),
            number(it.threshold),
        ]
    };
    let row = |flip: &Flip| {
        let class = printable(flip.b.class.as_deref().unwrap_or("-"));
        let names = [printable(&flip.line), printable(&flip.part_id), class];
        let views = printable(&view_words(flip.views.as_deref().unwrap_or_default()));
        [
            names.to_vec(),
            judged(&flip.a).to_vec(),
            judged(&flip.b).to_vec(),
            vec![views],
        ]
        .concat()
    };
    let shown = found.flips.len().min(most);
    let title = match shown == found.flips.len() {
        true => "parts that flipped".to_owned(),
        false => format!("parts that flipped, {shown} of {}", found.flips.len()),
    };
    let sides =
        ["A", "B"].map(|group| ["", "score", "threshold"].map(|name| Column::numbers(group, name)));
    Sheet {
        title,
        columns: [
            ["line", "part", "class"].map(Column::words).to_vec(),
            sides.concat(),
            vec![Column::words("views that matter")],
        ]
        .concat(),
        rows: found.flips[..shown].iter().map(row).collect(),
        has_summary: false,
    }
}

/// The views with the highest score in A or B, and those that one of the two could not score.
fn view_words(views: &[ViewChange]) -> String {
    let score = |judged: &Option<ViewJudgement>| judged.as_ref().and_then(|judged| judged.score);
    let highest = |side: fn(&ViewChange) -> &Option<ViewJudgement>| {
        views
            .iter()
            .filter_map(|view| score(side(view)))
            .max_by(f32::total_cmp)
    };
    let tops = (highest(|view| &view.a), highest(|view| &view.b));
    let matters = |view: &&ViewChange| {
        let (a, b) = (score(&view.a), score(&view.b));
        a.is_none() || b.is_none() || a == tops.0 || b == tops.1
    };
    let words = |view: &ViewChange| {
        let [a, b] = [&view.a, &view.b].map(|judged| judged_words(judged.as_ref()));
        match a == b {
            true => format!("{} {a} in both", view.view),
            false => format!("{} {a} > {b}", view.view),
        }
    };
    let words: Vec<String> = views.iter().filter(matters).map(words).collect();
    words.join(", ")
}

/// A view's score, or why it has none.
pub(super) fn judged_words(judged: Option<&ViewJudgement>) -> String {
    let Some(judged) = judged else {
        return "not named".to_owned();
    };
    match (judged.status, judged.score) {
        (ViewStatus::Missing, _) => "missing".to_owned(),
        (ViewStatus::Failed, _) => match &judged.error {
            Some(error) => format!("failed ({error})"),
            None => "failed".to_owned(),
        },
        (ViewStatus::Scored, Some(score)) => format!("{score:.4}"),
        (ViewStatus::Scored, None) => "no score".to_owned(),
    }
}

/// A class as tables name it.
pub(super) fn class_name(class: &ClassComparison) -> String {
    printable(class.class.as_deref().unwrap_or("-"))
}
