//! The receipt: what an executor signs about a job that came to an end.
//!
//! A tagged COSE_Sign1 by the executor's node key, in a domain of its own, over deterministic CBOR.
//! The key is in the executor's peer id, so that a receipt can be verified years later with nothing
//! but itself. It proves what the executor *says*: who ran what for whom, with which result. That
//! the result is right, only running the job again shows (deterministic mode). The table of fields
//! is in `docs/reference/receipt.md`; the bytes are frozen by `tests/fixtures/sandbox/receipt.cose`.
//!
//! Owner: the executor signs and keeps them, the submitter and `receipt verify` check them.
//! Invariant: a [`Receipt`] was read from its one encoding; whether the signature holds says
//! [`Receipt::verify`] alone. It fails with [`ReceiptError`].

use std::fmt;

use ciborium::Value;
use serde::Serialize;
use thiserror::Error;

use super::{
    ContentHash, IdempotencyKey, JobId, JobSpec, Limits, Outcome, Usage,
    form::{self, bytes, number, text},
};
use crate::{
    cbor::{self, Fields, Malformed, Read},
    identity::{
        Name, NodeKey, PublicKey,
        claims::MAX_SECONDS,
        cose::{self, Domain, Sign1},
    },
    types::{PeerId, Timestamp},
};

/// Longest receipt, checked before parsing: one with every field at its longest has about 1 KiB,
/// and a later version may add a hybrid signature of 3.3 KB.
pub const MAX_RECEIPT_BYTES: usize = 4 << 10;
/// The version this program writes and reads.
const VERSION: u64 = 1;
/// Last millisecond a time may name: the end of the year 9999.
const LAST: Timestamp = Timestamp::from_millis(MAX_SECONDS * 1_000 + 999);

/// A module, an input or an output: its name and its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Content {
    /// SHA-256 of it.
    pub hash: ContentHash,
    /// Bytes.
    pub size: u64,
}

impl Content {
    /// The name and the size of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self {
            hash: ContentHash::of(bytes),
            size: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
        }
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.hash, self.size)
    }
}

/// Who the executor says the submitter proved to be: an issuer and a name in its name space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The issuer of the submitter's credential.
    pub issuer: Name,
    /// Its subject.
    pub subject: Name,
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.issuer, self.subject)
    }
}

impl Serialize for Label {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a receipt says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReceiptBody {
    /// Who ran the job, and signed.
    pub executor: PeerId,
    /// Who submitted it.
    pub submitter: PeerId,
    /// Who that proved to be; `None`: it showed no credential.
    pub submitter_identity: Option<Label>,
    /// The submitter's key for it.
    pub key: IdempotencyKey,
    /// The module.
    pub module: Content,
    /// Arguments and environment, by [`JobSpec::arguments_hash`].
    pub arguments: ContentHash,
    /// Standard input.
    pub input: Content,
    /// Everything written to stdout that the submitter can fetch.
    pub stdout: Content,
    /// Everything written to stderr that the submitter can fetch.
    pub stderr: Content,
    /// The limits in force.
    pub limits: Limits,
    /// The seed of the deterministic mode, when it was on.
    pub deterministic: Option<u64>,
    /// What became of the job.
    pub outcome: Outcome,
    /// What it used.
    pub usage: Usage,
    /// How often it was begun; 0: never.
    pub attempts: u32,
    /// When it was accepted, by the executor's clock.
    pub submitted: Timestamp,
    /// When the last attempt began; `None`: none did.
    pub started: Option<Timestamp>,
    /// When it came to its end.
    pub finished: Timestamp,
    /// SHA-256 of the executor's credential, when it has one.
    pub executor_credential: Option<ContentHash>,
}

/// Why bytes are no receipt, or one that proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ReceiptError {
    /// Not the one encoding.
    #[error("not a receipt: {0}")]
    Malformed(#[from] Malformed),
    /// A version of another program.
    #[error("a receipt of version {0}, and this program reads version {VERSION}: update it")]
    Version(u64),
    /// The signature does not hold.
    #[error("the signature is not the executor's: the receipt was changed or forged")]
    Signature,
}

/// A receipt as read or made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    body: ReceiptBody,
    bytes: Vec<u8>,
}

impl Receipt {
    /// Signs what `body` says. The executor is who signs, whatever the body named; times past the
    /// year 9999 are cut to it.
    #[must_use]
    pub fn sign(mut body: ReceiptBody, key: &NodeKey) -> Self {
        body.executor = key.peer();
        for time in [&mut body.submitted, &mut body.finished]
            .into_iter()
            .chain(body.started.as_mut())
        {
            *time = LAST.min(*time);
        }
        if let Outcome::Trapped { trap } = &mut body.outcome {
            *trap = form::trap_name(trap);
        }
        let bytes = cose::sign1_seal(key.signing(), Domain::Receipt, body.encode());
        Self { body, bytes }
    }

