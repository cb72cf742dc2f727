//! The issuer's part in a rotation: a credential for a member's new keys, and the end of the old
//! one.
//!
//! The statement must be of who asks: of the keys that made the connection and of the subject that
//! the gate verified. What is decided is on the disk, in the issuer's folder, before it is answered,
//! so that a repeat gets the same and an older statement nothing. The old credential is taken back
//! when the new keys were seen, and after the grace at the latest: a node that does not come back
//! has not rotated for ever.

use std::{collections::HashMap, fmt, time::Duration};

use actix::{AsyncContext, Context, Handler, ResponseActFuture, WrapFuture, fut::ActorFutureExt};

use super::{IssuerActor, No, Present, Ready, label, no, not_issued};
use crate::{
    audit::AuditEvent,
    identity::{
        CLOCK_SKEW, Continuity, IssuerFolder, Name, Refusal, Tier, VerifiedIdentity,
        enrolment::{RefusalCode, Response},
        rotations::{self, Record, RotationsError, Shown, Weighed},
    },
    messages::{
        enrolment::{AskRotation, KeyProved, RotateOwn},
        reputation::Severity,
        revocation::ImportStatusList,
    },
    trust::reputation,
    types::{Origin, PeerId, SubjectId, Timestamp},
};

/// How often it is looked whether something is to be taken back.
pub(super) const TICK: Duration = Duration::from_secs(1);
/// How long Revocation may take to put a list in force.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pause after a taking back that failed.
const AGAIN: Duration = Duration::from_secs(30);

/// Rotations whose old credentials are still to be taken back.
#[derive(Debug, Default)]
pub(super) struct Rotations {
    open: HashMap<Name, Open>,
    busy: bool,
}

#[derive(Debug)]
struct Open {
    /// Who the subject is now.
    peer: PeerId,
    due: Timestamp,
}

impl Rotations {
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    fn add(&mut self, subject: Name, record: &Record) {
        if record.old().is_empty() {
            return;
        }
        let open = Open {
            peer: record.peer(),
            due: record.until(),
        };
        self.open.insert(subject, open);
    }
}

/// What the node that asks is known as.
struct Asker<'a> {
    peer: PeerId,
    /// Who answers for what it asks.
    subject: Option<SubjectId>,
    present: Present<'a>,
    /// The place of its credential in this issuer's list.
    index: Option<u32>,
}

fn not_kept(error: &RotationsError) -> No {
    tracing::error!(%error, "a rotation cannot be written down");
    no(
        RefusalCode::Unavailable,
        "the issuer's folder cannot be used",
    )
}

impl IssuerActor {
    pub(super) fn restore_rotations(
        &mut self,
        folder: &IssuerFolder,
    ) -> Result<(), RotationsError> {
        for (subject, record) in rotations::open(folder.dir())? {
            self.rotations.add(subject, &record);
        }
        Ok(())
    }

    /// Why these keys of a subject get nothing any more, when it gave them up.
    pub(super) fn gave_up(
        &self,
        folder: &IssuerFolder,
        present: &Present<'_>,
        peer: PeerId,
    ) -> Result<Option<No>, No> {
        let known = rotations::load(folder.dir(), &present.subject);
        let known = known.map_err(|error| not_kept(&error))?;
        let issued = present.issued.unwrap_or_default();
        let given_up = known.is_some_and(|record| record.gave_up(peer, issued));
        let why = "renewal.rotated: these keys were given up";
        Ok(given_up.then(|| no(RefusalCode::Denied, why)))
    }

    fn statement(
        &self,
        (peer, subject): (PeerId, Option<&SubjectId>),
        bytes: &[u8],
        now: Timestamp,
    ) -> Result<Continuity, No> {
        let statement = Continuity::open(bytes).map_err(|error| {
            self.charge(peer, subject, Severity::BadCredential, &error);
            no(RefusalCode::Invalid, error)
        })?;
        if statement.former() != peer {
            let what = "a continuity statement of another node";
            self.charge(peer, subject, Severity::BadCredential, &what);
            return Err(no(RefusalCode::Invalid, what));
        }
        if statement.created() > now.after(CLOCK_SKEW) {
            let what = "the continuity statement is not of now: compare the clocks";
            return Err(no(RefusalCode::Invalid, what));
        }
        Ok(statement)
    }

    fn decide_rotation(&mut self, ask: &AskRotation, now: Timestamp) -> Result<Ready, No> {
        let folder = self.folder()?;
        let subject = reputation::answers(ask.identity.as_deref(), now);
        let who = (ask.peer, subject.as_ref());
        let statement = self.statement(who, &ask.statement, now)?;
        let identity = ask.identity.as_deref();
        let identity = identity.filter(|i| {
            ask.tier == Tier::Member && i.issuer == *folder.key().name() && i.peer == ask.peer
        });
        let identity = identity.ok_or_else(|| {
            let what = "rotation.other_issuer: this node knows the members of its issuer alone";
            no(RefusalCode::Denied, what)
        })?;
        let statuses = self.setup.statuses.load();
        if statuses.of_peer(Some(identity), now).is_revoked() {
            return Err(no(RefusalCode::Denied, Refusal::Revoked));
        }
        let asker = Asker {
            peer: ask.peer,
            subject,
            index: index_of(identity, &folder),
            present: Present::of(identity).ok_or_else(|| {
                let what = "rotation.claims: they cannot be issued again";
                no(RefusalCode::Denied, what)
            })?,
        };
        self.rotate(&folder, asker, &statement, "enrol.rotation", now)
    }

