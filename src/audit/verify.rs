//! Reading a log back: is it one unbroken chain, and if not, where and how is it damaged?
//!
//! Verification reads on past a bad line, in bounded memory. It shows that lines were altered,
//! removed or moved. That the newest lines were cut off, or the whole log written anew, shows by a
//! checkpoint: the file beside the segments, the log's own, one that an auditor kept.

mod against;

use std::{collections::BTreeMap, fmt, io};

use serde::Serialize;

use super::{
    checkpoint::SignedCheckpoint,
    lines::{Line, Lines, segment_name, segments},
    merkle::{Frontier, Hash},
    record::{self, Entry, Head, MAX_LINE, SegmentHead},
    storage::Storage,
};
use crate::types::EventId;

use against::Against;
pub use against::{CHECKPOINT_FILE, Expected, kept_checkpoint};

/// Findings kept; more are only counted.
const MAX_FINDINGS: usize = 1_000;

/// Kinds of damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Damage {
    /// A line that is no record.
    Malformed,
    /// A line longer than any record.
    TooLong,
    /// A record whose bytes do not have the fingerprint it claims.
    Altered,
    /// A record that does not follow the one before it.
    ChainBroken,
    /// A record that stands earlier in the log, or in the wrong order.
    Repeated,
    /// Records are missing before this one.
    Gap,
    /// A segment file is missing.
    MissingSegment,
    /// A segment whose first line is none, or of another segment.
    WrongSegment,
    /// A torn line in a segment that was closed in order.
    TornInside,
    /// A segment's first line names another Merkle tree than the records before it have.
    WrongTree,
    /// The records before this place are not those that a checkpoint speaks of.
    CheckpointDiffers,
    /// No checkpoint, or one whose signature does not hold.
    BadCheckpoint,
    /// The file with the newest checkpoint is missing, or older than one in the log.
    CheckpointMissing,
    /// The log ends before a checkpoint of it does.
    Shortened,
    /// No checkpoint bears a signature of the keys that were given.
    NotSigned,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "this line is no record",
            Self::TooLong => "this line is longer than any record",
            Self::Altered => "this record was altered: its bytes do not have its fingerprint",
            Self::ChainBroken => "this record does not follow the one before it",
            Self::Repeated => "this record stands earlier in the log, or in the wrong order",
            Self::Gap => "records are missing before this one",
            Self::MissingSegment => "this segment is missing",
            Self::WrongSegment => "this segment's first line does not belong to it",
            Self::TornInside => "a torn line in a segment that was closed in order",
            Self::WrongTree => {
                "this segment's first line names another tree than the records before it have"
            }
            Self::CheckpointDiffers => {
                "the records before this one are not those that a signed checkpoint speaks of: the \
                 log was written anew"
            }
            Self::BadCheckpoint => "this is no checkpoint of this log, or its signature is forged",
            Self::CheckpointMissing => {
                "the newest checkpoint was taken away, or an older one was put back"
            }
            Self::Shortened => {
                "the log ends here, and a signed checkpoint speaks of more records: the newest were \
                 cut off, or an older copy was put back"
            }
            Self::NotSigned => "no checkpoint of this log is signed with the keys that were given",
        })
    }
}

/// One place of damage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// File name of the segment.
    pub file: String,
    /// Line, counted from 1; 0 for the file as a whole.
    pub line: u64,
    /// The record's place in the log, as expected there.
    pub sequence: u64,
    /// What is wrong.
    pub damage: Damage,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            sequence,
            damage,
        } = self;
        write!(f, "{file}:{line}: record {sequence}: {damage}")
    }
}

/// What verification found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Report {
    /// Segment files read.
    pub segments: usize,
    /// Good records read.
    pub records: u64,
    /// Lines set aside by a later segment: written after a fault, never acknowledged.
    pub set_aside: u64,
    /// The newest record's fingerprint.
    pub head: Option<String>,
    /// The root of the Merkle tree over all records, when nothing is damaged.
    pub root: Option<Hash>,
    /// Checkpoints in the log that agree with it.
    pub checkpoints: u64,
    /// Whether keys were given to judge signatures with.
    pub keys_given: bool,
    /// Records vouched for by the newest checkpoint: a signed one when keys were given, else one
    /// whose signature nobody judged.
    pub vouched: Option<u64>,
    /// Checkpoints of keys that were not given: of the node before it changed its keys, perhaps.
    pub other_keys: u64,
    /// Bytes of a torn last line: what a crash leaves, repaired at the next start.
    pub torn_bytes: u64,
    /// Damage, at most a thousand places.
    pub findings: Vec<Finding>,
    /// All places of damage.
    pub damaged: u64,
}

impl Report {
    /// Whether the log is one unbroken chain.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.damaged == 0
    }

    fn found(&mut self, finding: Finding) {
        self.damaged = self.damaged.saturating_add(1);
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding);
        }
    }
}

/// The state of reading one segment.
pub(super) struct Chain {
    number: u64,
    line: u64,
    /// The head before the next line; `None`: taken from the next good line.
    head: Option<Head>,
    /// The tree before the next line; `None`: taken from the next segment's first line.
    tree: Option<Frontier>,
}

