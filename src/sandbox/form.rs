//! The CBOR forms of what the job protocol and the receipt share.
//!
//! Maps have integer keys; what has a stable name is written as that name, so that a receipt can be
//! read without this program. Absent is what is absent, never null. Owner: `wire` and `receipt`.
//! Reading fails with a [`Malformed`] that names the rule.

use ciborium::Value;

use super::{
    CancelledBy, ContentHash, IdempotencyKey, JobFault, JobId, JobSpec, JobState, LimitName,
    Limits, LimitsWanted, MAX_ARGUMENTS, Outcome, Usage,
};
use crate::cbor::{self, Fields, Malformed, Read};

/// Longest name of a trap.
const MAX_TRAP: usize = 64;

const STATES: [JobState; 4] = [
    JobState::Waiting,
    JobState::Queued,
    JobState::Running,
    JobState::Finished,
];
const CANCELLERS: [CancelledBy; 3] = [
    CancelledBy::Submitter,
    CancelledBy::Operator,
    CancelledBy::Policy,
];
const FAULTS: [JobFault; 7] = [
    JobFault::InvalidModule,
    JobFault::Link,
    JobFault::WorkerDied,
    JobFault::Interrupted,
    JobFault::InputMissing,
    JobFault::Executor,
    JobFault::SealedInput,
];

/// A map of what is there.
pub(super) fn fields<const N: usize>(entries: [(i64, Option<Value>); N]) -> Value {
    let there = |(key, value): (i64, Option<Value>)| value.map(|value| (key, value));
    cbor::int_map(entries.into_iter().filter_map(there))
}

pub(super) fn number(number: impl Into<u64>) -> Option<Value> {
    Some(Value::from(number.into()))
}

pub(super) fn text(text: &str) -> Option<Value> {
    Some(Value::from(text))
}

pub(super) fn bytes(bytes: &[u8]) -> Option<Value> {
    Some(Value::Bytes(bytes.to_vec()))
}

pub(super) fn read_u32(value: Value) -> Read<u32> {
    u32::try_from(cbor::uint(value)?).map_err(|_| Malformed("a number is too large"))
}

pub(super) fn read_hash(value: Value) -> Read<ContentHash> {
    cbor::exact(value).map(ContentHash)
}

pub(super) fn read_job(value: Value) -> Read<JobId> {
    cbor::exact(value).map(JobId)
}

/// The member of `all` that is called as the text says.
pub(super) fn named<T: Copy>(all: &[T], name: impl Fn(T) -> &'static str, value: Value) -> Read<T> {
    let wanted = cbor::text(value)?;
    let found = all.iter().copied().find(|item| name(*item) == wanted);
    found.ok_or(Malformed("a name is unknown"))
}

pub(super) fn read_state(value: Value) -> Read<JobState> {
    named(&STATES, JobState::name, value)
}

pub(super) fn limits(limits: &Limits) -> Value {
    fields([
        (1, number(limits.wall_clock_ms)),
        (2, number(limits.cpu_time_ms)),
        (3, limits.fuel.and_then(number)),
        (4, number(limits.memory)),
        (5, number(limits.table)),
        (6, number(limits.stack)),
        (7, number(limits.output)),
    ])
}

pub(super) fn read_limits(value: Value) -> Read<Limits> {
    let mut fields = Fields::of(value)?;
    let limits = Limits {
        wall_clock_ms: cbor::uint(fields.need(1)?)?,
        cpu_time_ms: cbor::uint(fields.need(2)?)?,
        fuel: fields.take(3).map(cbor::uint).transpose()?,
        memory: cbor::uint(fields.need(4)?)?,
        table: cbor::uint(fields.need(5)?)?,
        stack: cbor::uint(fields.need(6)?)?,
        output: cbor::uint(fields.need(7)?)?,
    };
    fields.finish()?;
    Ok(limits)
}

