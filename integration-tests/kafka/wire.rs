//! One record, produced in Kafka's own protocol: for what no client library lets one send.
//!
//! Produce request version 3 and record batch version 2, as <https://kafka.apache.org/protocol>
//! and `DefaultRecordBatch` describe them. All numbers are big-endian, those inside a record zigzag.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::Broker;

/// Sends one record to partition 0 of a topic and waits until the broker has it. Names of headers
/// are bytes, as on the wire.
pub(crate) fn produce(
    broker: &Broker,
    topic: &str,
    key: &str,
    value: &[u8],
    headers: &[(&[u8], &[u8])],
) {
    let mut request = Vec::new();
    request.extend(0i16.to_be_bytes()); // api key: Produce
    request.extend(3i16.to_be_bytes()); // its version
    request.extend(7i32.to_be_bytes()); // correlation
    push_text(&mut request, "panoptes-tests");
    request.extend((-1i16).to_be_bytes()); // no transaction
    request.extend((-1i16).to_be_bytes()); // acks: all
    request.extend(30_000i32.to_be_bytes());
    request.extend(1i32.to_be_bytes()); // topics
    push_text(&mut request, topic);
    request.extend(1i32.to_be_bytes()); // partitions
    request.extend(0i32.to_be_bytes()); // partition number
    push_sized(&mut request, &batch(&record(key, value, headers)));

    let mut stream = TcpStream::connect(broker.address()).unwrap();
    let mut sent = Vec::new();
    push_sized(&mut sent, &request);
    stream.write_all(&sent).unwrap();
    let mut size = [0; 4];
    stream.read_exact(&mut size).unwrap();
    let mut answer = vec![0; u32::from_be_bytes(size) as usize];
    stream.read_exact(&mut answer).unwrap();
    // correlation, topics, name, partitions, partition number; then the error.
    let at = 4 + 4 + 2 + topic.len() + 4 + 4;
    assert_eq!(answer[at..at + 2], [0, 0], "produce failed: {answer:?}");
}

fn record(key: &str, value: &[u8], headers: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut record = vec![0, 0, 0]; // attributes, time and offset within the batch
    push_varint_sized(&mut record, key.as_bytes());
    push_varint_sized(&mut record, value);
    push_varint(&mut record, headers.len());
    for (name, value) in headers {
        push_varint_sized(&mut record, name);
        push_varint_sized(&mut record, value);
    }
    let mut sized = Vec::new();
    push_varint_sized(&mut sized, &record);
    sized
}

fn batch(record: &[u8]) -> Vec<u8> {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis() as i64;
    let mut checked = Vec::new();
    checked.extend(0i16.to_be_bytes()); // attributes: not compressed
    checked.extend(0i32.to_be_bytes()); // last offset
    checked.extend(now.to_be_bytes());
    checked.extend(now.to_be_bytes());
    checked.extend((-1i64).to_be_bytes()); // no producer ID
    checked.extend((-1i16).to_be_bytes());
    checked.extend((-1i32).to_be_bytes());
    checked.extend(1i32.to_be_bytes()); // records
    checked.extend(record);
    let mut rest = (-1i32).to_be_bytes().to_vec(); // leader epoch
    rest.push(2); // version
    rest.extend(crc32c(&checked).to_be_bytes());
    rest.extend(checked);
    let mut batch = 0i64.to_be_bytes().to_vec(); // first offset
    push_sized(&mut batch, &rest);
    batch
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as i16).to_be_bytes());
    bytes.extend(text.as_bytes());
}

fn push_sized(bytes: &mut Vec<u8>, more: &[u8]) {
    bytes.extend((more.len() as i32).to_be_bytes());
    bytes.extend(more);
}

fn push_varint_sized(bytes: &mut Vec<u8>, more: &[u8]) {
    push_varint(bytes, more.len());
    bytes.extend(more);
}

/// A length: zigzag of a number that is not negative.
fn push_varint(bytes: &mut Vec<u8>, length: usize) {
    let mut number = length << 1;
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// The Castagnoli checksum, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let mask = if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
            crc = (crc >> 1) ^ mask;
        }
    }
    !crc
}