    /// Reads a receipt in its one encoding. Says nothing about its signature.
    ///
    /// # Errors
    /// [`ReceiptError::Malformed`] or [`ReceiptError::Version`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ReceiptError> {
        let message = Sign1::read(bytes, MAX_RECEIPT_BYTES)?;
        Ok(Self {
            body: ReceiptBody::decode(message.payload())?,
            bytes: bytes.to_vec(),
        })
    }

    /// What it says, if the executor it names has signed it.
    ///
    /// # Errors
    /// [`ReceiptError::Signature`].
    pub fn verify(&self) -> Result<&ReceiptBody, ReceiptError> {
        let key = PublicKey::from_bytes(&self.body.executor.key_bytes());
        Sign1::read(&self.bytes, MAX_RECEIPT_BYTES)?
            .verify(key.ok_or(ReceiptError::Signature)?, Domain::Receipt)
            .map_err(|_| ReceiptError::Signature)?;
        Ok(&self.body)
    }

    /// What it says. Trust it only after [`Receipt::verify`].
    #[must_use]
    pub fn unverified(&self) -> &ReceiptBody {
        &self.body
    }

    /// The receipt's name in both audit logs: SHA-256 of its bytes.
    #[must_use]
    pub fn hash(&self) -> ContentHash {
        ContentHash::of(&self.bytes)
    }

    /// The bytes as received or made.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl ReceiptBody {
    /// The job it is about.
    #[must_use]
    pub fn job(&self) -> JobId {
        JobId::new(&self.executor, &self.submitter, &self.key)
    }

    fn encode(&self) -> Vec<u8> {
        let label = self.submitter_identity.as_ref().map(Label::to_string);
        cbor::encode(&form::fields([
            (1, number(VERSION)),
            (2, bytes(&self.job().0)),
            (3, bytes(&self.executor.to_bytes())),
            (4, bytes(&self.submitter.to_bytes())),
            (5, label.as_deref().and_then(text)),
            (6, bytes(&self.key.0)),
            (7, bytes(&self.module.hash.0)),
            (8, number(self.module.size)),
            (9, bytes(&self.arguments.0)),
            (10, bytes(&self.input.hash.0)),
            (11, number(self.input.size)),
            (12, bytes(&self.stdout.hash.0)),
            (13, number(self.stdout.size)),
            (14, bytes(&self.stderr.hash.0)),
            (15, number(self.stderr.size)),
            (16, Some(form::limits(&self.limits))),
            (17, self.deterministic.and_then(number)),
            (18, Some(form::outcome(&self.outcome))),
            (19, Some(form::usage(&self.usage))),
            (20, number(self.attempts)),
            (21, number(self.submitted.millis())),
            (22, self.started.map(Timestamp::millis).and_then(number)),
            (23, number(self.finished.millis())),
            (24, self.executor_credential.and_then(|hash| bytes(&hash.0))),
        ]))
    }

    fn decode(payload: &[u8]) -> Result<Self, ReceiptError> {
        let mut fields = Fields::of(cbor::decode(payload, MAX_RECEIPT_BYTES)?)?;
        let version = cbor::uint(fields.need(1)?)?;
        if version != VERSION {
            return Err(ReceiptError::Version(version));
        }
        let job = form::read_job(fields.need(2)?)?;
        let body = Self::read(&mut fields)?;
        fields.finish()?;
        if body.job() != job {
            return Err(Malformed("the job is not that of executor, submitter and key").into());
        }
        cbor::same(payload, &body.encode())?;
        Ok(body)
    }

    fn read(fields: &mut Fields) -> Read<Self> {
        Ok(Self {
            executor: peer(fields.need(3)?)?,
            submitter: peer(fields.need(4)?)?,
            submitter_identity: fields.take(5).map(label).transpose()?,
            key: IdempotencyKey(cbor::exact(fields.need(6)?)?),
            module: content(fields, 7, 8)?,
            arguments: form::read_hash(fields.need(9)?)?,
            input: content(fields, 10, 11)?,
            stdout: content(fields, 12, 13)?,
            stderr: content(fields, 14, 15)?,
            limits: form::read_limits(fields.need(16)?)?,
            deterministic: fields.take(17).map(cbor::uint).transpose()?,
            outcome: form::read_outcome(fields.need(18)?)?,
            usage: form::read_usage(fields.need(19)?)?,
            attempts: form::read_u32(fields.need(20)?)?,
            submitted: time(fields.need(21)?)?,
            started: fields.take(22).map(time).transpose()?,
            finished: time(fields.need(23)?)?,
            executor_credential: fields.take(24).map(form::read_hash).transpose()?,
        })
    }

    /// Compares with what is known otherwise.
    ///
    /// # Errors
    /// [`Mismatch`] names the first field that differs, in the order of [`Expectation`].
    pub fn matches(&self, expected: &Expectation) -> Result<(), Mismatch> {
        check("executor", &expected.executor, &self.executor)?;
        check("submitter", &expected.submitter, &self.submitter)?;
        check("job", &expected.job, &self.job())?;
        check("key", &expected.key.map(hex_key), &hex_key(self.key))?;
        check("module", &expected.module, &self.module)?;
        check("arguments", &expected.arguments, &self.arguments)?;
        check("input", &expected.input, &self.input)?;
        check(
            "deterministic",
            &expected.deterministic.map(mode),
            &mode(self.deterministic),
        )?;
        let limits = expected.limits.as_ref().map(limit_words);
        check("limits", &limits, &limit_words(&self.limits))?;
        check("stdout", &expected.stdout, &self.stdout)?;
        check("stderr", &expected.stderr, &self.stderr)
    }
}

