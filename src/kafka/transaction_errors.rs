//! What an error of a transaction means for the transaction, and for its producer.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Whether the same call may succeed when it is made again.
pub(super) fn is_retriable(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Transaction(error) if error.is_retriable())
}

/// Whether the transaction can only be aborted.
pub(super) fn requires_abort(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Transaction(error) if error.txn_requires_abort())
}

/// Whether the client has let go of a record, since something has failed the transaction.
pub(super) fn is_purge(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    let purges = [
        RDKafkaErrorCode::PurgeQueue,
        RDKafkaErrorCode::PurgeInflight,
    ];
    code.is_some_and(|code| purges.contains(&code))
}

/// Whether the brokers do not know a topic or partition.
pub(super) fn is_of_topics(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnknownTopicOrPartition)
}

/// Whether the brokers say that the group has gone on without this member.
pub(super) fn disowns(error: &KafkaError) -> bool {
    let KafkaError::Transaction(error) = error else {
        return false;
    };
    matches!(
        error.code(),
        RDKafkaErrorCode::UnknownMemberId
            | RDKafkaErrorCode::IllegalGeneration
            | RDKafkaErrorCode::FencedInstanceId
    )
}

/// Whether brokers would say the same to another producer with these settings.
pub(crate) fn refuses_for_good(error: &KafkaError) -> bool {
    let code = match error {
        KafkaError::Transaction(error) => Some(error.code()),
        KafkaError::MessageProduction(code) => Some(*code),
        _ => None,
    };
    matches!(
        code,
        Some(
            RDKafkaErrorCode::TransactionalIdAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::InvalidTransactionTimeout
                | RDKafkaErrorCode::UnsupportedVersion
                | RDKafkaErrorCode::UnsupportedFeature
        )
    )
}

/// Whether another producer has this one's name by now, or the brokers have gone on without it.
pub(crate) fn is_fenced(error: &KafkaError) -> bool {
    let KafkaError::Transaction(error) = error else {
        return false;
    };
    matches!(
        error.code(),
        RDKafkaErrorCode::Fenced
            | RDKafkaErrorCode::ProducerFenced
            | RDKafkaErrorCode::InvalidProducerEpoch
    )
}
