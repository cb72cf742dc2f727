//! `join`: from an invitation to a node that can run, in one command.
//!
//! Makes what `init` makes, asks the node that the invitation names, verifies what it got by the
//! thumbprint in the invitation and nothing else, and writes trust entry, credential, and, into a
//! configuration that was never edited, the inviting node as the one to dial. Every step can be
//! repeated: the same command completes what an interruption left half done.

use std::{
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;
use zeroize::Zeroizing;

use super::{
    args::{Global, InitArgs, JoinArgs},
    enrol::EnrolError,
    exit::{CliError, Exit},
    identity::{CredentialReport, PRIVATE_MODE, put, read_chain},
    init,
    live::block_on,
    output::Out,
};
use crate::{
    config::{self, SHIPPED, process_env},
    identity::{
        Anchor, Attributes, Chain, DiskError, Grants, IdentityPaths, Name, NodeKey, SigningRequest,
        TrustAnchor, TrustAnchors,
        invitation::{MAX_TOKEN, Token},
        make_dir, state, verify_chain, verify_frame, write_atomic,
    },
    network::join::{Answer, JoinFault, enrol},
    types::{Clock, PeerId, SystemClock, Timestamp},
};

/// The name a request wishes for; the invitation decides another.
const WISH: &str = "invited";
/// What stands in an unedited configuration.
const NO_BOOTSTRAP: &str = "\nbootstrap = []\n";
/// Mode of the configuration: it holds no secret.
const CONFIG_MODE: u32 = 0o644;

/// Answer of `join`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct JoinReport {
    /// Who this node is.
    pub peer_id: PeerId,
    /// What it is called from now on.
    pub credential: CredentialReport,
    /// The configuration file.
    pub config: PathBuf,
    /// Whether it was made to dial the inviting node.
    pub bootstrap: bool,
    /// The inviting node's addresses, each ending in `/p2p/PEER`.
    pub inviter: Vec<String>,
}

/// The command.
///
/// # Errors
/// When the invitation is none, is no good any more, or what came of it does not verify.
pub(super) fn command(args: &JoinArgs, global: &Global, out: &Out) -> Result<(), CliError> {
    let report = join(args, global)?;
    out.answer("quantraband.join/1", &report, || {
        let (credential, config) = (&report.credential, report.config.display());
        let dial = match report.bootstrap {
            true => "it dials the node that invited it".to_owned(),
            false => format!(
                "add to network.bootstrap in {config}, if it is not there: {:?}",
                report.inviter
            ),
        };
        format!(
            "this node is {}/{} until {}\npeer  {}\n{dial}\nNext: quantraband run --config {config}",
            credential.issuer, credential.subject, credential.expires, report.peer_id
        )
    })
}

/// Does it.
///
/// # Errors
/// As [`command`].
pub(super) fn join(args: &JoinArgs, global: &Global) -> Result<JoinReport, CliError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let token = token(&args.token)?;
    if clock.now() >= token.expires {
        let expires = token.expires;
        let why = format!("the invitation expired at {expires}: ask for another");
        return Err(CliError::new(Exit::Data, why));
    }
    let made = init::init(
        &InitArgs {
            dir: args.dir.clone(),
        },
        global,
    )?;
    let loaded = config::load(Some(&made.config), &global.set, &process_env())?;
    let paths = IdentityPaths::new(&loaded.data_dir);
    not_enrolled_elsewhere(&paths, &token)?;
    let key = NodeKey::load(&paths.node_key()).map_err(EnrolError::from)?;
    let wish = Name::try_new(WISH).map_err(|error| CliError::usage(error.to_string()))?;
    let request = SigningRequest::seal(&key, &wish, &Attributes::default(), clock.now());
    let answer = block_on(async {
        enrol(&token, &key, &loaded.config, Arc::clone(&clock), request)
            .await
            .map_err(|fault| not_joined(&fault))
    })?;
    let (chain, entry) = verified(&token, &key, &answer, clock.now())?;
    trust(&paths, &entry)?;
    put(&paths, &chain)?;
    let inviter: Vec<String> = token
        .addresses
        .iter()
        .map(|address| format!("{address}/p2p/{}", token.peer))
        .collect();
    let bootstrap = dial(&made.config, &inviter, &loaded.config.network.bootstrap)?;
    Ok(JoinReport {
        peer_id: key.peer(),
        credential: CredentialReport::of(&chain),
        config: made.config,
        bootstrap,
        inviter,
    })
}

