//! What a lost store held and the audit log still knows: the bans in force.
//!
//! Scores are not rebuilt: they decay toward neutral anyway, and a party that was banned is
//! banned again. Rate debts are at most minutes old.

use std::{collections::HashMap, io, path::Path};

use serde_json::Value;

use crate::{
    audit::{for_each_record, storage::Directory},
    types::{Party, Timestamp},
};

/// Most bans taken over, of keys and addresses, and of subjects: as many of each as
/// `reputation.tracked_parties` allows by default.
const MAX_BANS: usize = 100_000;

/// A ban that is still in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remembered {
    pub(super) party: Party,
    pub(super) until: Timestamp,
    pub(super) reason: String,
}

/// Reads the bans in force at `now` from the log in `directory`.
pub(super) fn bans(directory: &Path, now: Timestamp) -> io::Result<Vec<Remembered>> {
    // Apart, so that no number of banned keys leaves no room for a member's ban.
    let mut keys: HashMap<Party, Remembered> = HashMap::new();
    let mut subjects = HashMap::new();
    let report = for_each_record(&Directory::at(directory), |entry, line| {
        if entry.event != "ban_started" && entry.event != "ban_ended" {
            return;
        }
        let Some(ban) = read(line) else { return };
        let bans = match ban.party {
            Party::Subject(_) => &mut subjects,
            Party::Peer(_) | Party::Address(_) => &mut keys,
        };
        if entry.event == "ban_ended" || ban.until <= now {
            bans.remove(&ban.party);
        } else if bans.len() < MAX_BANS {
            bans.insert(ban.party.clone(), ban);
        }
    })?;
    if !report.is_intact() {
        tracing::error!(
            damaged = report.damaged,
            "the audit log is damaged: bans in the damaged places are not taken over"
        );
    }
    Ok(keys.into_values().chain(subjects.into_values()).collect())
}

/// The fields of a ban's record, as `docs/reference/audit-log.md` describes them.
fn read(line: &[u8]) -> Option<Remembered> {
    let record: Value = serde_json::from_slice(line).ok()?;
    let finding = record.get("finding_info")?;
    let party = finding
        .get("uid")?
        .as_str()?
        .strip_prefix("ban:")?
        .parse()
        .ok()?;
    let until = record
        .get("unmapped")
        .and_then(|u| u.get("until"))
        .and_then(Value::as_u64);
    let reason = finding
        .get("desc")
        .and_then(Value::as_str)
        .unwrap_or_default();
    Some(Remembered {
        party,
        until: Timestamp::from_millis(until.unwrap_or(0)),
        reason: reason.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::{AuditEvent, Log, LogOptions},
        types::{EventId, ManualClock},
    };
    use std::sync::Arc;

    #[test]
    fn only_bans_in_force_come_back() {
        let root = tempfile::tempdir().unwrap();
        let now = Timestamp::from_secs(1_800_000_000);
        let later = now.after(std::time::Duration::from_secs(60));
        let storage = Directory::create(root.path()).unwrap();
        let options = LogOptions {
            segment_size: 1 << 20,
            remembered_ids: 10,
            version: "test".to_owned(),
            clock: Arc::new(ManualClock::at(now)),
            checkpoints: None,
        };
        let mut log = Log::open(Arc::new(storage), options).unwrap();
        let party = |n: u8| Party::address(format!("198.51.100.{n}").parse().unwrap());
        let ban = |n, until| AuditEvent::BanStarted {
            party: party(n),
            until,
            reason: format!("reason {n}"),
        };
        let end = AuditEvent::BanEnded {
            party: party(2),
            cause: "lifted".to_owned(),
        };
        let member = |name: &str, until| AuditEvent::BanStarted {
            party: format!("acme/{name}").parse().unwrap(),
            until,
            reason: "a member".to_owned(),
        };
        let released = AuditEvent::BanEnded {
            party: "acme/node-4".parse().unwrap(),
            cause: "lifted".to_owned(),
        };
        let members = [member("node-3", later), member("node-4", later), released];
        let keys = [ban(1, later), ban(2, later), end, ban(3, now)];
        for event in keys.into_iter().chain(members) {
            assert!(log.append(&[(EventId::random(), event)])[0].is_ok());
        }
        let found = bans(root.path(), now).unwrap();
        let expected = Remembered {
            party: party(1),
            until: later,
            reason: "reason 1".to_owned(),
        };
        let of_member = Remembered {
            party: "acme/node-3".parse().unwrap(),
            until: later,
            reason: "a member".to_owned(),
        };
        assert_eq!(found, [expected, of_member]);
    }
}