impl Chain {
    /// Begins at a segment's first line, whose own word is taken for what went before.
    pub(super) fn at_segment(number: u64) -> Self {
        Self {
            number,
            line: 0,
            head: None,
            tree: None,
        }
    }

    fn after(number: u64, head: Option<Head>, tree: Option<Frontier>) -> Self {
        Self {
            number,
            line: 0,
            head,
            tree,
        }
    }

    /// The line that was checked last, from 1.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// The tree over the lines up to the last one that was checked; `None` after damage.
    pub(super) fn tree(&self) -> Option<&Frontier> {
        self.tree.as_ref()
    }

    /// The head after the last line that was checked.
    pub(super) fn head(&self) -> Head {
        self.head.unwrap_or_else(Head::genesis)
    }

    fn finding(&self, damage: Damage) -> Finding {
        Finding {
            file: segment_name(self.number),
            line: self.line,
            sequence: self.head.map_or(0, |head| head.size),
            damage,
        }
    }

    /// Checks the next line. After a sound one the chain goes on from where it says it is; an
    /// altered one is not believed about its place, or it could put the lines after it past a
    /// set-aside limit, where nobody judges them.
    pub(super) fn check(&mut self, line: &Line) -> Result<Entry, Finding> {
        self.line = self.line.saturating_add(1);
        let bytes = match line {
            Line::Whole(bytes) | Line::Torn(bytes) => bytes,
            Line::TooLong => {
                self.tree = None;
                return Err(self.finding(Damage::TooLong));
            }
        };
        debug_assert!(bytes.len() <= MAX_LINE);
        let Ok(entry) = record::read(bytes) else {
            self.tree = None;
            return Err(self.finding(Damage::Malformed));
        };
        let judged = self.judge(&entry);
        self.grow(&entry, bytes, judged.is_none());
        let mut next = entry.head();
        if let Some(head) = self.head.filter(|_| !entry.sound) {
            next.size = head.size.saturating_add(1);
        }
        self.head = Some(next);
        match judged {
            None => Ok(entry),
            Some(finding) => Err(finding),
        }
    }

    fn judge(&self, entry: &Entry) -> Option<Finding> {
        if !entry.sound {
            return Some(self.finding(Damage::Altered));
        }
        if (self.line == 1) != entry.segment.is_some() {
            return Some(self.finding(Damage::WrongSegment));
        }
        if let Some(segment) = &entry.segment
            && !self.begins_here(segment, entry)
        {
            return Some(self.finding(Damage::WrongSegment));
        }
        let Some(head) = &self.head else {
            return None;
        };
        if entry.sequence < head.size {
            return Some(self.finding(Damage::Repeated));
        }
        if entry.sequence > head.size {
            return Some(self.finding(Damage::Gap));
        }
        let expected = (head.size > 0).then_some(head.fingerprint);
        if entry.previous != expected {
            return Some(self.finding(Damage::ChainBroken));
        }
        self.judge_tree(entry).map(|damage| self.finding(damage))
    }

    /// What a line says of the tree before it. Without a known tree nothing can be said.
    fn judge_tree(&self, entry: &Entry) -> Option<Damage> {
        let tree = self.tree.as_ref()?;
        if let Some(segment) = &entry.segment
            && segment.frontier().as_ref() != Some(tree)
        {
            return Some(Damage::WrongTree);
        }
        let note = entry.checkpoint.as_ref()?;
        match SignedCheckpoint::read(note.as_bytes()) {
            Err(_) => Some(Damage::BadCheckpoint),
            Ok(signed) => {
                let says = signed.checkpoint();
                let agrees = (says.size, says.root) == (tree.size(), tree.root());
                (!agrees).then_some(Damage::CheckpointDiffers)
            }
        }
    }

    /// Adds a good line to the tree. After a bad one the tree is unknown until a segment begins: what
    /// follows is judged by what that says.
    fn grow(&mut self, entry: &Entry, line: &[u8], good: bool) {
        if !good {
            self.tree = None;
            return;
        }
        if self.tree.is_none() {
            self.tree = entry.segment.as_ref().and_then(SegmentHead::frontier);
        }
        if let Some(tree) = &mut self.tree {
            tree.push(Hash::leaf(line));
        }
    }

    /// Whether a first line is what a segment of this number begins with, and agrees with itself.
    fn begins_here(&self, segment: &SegmentHead, entry: &Entry) -> bool {
        segment.number == self.number
            && segment.frontier().is_some()
            && segment.size == entry.sequence
            && entry
                .previous
                .is_none_or(|previous| previous == segment.head)
    }
}

/// The first line of each segment that sets others aside, by number: lines of earlier segments
/// at or past its size do not count.
pub(super) fn set_asides(storage: &dyn Storage, numbers: &[u64]) -> io::Result<BTreeMap<u64, u64>> {
    let mut found = BTreeMap::new();
    for &number in numbers {
        let Some(Line::Whole(line)) = Lines::open(storage, number)?.next()? else {
            continue;
        };
        let head = record::read(&line)
            .ok()
            .filter(|entry| entry.sound)
            .and_then(|e| e.segment);
        if let Some(head) = head.filter(|head| head.cause.sets_aside()) {
            found.insert(number, head.size);
        }
    }
    Ok(found)
}