fn token(argument: &str) -> Result<Token, CliError> {
    let mut text = Zeroizing::new(String::new());
    let text: &str = match argument {
        "-" => {
            let limit = u64::try_from(MAX_TOKEN).unwrap_or(u64::MAX);
            let mut input = std::io::stdin().lock().take(limit.saturating_add(2));
            input
                .read_to_string(&mut text)
                .map_err(|error| CliError::io("standard input", &error))?;
            &text
        }
        argument => argument,
    };
    Token::from_text(text).map_err(|error| CliError::new(Exit::Data, error.to_string()))
}

/// A node that has a credential is not turned into another, unless by the same issuer: then this
/// is the same command again.
fn not_enrolled_elsewhere(paths: &IdentityPaths, token: &Token) -> Result<(), CliError> {
    match read_chain(&paths.credential()) {
        Ok(chain) if chain.credential().signed_by() == Some(token.issuer) => Ok(()),
        Ok(_) => Err(EnrolError::from(DiskError::Exists(paths.credential())).into()),
        Err(EnrolError::Disk(DiskError::Missing(_))) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn not_joined(fault: &JoinFault) -> CliError {
    let exit = match fault {
        JoinFault::Build(_) => Exit::Software,
        JoinFault::Unreachable { .. } => Exit::Unavailable,
        JoinFault::Gate(_) | JoinFault::Refused(_) => Exit::NoPermission,
        JoinFault::Broken(_) => Exit::TryAgain,
    };
    CliError::new(exit, fault.to_string())
}

/// The chain and the trust entry, when all of it rests on the issuer's key that the invitation
/// names: the anchor, the credential for this node's own keys, and the node that handed them out.
fn verified(
    token: &Token,
    key: &NodeKey,
    answer: &Answer,
    now: Timestamp,
) -> Result<(Chain, TrustAnchor), CliError> {
    let wrong = |why: String| {
        let why = format!("what the inviting node handed out is not to be believed: {why}");
        CliError::new(Exit::Data, why)
    };
    let anchor = Anchor::open(&answer.anchor).map_err(|error| wrong(error.to_string()))?;
    if anchor.key.thumbprint() != token.issuer {
        return Err(wrong("the issuer's key is not the invitation's".to_owned()));
    }
    let entry = TrustAnchor {
        issuer: anchor.issuer,
        key: anchor.key,
        grants: Grants::default(),
    };
    let mut anchors = TrustAnchors::default();
    let added = anchors.add(entry.clone());
    added.map_err(|error| wrong(error.to_string()))?;
    let chain = Chain::decode(&answer.chain).map_err(|error| wrong(error.to_string()))?;
    if chain.credential().claims().keys != *key.public() {
        return Err(wrong("the credential is of other keys".to_owned()));
    }
    verify_chain(&chain, key.peer(), &anchors, now).map_err(|error| wrong(error.to_string()))?;
    let shown = &answer.presented;
    let (frame, role) = (&shown.frame, shown.role.other());
    verify_frame(frame, shown.peer, &shown.channel, role, &anchors, now)
        .map_err(|error| wrong(format!("the node itself is no member: {error}")))?;
    Ok((chain, entry))
}

fn trust(paths: &IdentityPaths, entry: &TrustAnchor) -> Result<(), CliError> {
    let mut known = state::load_anchors(paths).map_err(EnrolError::from)?;
    if known
        .get(&entry.issuer)
        .is_some_and(|old| old.key == entry.key)
    {
        // What it may grant here is the operator's choice, and stays.
        return Ok(());
    }
    let file = paths.anchor(&entry.issuer);
    let added = known.add(entry.clone());
    added.map_err(|why| EnrolError::Anchor {
        path: file.clone(),
        why,
    })?;
    make_dir(&paths.trust()).map_err(EnrolError::from)?;
    write_atomic(&file, entry.to_text().as_bytes(), PRIVATE_MODE).map_err(EnrolError::from)?;
    Ok(())
}

/// Whether the node will dial who invited it.
fn dial(
    config: &Path,
    inviter: &[String],
    bootstrap: &[multiaddr::Multiaddr],
) -> Result<bool, CliError> {
    let known = |address: &String| bootstrap.iter().any(|one| one.to_string() == *address);
    if inviter.iter().all(known) {
        return Ok(true);
    }
    let unreadable = |error| CliError::io(&config.display().to_string(), &error);
    let text = std::fs::read_to_string(config).map_err(unreadable)?;
    if text != SHIPPED {
        return Ok(false);
    }
    let list = serde_json::to_string(inviter).unwrap_or_default();
    let text = text.replacen(NO_BOOTSTRAP, &format!("\nbootstrap = {list}\n"), 1);
    write_atomic(config, text.as_bytes(), CONFIG_MODE).map_err(EnrolError::from)?;
    Ok(true)
}