/// What a receipt should say; `None`: anything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expectation {
    /// Who was asked to run the job.
    pub executor: Option<PeerId>,
    /// Who asked.
    pub submitter: Option<PeerId>,
    /// The job.
    pub job: Option<JobId>,
    /// The submitter's key for it.
    pub key: Option<IdempotencyKey>,
    /// The module that was sent.
    pub module: Option<Content>,
    /// Arguments and environment, by [`JobSpec::arguments_hash`].
    pub arguments: Option<ContentHash>,
    /// The input that was sent.
    pub input: Option<Content>,
    /// The deterministic mode that was asked for, or that none was.
    pub deterministic: Option<Option<u64>>,
    /// The limits that were granted.
    pub limits: Option<Limits>,
    /// What was received from stdout.
    pub stdout: Option<Content>,
    /// What was received from stderr.
    pub stderr: Option<Content>,
}

impl Expectation {
    /// What the receipt of this job must say, besides outputs and limits.
    #[must_use]
    pub fn of(executor: PeerId, submitter: PeerId, spec: &JobSpec) -> Self {
        let content = |hash, size| Some(Content { hash, size });
        Self {
            executor: Some(executor),
            submitter: Some(submitter),
            job: Some(JobId::new(&executor, &submitter, &spec.key)),
            key: Some(spec.key),
            module: content(spec.module, spec.module_size),
            arguments: Some(spec.arguments_hash()),
            input: content(spec.input, spec.input_size),
            deterministic: Some(spec.deterministic),
            ..Self::default()
        }
    }
}

/// The first field in which a receipt is not what was expected.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the receipt's {field} is {found}, not {expected}")]
pub struct Mismatch {
    /// Its name.
    pub field: &'static str,
    /// What the receipt says.
    pub found: String,
    /// What was expected.
    pub expected: String,
}

fn check<T: PartialEq + fmt::Display>(
    field: &'static str,
    expected: &Option<T>,
    found: &T,
) -> Result<(), Mismatch> {
    match expected {
        Some(expected) if expected != found => Err(Mismatch {
            field,
            found: found.to_string(),
            expected: expected.to_string(),
        }),
        _ => Ok(()),
    }
}

fn hex_key(key: IdempotencyKey) -> String {
    hex::encode(key.0)
}

fn mode(seed: Option<u64>) -> String {
    seed.map_or_else(|| "off".to_owned(), |seed| format!("seed {seed}"))
}

/// Limits in words; two are the same exactly when their words are.
pub(crate) fn limit_words(limits: &Limits) -> String {
    let Limits {
        wall_clock_ms,
        cpu_time_ms,
        fuel,
        memory,
        table,
        stack,
        output,
    } = limits;
    let fuel = fuel.map_or_else(|| "none".to_owned(), |fuel| fuel.to_string());
    format!(
        "wall_clock={wall_clock_ms}ms cpu_time={cpu_time_ms}ms fuel={fuel} memory={memory} \
         table={table} stack={stack} output={output}"
    )
}

fn peer(value: Value) -> Read<PeerId> {
    PeerId::from_bytes(&cbor::exact::<38>(value)?)
        .map_err(|_| Malformed("a peer id is no Ed25519 key, or a weak one"))
}

fn label(value: Value) -> Read<Label> {
    const BAD: Malformed = Malformed("an identity is an issuer and a subject");
    let text = cbor::text(value)?;
    let (issuer, subject) = text.split_once('/').ok_or(BAD)?;
    let name = |text| Name::try_new(text).map_err(|_| BAD);
    Ok(Label {
        issuer: name(issuer)?,
        subject: name(subject)?,
    })
}

fn content(fields: &mut Fields, hash: i64, size: i64) -> Read<Content> {
    Ok(Content {
        hash: form::read_hash(fields.need(hash)?)?,
        size: cbor::uint(fields.need(size)?)?,
    })
}

fn time(value: Value) -> Read<Timestamp> {
    let time = Timestamp::from_millis(cbor::uint(value)?);
    if time > LAST {
        return Err(Malformed("a time is out of range"));
    }
    Ok(time)
}

#[cfg(test)]
pub(crate) mod tests;