fn wanted(limits: &LimitsWanted) -> Value {
    fields([
        (1, limits.wall_clock_ms.and_then(number)),
        (2, limits.cpu_time_ms.and_then(number)),
        (3, limits.fuel.and_then(number)),
        (4, limits.memory.and_then(number)),
        (5, limits.output.and_then(number)),
    ])
}

fn read_wanted(value: Value) -> Read<LimitsWanted> {
    let mut fields = Fields::of(value)?;
    let mut next = |key| fields.take(key).map(cbor::uint).transpose();
    let limits = LimitsWanted {
        wall_clock_ms: next(1)?,
        cpu_time_ms: next(2)?,
        fuel: next(3)?,
        memory: next(4)?,
        output: next(5)?,
    };
    fields.finish()?;
    Ok(limits)
}

pub(super) fn spec(spec: &JobSpec) -> Value {
    let texts = spec.arguments.iter().map(|text| Value::from(text.as_str()));
    let pair = |(name, value): &(String, String)| {
        Value::Array(vec![
            Value::from(name.as_str()),
            Value::from(value.as_str()),
        ])
    };
    fields([
        (1, bytes(&spec.key.0)),
        (2, bytes(&spec.module.0)),
        (3, number(spec.module_size)),
        (4, Some(Value::Array(texts.collect()))),
        (
            5,
            Some(Value::Array(spec.environment.iter().map(pair).collect())),
        ),
        (6, bytes(&spec.input.0)),
        (7, number(spec.input_size)),
        (8, Some(wanted(&spec.limits))),
        (9, spec.deterministic.and_then(number)),
        (10, spec.sealed.then_some(Value::Bool(true))),
    ])
}

/// Reads a job's description and checks its texts.
pub(super) fn read_spec(value: Value) -> Read<JobSpec> {
    let mut fields = Fields::of(value)?;
    let spec = JobSpec {
        key: IdempotencyKey(cbor::exact(fields.need(1)?)?),
        module: read_hash(fields.need(2)?)?,
        module_size: cbor::uint(fields.need(3)?)?,
        arguments: cbor::array(fields.need(4)?, MAX_ARGUMENTS)?
            .into_iter()
            .map(cbor::text)
            .collect::<Read<Vec<String>>>()?,
        environment: cbor::array(fields.need(5)?, MAX_ARGUMENTS)?
            .into_iter()
            .map(variable)
            .collect::<Read<Vec<(String, String)>>>()?,
        input: read_hash(fields.need(6)?)?,
        input_size: cbor::uint(fields.need(7)?)?,
        limits: read_wanted(fields.need(8)?)?,
        deterministic: fields.take(9).map(cbor::uint).transpose()?,
        sealed: match fields.take(10) {
            None => false,
            Some(Value::Bool(true)) => true,
            Some(_) => return Err(Malformed("sealed is true, or absent")),
        },
    };
    fields.finish()?;
    spec.check()
        .map_err(|_| Malformed("the job's arguments or environment break the rules"))?;
    Ok(spec)
}

fn variable(value: Value) -> Read<(String, String)> {
    let [name, value]: [Value; 2] = cbor::array(value, 2)?
        .try_into()
        .map_err(|_| Malformed("an environment variable is a name and a value"))?;
    Ok((cbor::text(name)?, cbor::text(value)?))
}

/// `[name, detail]`.
pub(super) fn outcome(outcome: &Outcome) -> Value {
    let detail = match outcome {
        Outcome::Exited { status } => Value::from(*status),
        Outcome::Trapped { trap } => Value::from(trap_name(trap)),
        Outcome::Stopped { limit } => Value::from(limit.name()),
        Outcome::Cancelled { by } => Value::from(by.name()),
        Outcome::Failed { fault } => Value::from(fault.name()),
    };
    Value::Array(vec![Value::from(outcome.name()), detail])
}

