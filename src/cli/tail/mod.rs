//! `panoptes tail`: what is on the results topic, one line a part.
//!
//! Dead letters are understood too. A record that is neither is told in its own line and reading
//! goes on: looking must not depend on every writer being in order.

mod line;
mod saved_maps;

use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::cli::bus::BusArgs;
use crate::domain::Record;
use crate::kafka::client::BusSettings;
use crate::kafka::topic_reader::{
    CONNECT_TIMEOUT, ReadFrom, ReadUntil, Reading, TopicReader, TopicReaderError,
    TopicReaderSettings,
};
use crate::schema::published::Published;
use crate::schema::result::Decision;

use line::Colours;
pub(super) use line::printable;
pub use saved_maps::SaveError;

/// How long one look at the topic waits: long enough to cost nothing, short enough to flush.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// How often in a row nothing may come before the end of the topic: with the interval, 30 s.
const MAX_IDLE_POLLS: u32 = 60;

/// Print results as they stand on the bus, one line a part
#[derive(Args, Clone, Debug)]
pub struct TailArguments {
    /// How to reach the brokers.
    #[command(flatten)]
    pub bus: BusArgs,
    /// Results topic, or dead-letter topic
    #[arg(long)]
    pub topic: String,
    /// Print every result of the topic, not only the last ones
    #[arg(long, conflicts_with = "last")]
    pub from_beginning: bool,
    /// How many of the last results to print, of each partition
    #[arg(long, default_value_t = 10, value_name = "COUNT")]
    pub last: u32,
    /// Keep on printing results as they come
    #[arg(short, long)]
    pub follow: bool,
    /// Print only parts with this decision; may be given more than once
    #[arg(long, value_name = "DECISION")]
    pub decision: Vec<Decision>,
    /// Save the anomaly maps as PNG, `<DIR>/<part>/<view>.png`
    #[arg(long, value_name = "DIR")]
    pub save_maps: Option<PathBuf>,
    /// Colours of saved maps
    #[arg(long, value_enum, default_value_t = MapColours::Heat)]
    pub map_colours: MapColours,
    /// Print each result whole, as one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// How saved maps are coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MapColours {
    /// The 8-bit levels as they travel
    Grey,
    /// Black over red and yellow to white
    Heat,
}

impl ValueEnum for Decision {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Ok, Self::Ng, Self::Review]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(crate::domain::Decision::from(*self).as_str().into())
    }
}

/// Why `tail` ended early.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// The topic cannot be read.
    #[error(transparent)]
    Read(#[from] TopicReaderError),
    /// The output is closed.
    #[error("output cannot be written: {0}")]
    Write(#[from] io::Error),
    /// A map cannot be saved.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// The end of the topic was not reached.
    #[error("topic `{topic}` gave nothing for `{waited:?}` before its end was reached")]
    Stalled {
        /// The topic.
        topic: String,
        /// How long nothing came.
        waited: Duration,
    },
}

/// Reads the topic and prints it to standard output, in colours if that is a terminal and
/// `NO_COLOR` is not set.
///
/// # Errors
/// When the settings of the bus are wrong, the topic cannot be read, the output not written, or a map not
/// saved. A reader that closes the output (`| head`) is no error.
pub fn run(arguments: &TailArguments) -> anyhow::Result<()> {
    let settings = reader_settings(arguments, arguments.bus.settings()?);
    let output = io::stdout();
    let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colours = if output.is_terminal() && !is_plain {
        Colours::Ansi
    } else {
        Colours::None
    };
    let mut output = BufWriter::new(output.lock());
    match print_topic(arguments, &settings, &mut output, colours) {
        Err(TailError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => Ok(printed?),
    }
}

fn print_topic(
    arguments: &TailArguments,
    settings: &TopicReaderSettings,
    output: &mut impl Write,
    colours: Colours,
) -> Result<(), TailError> {
    let mut reader = TopicReader::open(settings)?;
    let mut idle_polls = 0;
    loop {
        match reader.next(POLL_INTERVAL)? {
            Reading::Record(record) => {
                idle_polls = 0;
                print_record(arguments, &record, output, colours)?;
            }
            Reading::Finished => return Ok(output.flush()?),
            Reading::Idle => {
                output.flush()?;
                idle_polls += 1;
            }
        }
        if !arguments.follow && idle_polls >= MAX_IDLE_POLLS {
            return Err(TailError::Stalled {
                topic: arguments.topic.clone(),
                waited: POLL_INTERVAL * MAX_IDLE_POLLS,
            });
        }
    }
}

fn reader_settings(arguments: &TailArguments, bus: BusSettings) -> TopicReaderSettings {
    TopicReaderSettings {
        bus,
        topic: arguments.topic.as_str().into(),
        from: if arguments.from_beginning {
            ReadFrom::Beginning
        } else {
            ReadFrom::Last(arguments.last)
        },
        until: if arguments.follow {
            ReadUntil::Forever
        } else {
            ReadUntil::EndOfTopic
        },
        connect_timeout: CONNECT_TIMEOUT,
    }
}

/// Whether the chosen decisions leave the record in; without a choice all stay.
fn is_wanted(content: &Published, decisions: &[Decision]) -> bool {
    match content {
        Published::Result(result) => decisions.is_empty() || decisions.contains(&result.decision),
        Published::DeadLetter(_) => decisions.is_empty(),
        Published::Unreadable(_) => true,
    }
}

fn print_record(
    arguments: &TailArguments,
    record: &Record,
    output: &mut impl Write,
    colours: Colours,
) -> Result<(), TailError> {
    let content = Published::read(record);
    if !is_wanted(&content, &arguments.decision) {
        return Ok(());
    }
    if arguments.json {
        writeln!(output, "{}", json_line(&content, record))?;
    } else {
        let text = match &content {
            Published::Result(result) => line::result_line(result, colours),
            Published::DeadLetter(note) => line::dead_letter_line(note, record, colours),
            Published::Unreadable(error) => line::unreadable_line(error, record, colours),
        };
        writeln!(output, "{text}")?;
    }
    if let (Some(directory), Published::Result(result)) = (&arguments.save_maps, &content) {
        saved_maps::save(result, directory, arguments.map_colours)?;
    }
    Ok(())
}

fn json_line(content: &Published, record: &Record) -> serde_json::Value {
    match content {
        Published::Result(result) => json!(result),
        Published::DeadLetter(note) => json!({ "dead_letter": {
            "key": record.key.as_deref().map(String::from_utf8_lossy),
            "reason": note.reason,
            "error": note.error,
            "topic": note.source.topic.as_str(),
            "partition": note.source.partition,
            "offset": note.source.offset,
            "timestamp": note.timestamp.map(|time| time.0),
        }}),
        Published::Unreadable(error) => json!({ "unreadable": {
            "key": record.key.as_deref().map(String::from_utf8_lossy),
            "source": record.source.to_string(),
            "error": error.to_string(),
        }}),
    }
}

#[cfg(test)]
mod tests;
