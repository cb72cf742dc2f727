//! The newest lines of a log, read backwards in bounded time and memory.

use std::io::{self, Read};

use super::{
    lines::{Line, Lines, segment_name, segments},
    record,
    storage::Storage,
};

/// Most bytes of lines one answer holds: 10,000 records of the usual size fit; beyond it fewer
/// lines come back than were asked for.
const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// First piece read from a segment's end; doubled until it holds enough lines.
const FIRST_WINDOW: u64 = 64 * 1024;

/// The newest `count` lines, oldest first; at most 16 MiB of them. Lines that a later segment
/// set aside are no part of the log and left out, as is a torn last line.
///
/// # Errors
/// When a file cannot be read.
pub fn tail(storage: &dyn Storage, count: usize) -> io::Result<Vec<String>> {
    let mut numbers = segments(storage)?;
    let mut newest_first: Vec<String> = Vec::new();
    let mut budget = MAX_BYTES;
    // Lines at or past this sequence stand in a later segment.
    let mut limit = u64::MAX;
    while let Some(number) = numbers.pop() {
        let missing = count.saturating_sub(newest_first.len());
        if missing == 0 || budget == 0 {
            break;
        }
        for line in last_lines(storage, number, missing, limit, budget)? {
            budget = budget.saturating_sub(u64::try_from(line.len()).unwrap_or(u64::MAX));
            newest_first.push(line);
        }
        limit = limit.min(sets_aside_from(storage, number)?);
    }
    newest_first.reverse();
    Ok(newest_first)
}

/// From which sequence on a segment sets the lines of earlier ones aside.
fn sets_aside_from(storage: &dyn Storage, number: u64) -> io::Result<u64> {
    let Some(Line::Whole(line)) = Lines::open(storage, number)?.next()? else {
        return Ok(u64::MAX);
    };
    let head = record::read(&line).ok().filter(|entry| entry.sound);
    let head = head.and_then(|entry| entry.segment);
    Ok(head
        .filter(|head| head.cause.sets_aside())
        .map_or(u64::MAX, |head| head.size))
}

/// The last `wanted` lines before the record `limit`, newest first.
fn last_lines(
    storage: &dyn Storage,
    number: u64,
    wanted: usize,
    limit: u64,
    budget: u64,
) -> io::Result<Vec<String>> {
    let name = segment_name(number);
    let size = storage.size(&name)?;
    let mut window = FIRST_WINDOW.min(budget);
    loop {
        let from = size.saturating_sub(window);
        let mut bytes = Vec::new();
        storage
            .read(&name, from)?
            .take(size.saturating_sub(from))
            .read_to_end(&mut bytes)?;
        let mut pieces = bytes.split(|byte| *byte == b'\n');
        if from > 0 {
            // It begins somewhere inside of a line.
            pieces.next();
        }
        let mut lines: Vec<&[u8]> = pieces.collect();
        // After the last newline: nothing, or a torn line.
        lines.pop();
        if limit < u64::MAX {
            lines.retain(|line| record::read(line).map_or(true, |it| it.sequence < limit));
        }
        if lines.len() >= wanted || from == 0 || window >= budget {
            let text = |line: &&[u8]| String::from_utf8_lossy(line).into_owned();
            return Ok(lines.iter().rev().take(wanted).map(text).collect());
        }
        window = window.saturating_mul(2).min(budget);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        audit::{
            AuditEvent, Log, LogOptions,
            record::SegmentCause,
            storage::faulty::{Faults, Faulty},
        },
        types::{EventId, ManualClock},
    };

    fn log(storage: &Faulty) -> Log {
        let options = LogOptions {
            segment_size: 1 << 30,
            remembered_ids: 64,
            version: "test".to_owned(),
            clock: Arc::new(ManualClock::default()),
            checkpoints: None,
        };
        Log::open(Arc::new(storage.clone()), options).unwrap()
    }

    fn append(log: &mut Log, text: &str) {
        let reason = format!("number {text}");
        let answers = log.append(&[(EventId::random(), AuditEvent::NodeStopping { reason })]);
        assert!(answers[0].is_ok());
    }

    fn all_lines(storage: &Faulty) -> Vec<String> {
        let bytes: Vec<u8> = storage
            .names()
            .iter()
            .flat_map(|name| storage.bytes(name))
            .collect();
        let text = String::from_utf8(bytes).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn it_reads_across_segments_and_windows() {
        let storage = Faulty::new(1);
        let mut log = log(&storage);
        for n in 0..4 {
            append(&mut log, &n.to_string());
        }
        log.rotate(SegmentCause::Command).unwrap();
        // More than the first window.
        for n in 0..200 {
            append(&mut log, &n.to_string());
        }
        let all = all_lines(&storage);
        assert!(storage.size(&segment_name(2)).unwrap() > FIRST_WINDOW);
        for count in [0, 1, 50, 200, 201, 202, 206, 999] {
            let newest = tail(&storage, count).unwrap();
            assert_eq!(newest, all[all.len() - count.min(all.len())..]);
        }
        let mut bytes = storage.bytes(&segment_name(2));
        bytes.extend_from_slice(b"{\"torn");
        storage.put(&segment_name(2), &bytes);
        assert_eq!(tail(&storage, 1).unwrap(), all[all.len() - 1..]);
    }

    #[test]
    fn lines_that_were_set_aside_are_left_out() {
        let storage = Faulty::new(1);
        let mut log = log(&storage);
        append(&mut log, "1");
        // The sync fails, and its remains cannot be cut off.
        storage.set(Faults {
            at: Some(1),
            truncate_fails: 100,
            ..Faults::default()
        });
        append(&mut log, "2");
        assert_eq!(all_lines(&storage).len(), 5);
        let newest = tail(&storage, 9).unwrap();
        let twos = newest.iter().filter(|line| line.contains("number 2"));
        assert_eq!((twos.count(), newest.len()), (1, 4));
    }
}