pub(super) fn read_outcome(value: Value) -> Read<Outcome> {
    let [name, detail]: [Value; 2] = cbor::array(value, 2)?
        .try_into()
        .map_err(|_| Malformed("an outcome is a name and a detail"))?;
    Ok(match cbor::text(name)?.as_str() {
        "exited" => Outcome::Exited {
            status: read_u32(detail)?,
        },
        "trapped" => {
            let trap = cbor::text(detail)?;
            if trap_name(&trap) != trap {
                return Err(Malformed("the name of a trap breaks the rules"));
            }
            Outcome::Trapped { trap }
        }
        "stopped" => Outcome::Stopped {
            limit: named(&LimitName::ALL, LimitName::name, detail)?,
        },
        "cancelled" => Outcome::Cancelled {
            by: named(&CANCELLERS, CancelledBy::name, detail)?,
        },
        "failed" => Outcome::Failed {
            fault: named(&FAULTS, JobFault::name, detail)?,
        },
        _ => return Err(Malformed("a name is unknown")),
    })
}

/// The name of a trap as an outcome may carry it: 1 to 64 of `[a-z0-9_]`, whatever a worker says.
pub(super) fn trap_name(trap: &str) -> String {
    let letter = |c: char| {
        let c = c.to_ascii_lowercase();
        if c.is_ascii_lowercase() || c.is_ascii_digit() {
            c
        } else {
            '_'
        }
    };
    let name: String = trap.chars().take(MAX_TRAP).map(letter).collect();
    if name.is_empty() {
        "unknown".to_owned()
    } else {
        name
    }
}

pub(super) fn usage(usage: &Usage) -> Value {
    fields([
        (1, number(usage.wall_ms)),
        (2, number(usage.cpu_us)),
        (3, usage.fuel.and_then(number)),
        (4, number(usage.memory_peak)),
        (5, number(usage.stdout)),
        (6, number(usage.stderr)),
    ])
}

pub(super) fn read_usage(value: Value) -> Read<Usage> {
    let mut fields = Fields::of(value)?;
    let usage = Usage {
        wall_ms: cbor::uint(fields.need(1)?)?,
        cpu_us: cbor::uint(fields.need(2)?)?,
        fuel: fields.take(3).map(cbor::uint).transpose()?,
        memory_peak: cbor::uint(fields.need(4)?)?,
        stdout: cbor::uint(fields.need(5)?)?,
        stderr: cbor::uint(fields.need(6)?)?,
    };
    fields.finish()?;
    Ok(usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where a variant stands in its list; a new one does not compile until it is given a place.
    #[test]
    fn every_name_is_in_its_list() {
        let state = |state| match state {
            JobState::Waiting => 0,
            JobState::Queued => 1,
            JobState::Running => 2,
            JobState::Finished => 3,
        };
        let canceller = |by| match by {
            CancelledBy::Submitter => 0,
            CancelledBy::Operator => 1,
            CancelledBy::Policy => 2,
        };
        let fault = |fault| match fault {
            JobFault::InvalidModule => 0,
            JobFault::Link => 1,
            JobFault::WorkerDied => 2,
            JobFault::Interrupted => 3,
            JobFault::InputMissing => 4,
            JobFault::Executor => 5,
            JobFault::SealedInput => 6,
        };
        assert!(STATES.iter().enumerate().all(|(i, s)| state(*s) == i));
        assert!(
            CANCELLERS
                .iter()
                .enumerate()
                .all(|(i, s)| canceller(*s) == i)
        );
        assert!(FAULTS.iter().enumerate().all(|(i, s)| fault(*s) == i));
    }

    #[test]
    fn the_name_of_a_trap_is_tame_whatever_a_worker_says() {
        assert_eq!(trap_name("out_of_fuel"), "out_of_fuel");
        assert_eq!(trap_name("Heap OOB\x1b[2Jü"), "heap_oob__2j_");
        assert_eq!(trap_name(""), "unknown");
        assert_eq!(trap_name(&"x".repeat(999)).len(), MAX_TRAP);
    }
}
