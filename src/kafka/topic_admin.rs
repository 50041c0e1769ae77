//! Creates topics, for the tools that publish on an empty broker, and deletes those of a bench.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::client::BusSettings;
use crate::domain::Topic;

/// How long the brokers may take to answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The pause before they are asked again for what was just created.
const VISIBILITY_INTERVAL: Duration = Duration::from_millis(20);

/// Leaves the number of copies to the broker's `default.replication.factor`, that of partitions to its
/// `num.partitions`.
const BROKER_DEFAULT: i32 = -1;

/// Why the topics are not as asked for.
#[derive(Debug, thiserror::Error)]
pub enum TopicAdminError {
    /// The client could not be made, or the brokers did not answer.
    #[error("failed to create or delete topics: {0}")]
    Request(#[from] KafkaError),
    /// A topic was refused.
    #[error("failed to {what} topic `{topic}`: {code}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// The topic.
        topic: String,
        /// The broker's reason.
        code: RDKafkaErrorCode,
    },
    /// A topic exists with another number of partitions. The views of a part must meet on one
    /// partition number, so all camera topics need as many.
    #[error("expected topic `{topic}` to have `{expected}` partitions, found `{found}`")]
    PartitionCount {
        /// The topic.
        topic: Topic,
        /// Partitions asked for.
        expected: usize,
        /// Partitions that it has.
        found: usize,
    },
}

/// Creates those of the topics that do not exist, each with `partitions` partitions, and checks
/// that those that exist have as many.
///
/// # Errors
/// When the brokers cannot be reached or refuse, or when an existing topic differs.
pub async fn create_topics(
    bus: &BusSettings,
    topics: &[Topic],
    partitions: u16,
) -> Result<(), TopicAdminError> {
    create_topics_with(bus, topics, partitions, &[]).await
}

/// Creates those of the topics that do not exist, with as many partitions and copies as the brokers give to one of
/// which nothing is said (`num.partitions`, `default.replication.factor`).
///
/// # Errors
/// When the brokers cannot be reached or refuse.
pub async fn create_topics_of_broker_size(
    bus: &BusSettings,
    topics: &[Topic],
) -> Result<(), TopicAdminError> {
    let admin: AdminClient<DefaultClientContext> = bus.client_config().create()?;
    let topics = topics.iter().map(|topic| new_topic(topic, BROKER_DEFAULT));
    create(&admin, &topics.collect::<Vec<_>>()).await
}

/// As [`create_topics`], with properties of the topics that differ from the broker's.
///
/// # Errors
/// As [`create_topics`].
pub async fn create_topics_with(
    bus: &BusSettings,
    topics: &[Topic],
    partitions: u16,
    properties: &[(&str, &str)],
) -> Result<(), TopicAdminError> {
    let admin: AdminClient<DefaultClientContext> = bus.client_config().create()?;
    let new_topics: Vec<NewTopic<'_>> = topics
        .iter()
        .map(|topic| {
            let new = new_topic(topic, i32::from(partitions));
            let properties = properties.iter();
            properties.fold(new, |new, (name, value)| new.set(name, value))
        })
        .collect();
    create(&admin, &new_topics).await?;
    let topics = topics.to_vec();
    tokio::task::spawn_blocking(move || await_topics(&admin, &topics, partitions))
        .await
        .map_err(|_| KafkaError::Canceled)?
}

fn new_topic(topic: &Topic, partitions: i32) -> NewTopic<'_> {
    let replication = TopicReplication::Fixed(BROKER_DEFAULT);
    NewTopic::new(topic.as_str(), partitions, replication)
}

async fn create(
    admin: &AdminClient<DefaultClientContext>,
    topics: &[NewTopic<'_>],
) -> Result<(), TopicAdminError> {
    for answer in admin.create_topics(topics, &options()).await? {
        match answer {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => {
                let what = "create";
                return Err(TopicAdminError::Refused { what, topic, code });
            }
        }
    }
    Ok(())
}

/// Deletes topics with all that they hold, and consumer groups that nobody is in. What is not there is
/// passed over.
///
/// # Errors
/// When the brokers cannot be reached or refuse.
pub async fn delete_topics(
    bus: &BusSettings,
    topics: &[Topic],
    groups: &[&str],
) -> Result<(), TopicAdminError> {
    let admin: AdminClient<DefaultClientContext> = bus.client_config().create()?;
    let names: Vec<&str> = topics.iter().map(Topic::as_str).collect();
    let options = options();
    let mut answers = admin.delete_topics(&names, &options).await?;
    answers.extend(admin.delete_groups(groups, &options).await?);
    for answer in answers {
        match answer {
            Ok(_)
            | Err((
                _,
                RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::GroupIdNotFound,
            )) => {}
            Err((topic, code)) => {
                let what = "delete";
                return Err(TopicAdminError::Refused { what, topic, code });
            }
        }
    }
    Ok(())
}

/// The `cleanup.policy` of topics, of those of which the brokers tell it.
///
/// # Errors
/// When the brokers cannot be reached.
pub async fn cleanup_policies(
    bus: &BusSettings,
    topics: &BTreeSet<Topic>,
) -> Result<BTreeMap<Topic, String>, TopicAdminError> {
    let admin: AdminClient<DefaultClientContext> = bus.client_config().create()?;
    let named = topics
        .iter()
        .map(|topic| ResourceSpecifier::Topic(topic.as_str()));
    let named: Vec<ResourceSpecifier<'_>> = named.collect();
    let answers = admin.describe_configs(&named, &options()).await?;
    let told = answers
        .into_iter()
        .zip(topics)
        .filter_map(|(answer, topic)| {
            let policy = answer.ok()?.get("cleanup.policy")?.value.clone()?;
            Some((topic.clone(), policy))
        });
    Ok(told.collect())
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(REQUEST_TIMEOUT))
        .operation_timeout(Some(REQUEST_TIMEOUT))
}

/// Waits until a broker tells of all topics, which may be a moment after they were created, and checks how
/// many partitions they have.
fn await_topics(
    admin: &AdminClient<DefaultClientContext>,
    topics: &[Topic],
    partitions: u16,
) -> Result<(), TopicAdminError> {
    let deadline = Instant::now() + REQUEST_TIMEOUT;
    loop {
        // All topics are asked for: naming one that is gone by now would create it on some brokers.
        let metadata = admin.inner().fetch_metadata(None, REQUEST_TIMEOUT)?;
        let told = metadata.topics().iter();
        let told: HashMap<&str, usize> = told
            .map(|topic| (topic.name(), topic.partitions().len()))
            .collect();
        let mut untold = None;
        for topic in topics {
            match told.get(topic.as_str()) {
                Some(&found) if found == usize::from(partitions) => {}
                Some(&found) => {
                    return Err(TopicAdminError::PartitionCount {
                        topic: topic.clone(),
                        expected: usize::from(partitions),
                        found,
                    });
                }
                None => untold = Some(topic),
            }
        }
        match untold {
            None => return Ok(()),
            Some(topic) if Instant::now() >= deadline => {
                return Err(TopicAdminError::Refused {
                    what: "see",
                    topic: topic.to_string(),
                    code: RDKafkaErrorCode::UnknownTopicOrPartition,
                });
            }
            Some(_) => std::thread::sleep(VISIBILITY_INTERVAL),
        }
    }
}
