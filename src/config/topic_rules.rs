//! Rules for topics: those that are read, by name or by pattern, and those that are written.

use regex::Regex;

use super::validation::Rules;

/// What Rust's regular expressions know and POSIX's do not, and what to write instead.
const NOT_POSIX: [(&str, &str); 9] = [
    ("\\d", "`[0-9]`"),
    ("\\D", "`[^0-9]`"),
    ("\\w", "`[A-Za-z0-9_]`"),
    ("\\W", "`[^A-Za-z0-9_]`"),
    ("\\s", "nothing: topic names hold no spaces"),
    ("\\S", "`.`"),
    ("\\b", "the characters around it"),
    ("\\B", "the characters around it"),
    ("(?", "a plain group `(`"),
];

/// The longest name of a Kafka topic.
const MAX_TOPIC_LENGTH: usize = 249;

impl Rules<'_> {
    pub(super) fn input(&mut self) {
        let input = &self.settings.input;
        match (input.topics.is_empty(), &input.topic_regex) {
            (true, None) => self.missing(
                "input.topics",
                "either `input.topics` or `input.topic_regex` must be set",
            ),
            (false, Some(regex)) => self.require(
                false,
                "input.topic_regex",
                regex,
                "must not be set together with `input.topics`",
            ),
            (true, Some(regex)) => self.topic_regex(regex),
            (false, None) => {}
        }
        for (index, topic) in input.topics.iter().enumerate() {
            self.topic("input.topics", topic);
            self.require(
                !input.topics[..index].contains(topic),
                "input.topics",
                topic,
                "must not be named twice",
            );
        }
        if let Some(line) = &input.line {
            self.name("input.line", line);
        }
        if let Some(class) = &input.class {
            self.name("input.class", class);
        }
    }

    fn topic_regex(&mut self, text: &str) {
        self.require(
            text.starts_with('^'),
            "input.topic_regex",
            text,
            "must start with `^`, as Kafka clients tell a pattern from a name by it",
        );
        for (pattern, instead) in NOT_POSIX {
            self.require(
                !holds_unescaped(text, pattern),
                "input.topic_regex",
                text,
                &format!(
                    "must be a POSIX extended regular expression, as Kafka's client matches it: \
                     instead of `{pattern}` write {instead}"
                ),
            );
        }
        if let Err(error) = Regex::new(text) {
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or_default().to_owned();
            self.require(
                false,
                "input.topic_regex",
                text,
                &format!("must be a regular expression: {reason}"),
            );
        }
    }

    /// Whether a topic is among the inputs.
    fn reads(&self, topic: &str) -> bool {
        let input = &self.settings.input;
        match &input.topic_regex {
            Some(text) => Regex::new(text).is_ok_and(|regex| regex.is_match(topic)),
            None => input.topics.iter().any(|name| name == topic),
        }
    }

    pub(super) fn output_topics(&mut self) {
        let output = &self.settings.output;
        let closed_parts = self.settings.closed_parts_topic();
        for (key, topic) in [
            ("output.results_topic", &output.results_topic),
            ("output.dead_letter_topic", &output.dead_letter_topic),
            ("output.closed_parts_topic", &closed_parts),
        ] {
            self.topic(key, topic);
            self.require(
                !self.reads(topic),
                key,
                topic,
                "must not be among the topics that are read",
            );
        }
        self.require(
            output.results_topic != output.dead_letter_topic,
            "output.dead_letter_topic",
            &output.dead_letter_topic,
            "must differ from `output.results_topic`",
        );
        self.require(
            ![&output.results_topic, &output.dead_letter_topic].contains(&&closed_parts),
            "output.closed_parts_topic",
            &closed_parts,
            "must differ from `output.results_topic` and `output.dead_letter_topic`",
        );
    }

    fn topic(&mut self, key: &str, topic: &str) {
        let is_topic = (1..=MAX_TOPIC_LENGTH).contains(&topic.len())
            && topic != "."
            && topic != ".."
            && topic
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        self.require(
            is_topic,
            key,
            topic,
            "must be a topic name: 1 to 249 of the characters a-z, A-Z, 0-9, `.`, `_` and `-`",
        );
    }
}

/// Whether a regular expression holds a pattern of two characters that no backslash before it
/// makes mean something else.
fn holds_unescaped(text: &str, pattern: &str) -> bool {
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if rest.starts_with(pattern) {
            return true;
        }
        let escaped = rest.strip_prefix('\\').and_then(|rest| rest.chars().next());
        let step = first.len_utf8() + escaped.map_or(0, char::len_utf8);
        rest = rest.get(step..).unwrap_or_default();
    }
    false
}
