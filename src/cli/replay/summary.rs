//! What a replay says when it is done: tables on a terminal, one line of JSON elsewhere.

use std::io::IsTerminal as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::report::Made;
use super::retention::Retention;
use crate::cli::tail::printable;

/// What was done, and what could not be.
pub(super) struct Summary {
    pub(super) job: String,
    pub(super) results_topic: String,
    pub(super) dead_letter_topic: String,
    /// Between all beginnings and ends.
    pub(super) offsets: i64,
    /// Whether nothing of it was left to do.
    pub(super) was_complete: bool,
    /// In this process.
    pub(super) took: Duration,
    /// In this process: what became of their parts may differ from a run that is not disturbed.
    pub(super) views_out_of_order: u64,
    /// Of the archive that was read, if one was.
    pub(super) archive: Option<Value>,
    pub(super) retention: Retention,
}

impl Summary {
    /// What is printed of it, with the comparison if one was made.
    pub(super) fn to_print(&self, made: Option<&Made>) -> String {
        match std::io::stdout().is_terminal() {
            true => self.to_text(made),
            false => format!("{}\n", self.to_json(made)),
        }
    }

    fn to_json(&self, made: Option<&Made>) -> Value {
        let mut summary = json!({
            "job": self.job,
            "results_topic": self.results_topic,
            "dead_letter_topic": self.dead_letter_topic,
            "offsets": self.offsets,
            "was_complete": self.was_complete,
            "seconds": self.took.as_secs_f64(),
            "views_out_of_order": self.views_out_of_order,
            "report": null,
        });
        match made {
            Some(Made::Compared { found, .. }) => summary["report"] = json!(found),
            Some(Made::Nothing(why)) => summary["report_missing"] = json!(why),
            None => {}
        }
        if let Some(archive) = &self.archive {
            summary["archive"] = archive.clone();
        }
        let (Value::Object(all), Value::Object(more)) = (&mut summary, self.retention.to_json())
        else {
            return summary;
        };
        all.extend(more);
        summary
    }

    fn to_text(&self, made: Option<&Made>) -> String {
        let took = Duration::from_secs(self.took.as_secs());
        let mut text = format!(
            "job           {}\nresults       {}\ndead letters  {}\noffsets       {} in {}\n",
            self.job,
            self.results_topic,
            self.dead_letter_topic,
            self.offsets,
            humantime::format_duration(took),
        );
        if self.was_complete {
            text += "note: the job was complete before, so that nothing was read\n";
        }
        if let Some(archive) = &self.archive {
            text += &format!("archive       {}\n", printable(&archive.to_string()));
        }
        if self.views_out_of_order > 0 {
            text += &format!(
                "note: {} views were not taken in the order in which they were written: their parts may \
                 differ from those of another run\n",
                self.views_out_of_order
            );
        }
        for line in self.retention.to_lines() {
            text += &format!("note: {}\n", printable(&line));
        }
        match made {
            Some(Made::Compared { text: tables, .. }) => text += &format!("\n{tables}"),
            Some(Made::Nothing(why)) => {
                text += &format!("nothing to compare with: {}\n", printable(why));
            }
            None => {}
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> Summary {
        Summary {
            job: "job".to_owned(),
            results_topic: "again".to_owned(),
            dead_letter_topic: "again.dead-letters".to_owned(),
            offsets: 70,
            was_complete: false,
            took: Duration::from_millis(61_500),
            views_out_of_order: 0,
            archive: None,
            retention: Retention::default(),
        }
    }

    #[test]
    fn a_replay_without_anything_to_compare_with_says_why() {
        let why = Made::Nothing("results topic `live` does not exist".to_owned());
        let text = summary().to_text(Some(&why));
        let expected = "\
job           job
results       again
dead letters  again.dead-letters
offsets       70 in 1m 1s
nothing to compare with: results topic `live` does not exist
";
        assert_eq!(text, expected);
        let json = summary().to_json(Some(&why));
        assert_eq!(
            json["report_missing"],
            "results topic `live` does not exist"
        );
        assert_eq!(json["report"], Value::Null);
        assert_eq!(json["skipped"], json!([]));
        assert!(summary().to_json(None).get("report_missing").is_none());
    }

    #[test]
    fn a_job_that_was_complete_says_that_nothing_was_read() {
        assert!(!summary().to_text(None).contains("nothing was read"));
        let complete = Summary {
            was_complete: true,
            ..summary()
        };
        assert!(complete.to_text(None).contains("nothing was read"));
        assert_eq!(complete.to_json(None)["was_complete"], true);
    }

    #[test]
    fn views_out_of_order_are_told_where_there_were_any() {
        assert!(!summary().to_text(None).contains("order"));
        let disturbed = Summary {
            views_out_of_order: 7,
            ..summary()
        };
        let text = disturbed.to_text(None);
        assert!(
            text.contains("note: 7 views were not taken in the order"),
            "{text}"
        );
        assert_eq!(disturbed.to_json(None)["views_out_of_order"], 7);
    }
}
