//! Why a transaction was aborted, and what of it ends the publisher.

use std::fmt;

use rdkafka::error::KafkaError;

use super::publisher::{PublishError, produce_error};
use crate::domain::Topic;

/// Why a transaction was aborted.
pub(super) struct Refusal {
    /// Whose record was not taken, if that is why.
    pub(super) topic: Option<Topic>,
    pub(super) error: KafkaError,
}

impl Refusal {
    pub(super) fn of_topic(topic: &Topic, error: KafkaError) -> Self {
        let topic = Some(topic.clone());
        Self { topic, error }
    }

    /// What the publisher ends with, where it is for good.
    pub(super) fn into_error(self) -> PublishError {
        match self.topic {
            Some(topic) => produce_error(&topic, self.error),
            None => unusable("go on with")(self.error),
        }
    }
}

impl From<KafkaError> for Refusal {
    fn from(error: KafkaError) -> Self {
        Self { topic: None, error }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.topic {
            Some(topic) => write!(
                formatter,
                "a record for `{topic}` was not taken: {}",
                self.error
            ),
            None => self.error.fmt(formatter),
        }
    }
}

/// The producer is beyond repair since it was to do this with a transaction.
pub(super) fn unusable(during: &'static str) -> impl Fn(KafkaError) -> PublishError {
    move |source| PublishError::Unusable { during, source }
}