    fn decide_own_rotation(&mut self, bytes: &[u8], now: Timestamp) -> Result<Ready, No> {
        let folder = self.folder()?;
        let own = self.setup.own.load();
        let statement = self.statement((own.peer, None), bytes, now)?;
        let chain = own.chain.as_ref().filter(|chain| {
            let credential = chain.credential();
            credential.claims().issuer == *folder.key().name()
                && credential.verify_signatures(folder.key().public()).is_ok()
        });
        let what = "rotation.other_issuer";
        let chain = chain.ok_or_else(|| no(RefusalCode::Denied, what))?;
        let asker = Asker {
            peer: own.peer,
            subject: None,
            present: Present::of_chain(chain),
            index: chain.credential().claims().status,
        };
        self.rotate(&folder, asker, &statement, "enrol.own_rotation", now)
    }

    fn rotate(
        &mut self,
        folder: &IssuerFolder,
        asker: Asker<'_>,
        statement: &Continuity,
        rule: &str,
        now: Timestamp,
    ) -> Result<Ready, No> {
        let Asker {
            peer,
            subject: answers,
            present,
            index,
        } = asker;
        if !self.setup.config.renew {
            return Err(no(RefusalCode::Denied, "issuer.renew is off"));
        }
        let subject = present.subject.clone();
        self.may_have(&subject)?;
        let names = (folder.key().name(), &subject);
        let of_them = present.keys.is_some_and(|keys| statement.is_from(keys));
        if !of_them
            || statement
                .leads_to(Some(statement.new_keys()), names)
                .is_err()
        {
            let what = "a continuity statement of another subject or of other keys";
            self.charge(peer, answers.as_ref(), Severity::BadCredential, &what);
            return Err(no(RefusalCode::Denied, what));
        }
        let known = rotations::load(folder.dir(), &subject).map_err(|error| not_kept(&error))?;
        // What it got by a renewal just before, and does not show yet, is taken back as well.
        let renewed = self.recent.get(&peer).and_then(|recent| {
            let claims = recent.chain.credential().claims();
            claims.status.filter(|_| claims.subject == subject)
        });
        let shown = Shown {
            issued: present.issued.unwrap_or_default(),
            indexes: index.into_iter().chain(renewed).collect(),
        };
        let weighed = rotations::weigh(known.as_ref(), statement, &shown, now)
            .map_err(|why| no(RefusalCode::Denied, why))?;
        let (chain, until) = match weighed {
            Weighed::Answered(chain, until) => (*chain, until),
            Weighed::New(old) => {
                let wait = known.as_ref().and_then(|known| known.wait(statement, now));
                if let Some(wait) = wait {
                    let what = "rotation.early: its keys were changed within the last hour";
                    return Err(Box::new(no(RefusalCode::TooEarly, what).after(wait)));
                }
                let grant = present.grant(self.setup.config.lifetime.0);
                let issued = folder.issue(&statement.request(), grant, now);
                let chain = issued.map_err(|error| not_issued(&error))?;
                let until = now.after(self.setup.config.rotation_grace.0);
                let record =
                    rotations::answered(known.as_ref(), statement, &chain, old, (now, until));
                rotations::save(folder.dir(), &subject, &record)
                    .map_err(|error| not_kept(&error))?;
                self.rotations.add(subject, &record);
                (chain, record.until())
            }
        };
        Ok(Ready {
            event: AuditEvent::KeyRotated {
                peer: statement.new_keys().peer,
                former: statement.former(),
                identity: label(&chain),
                sequence: statement.sequence(),
                rule: rule.to_owned(),
            },
            chain: chain.encode(),
            anchor: None,
            until: Some(until),
        })
    }

    /// The new keys of a subject were seen: nothing is asked with the former ones any more, and their
    /// credentials are due. A command may have answered the statement, so the record is looked up.
    fn proved(&mut self, folder: &IssuerFolder, proved: &KeyProved) -> Result<(), RotationsError> {
        let now = self.setup.clock.now();
        let subject = &proved.subject;
        let known = rotations::load(folder.dir(), subject)?;
        let Some(mut record) = known.filter(|record| record.peer() == proved.peer) else {
            return Ok(());
        };
        if !record.is_proved() {
            record = record.with_proof();
            rotations::save(folder.dir(), subject, &record)?;
        }
        self.rotations.add(subject.clone(), &record);
        if let Some(open) = self.rotations.open.get_mut(subject) {
            open.due = open.due.min(now);
        }
        Ok(())
    }