/// From which sequence on the lines of segment `number` are set aside by a later one; `None`: all
/// count.
pub(super) fn limit_of(aside: &BTreeMap<u64, u64>, number: u64) -> Option<u64> {
    let later = aside.range(number.saturating_add(1)..);
    later.map(|(_, size)| *size).min()
}

/// Whether segment `number` or a later one repeats whatever earlier ones hold after `head`.
fn is_covered(aside: &BTreeMap<u64, u64>, number: u64, head: Option<Head>) -> bool {
    let from_here = limit_of(aside, number.saturating_sub(1));
    is_past(from_here, head.map(|head| head.size))
}

fn is_past(limit: Option<u64>, sequence: Option<u64>) -> bool {
    limit
        .zip(sequence)
        .is_some_and(|(limit, sequence)| sequence >= limit)
}

/// Verifies a whole log.
///
/// # Errors
/// When a file cannot be read at all.
pub fn verify(storage: &dyn Storage) -> io::Result<Report> {
    verify_against(storage, &Expected::default())
}

/// Verifies a whole log against what an auditor knows of it.
///
/// # Errors
/// When a file cannot be read at all.
pub fn verify_against(storage: &dyn Storage, expected: &Expected<'_>) -> io::Result<Report> {
    let mut report = Report::default();
    walk(storage, &mut report, expected, |_, _| {})?;
    Ok(report)
}

/// Hands every good record of a log to `each`, oldest first, with its line.
///
/// # Errors
/// When a file cannot be read at all.
pub fn for_each_record(
    storage: &dyn Storage,
    each: impl FnMut(&Entry, &[u8]),
) -> io::Result<Report> {
    let mut report = Report::default();
    walk(storage, &mut report, &Expected::default(), each)?;
    Ok(report)
}

fn walk(
    storage: &dyn Storage,
    report: &mut Report,
    expected: &Expected<'_>,
    mut each: impl FnMut(&Entry, &[u8]),
) -> io::Result<()> {
    let numbers = segments(storage)?;
    let aside = set_asides(storage, &numbers)?;
    let mut against = Against::new(storage, expected)?;
    let (mut head, mut tree) = (Some(Head::genesis()), Some(Frontier::default()));
    let mut end = (segment_name(1), 0);
    // Nothing here archives segments, so a log without its first is not whole.
    let mut next_number = 1;
    for (i, &number) in numbers.iter().enumerate() {
        report.segments += 1;
        let limit = limit_of(&aside, number);
        // A segment that could not be begun and was removed leaves a hole in the numbers. It is
        // no damage when a later one sets everything from here on aside: whatever stood there
        // did not count.
        let covered = is_covered(&aside, number, head);
        if number != next_number && !covered {
            report.found(Finding {
                file: segment_name(next_number),
                line: 0,
                sequence: head.map_or(0, |head| head.size),
                damage: Damage::MissingSegment,
            });
            (head, tree) = (None, None);
        }
        next_number = number.saturating_add(1);
        let last = i + 1 == numbers.len();
        let mut chain = Chain::after(number, head, tree);
        let mut lines = Lines::open(storage, number)?;
        while let Some(line) = lines.next()? {
            if let Line::Torn(bytes) = &line {
                let torn = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                if last {
                    report.torn_bytes = torn;
                } else if limit.is_none() {
                    chain.line = chain.line.saturating_add(1);
                    report.found(chain.finding(Damage::TornInside));
                }
                break;
            }
            if is_past(limit, chain.head.map(|head| head.size)) {
                report.set_aside = report.set_aside.saturating_add(1);
                continue;
            }
            match chain.check(&line) {
                Ok(entry) => {
                    report.records = report.records.saturating_add(1);
                    if let Line::Whole(bytes) = &line {
                        each(&entry, bytes);
                    }
                    against.look(&chain, &entry, report);
                }
                Err(finding) => report.found(finding),
            }
        }
        end = (segment_name(number), chain.line);
        (head, tree) = (chain.head, chain.tree);
    }
    report.root = tree.map(|tree| tree.root()).filter(|_| report.is_intact());
    if !numbers.is_empty() {
        against.finish(end, head, report);
    }
    report.head = head
        .filter(|head| head.size > 0)
        .map(|head| head.fingerprint.to_string());
    Ok(())
}

/// Ids and places of a segment's records before `limit`, as they stand; bad lines are passed
/// over.
pub(super) fn ids_of(
    storage: &dyn Storage,
    number: u64,
    limit: Option<u64>,
) -> io::Result<Vec<(EventId, u64)>> {
    let mut ids = Vec::new();
    let mut lines = Lines::open(storage, number)?;
    while let Some(line) = lines.next()? {
        if let Line::Whole(bytes) = line
            && let Ok(entry) = record::read(&bytes)
            && !is_past(limit, Some(entry.sequence))
        {
            ids.push((entry.id, entry.sequence));
        }
    }
    Ok(ids)
}

#[cfg(test)]
mod tests;