    /// Takes back what is due, one subject at a time.
    pub(super) fn take_back_due(&mut self, ctx: &mut Context<Self>) {
        let now = self.setup.clock.now();
        let own = self.setup.own.load().peer;
        if self.rotations.busy {
            return;
        }
        let mut open = self.rotations.open.iter();
        let due = open.find(|(_, open)| open.due <= now || open.peer == own);
        let Some(subject) = due.map(|(subject, _)| subject.clone()) else {
            return;
        };
        match self.take_back(&subject, now) {
            Ok(taken) => self.put_in_force(subject, taken, ctx),
            Err(error) => self.later(&subject, &error),
        }
    }

    fn later(&mut self, subject: &Name, why: &dyn fmt::Display) {
        tracing::error!(%subject, "an old credential is not taken back yet: {why}");
        let own = self.setup.own.load().peer;
        let again = self.setup.clock.now().after(AGAIN);
        if let Some(open) = self.rotations.open.get_mut(subject) {
            open.due = again;
            if open.peer == own {
                // Tried again at the next start, and not in every second until then.
                self.rotations.open.remove(subject);
            }
        }
    }

    fn take_back(&self, subject: &Name, now: Timestamp) -> Result<Taken, String> {
        let folder = self.setup.folder.as_ref().ok_or("no folder")?;
        let text = |error: &dyn fmt::Display| error.to_string();
        let record = rotations::load(folder.dir(), subject).map_err(|error| text(&error))?;
        let record = record.ok_or("its record is gone")?;
        let list = folder.take_back(record.old(), now);
        Ok(Taken {
            list: list.map_err(|error| text(&error))?,
            statement: *record.statement(),
            indexes: record.old().to_vec(),
        })
    }

    /// Has Revocation publish the list; then the rotation is over.
    fn put_in_force(&mut self, subject: Name, taken: Taken, ctx: &mut Context<Self>) {
        self.rotations.busy = true;
        let revocation = self.setup.revocation.clone();
        let import = ImportStatusList {
            bytes: taken.list.clone(),
        };
        let asked = async move {
            match revocation.ask(import, PATIENCE).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(why)) => Err(why),
                Err(error) => Err(error.code().to_owned()),
            }
        };
        ctx.spawn(asked.into_actor(self).map(move |answer, act, _| {
            act.rotations.busy = false;
            let over = answer.and_then(|()| act.over(&subject, &taken).map_err(|e| e.to_string()));
            if let Err(why) = over {
                act.later(&subject, &why);
            }
        }));
    }

    /// Meanwhile the subject may have stated something else: then that goes on.
    fn over(&mut self, subject: &Name, taken: &Taken) -> Result<(), RotationsError> {
        let Some(folder) = &self.setup.folder else {
            return Ok(());
        };
        let record = rotations::load(folder.dir(), subject)?;
        let record = record.map(|record| record.taken_back(&taken.statement, &taken.indexes));
        if let Some(record) = &record {
            rotations::save(folder.dir(), subject, record)?;
        }
        if record.is_none_or(|record| record.old().is_empty()) {
            self.rotations.open.remove(subject);
        }
        tracing::info!(%subject, "the credential of its former keys was taken back");
        Ok(())
    }
}

/// What was taken back, and is to be put in force.
struct Taken {
    list: Vec<u8>,
    /// The hash of the statement it was taken back for.
    statement: [u8; 32],
    indexes: Vec<u32>,
}

/// The place of a verified credential in this issuer's list.
fn index_of(identity: &VerifiedIdentity, folder: &IssuerFolder) -> Option<u32> {
    let signer = folder.key().public().thumbprint();
    let first = identity.statuses.first()?;
    (first.issuer == *folder.key().name() && first.signer == signer.0).then_some(first.index)
}

impl Handler<AskRotation> for IssuerActor {
    type Result = ResponseActFuture<Self, Response>;

    fn handle(&mut self, ask: AskRotation, _: &mut Context<Self>) -> Self::Result {
        let _scope = self.incarnation.handling(Origin::peer(ask.peer));
        let decided = self.decide_rotation(&ask, self.setup.clock.now());
        self.answer(ask.peer, decided)
    }
}

impl Handler<RotateOwn> for IssuerActor {
    type Result = ResponseActFuture<Self, Response>;

    fn handle(&mut self, ask: RotateOwn, _: &mut Context<Self>) -> Self::Result {
        let decided = self.decide_own_rotation(&ask.statement, self.setup.clock.now());
        let peer = self.setup.own.load().peer;
        self.answer(peer, decided)
    }
}

impl Handler<KeyProved> for IssuerActor {
    type Result = ();

    fn handle(&mut self, proved: KeyProved, ctx: &mut Context<Self>) {
        let folder = self.setup.folder.clone();
        let folder = folder.filter(|folder| *folder.key().name() == proved.issuer);
        if let Some(folder) = folder
            && let Err(error) = self.proved(&folder, &proved)
        {
            tracing::error!(%error, "that new keys were seen cannot be written down");
        }
        self.take_back_due(ctx);
    }
}
