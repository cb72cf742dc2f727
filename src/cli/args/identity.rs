//! The grammar of `identity …` and `trust …`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::key_value;
use crate::{
    identity::{GroupPattern, MAX_DEPTH, Name, Protection},
    types::{Span, Timestamp},
};

/// `identity …`
#[derive(Debug, Subcommand)]
pub enum IdentityCommand {
    /// Write a signing request for this node's key, to be handed to an issuer
    Request {
        /// The name to ask for, in the issuer's name space
        #[arg(long, value_name = "NAME")]
        subject: Name,
        /// An attribute to ask for; may be repeated
        #[arg(long = "attribute", value_name = "KEY=VALUE", value_parser = key_value)]
        attributes: Vec<(String, String)>,
        /// The file to write
        #[arg(long, default_value = "request.cose", value_name = "FILE")]
        out: PathBuf,
    },
    /// Be an issuer
    #[command(subcommand)]
    Issuer(IssuerCommand),
    /// Issue a credential for a signing request
    Issue(IssueArgs),
    /// Let another issuer issue, in a part of this one's name space
    Delegate(DelegateArgs),
    /// Take back what was issued, and write the next status list
    Revoke(RevokeArgs),
    /// Sign the status list again, before its next update is due
    Status {
        /// The issuer's directory
        #[arg(long, default_value = "issuer", value_name = "DIR")]
        issuer: PathBuf,
        /// How long the list holds
        #[arg(long, default_value = "8d", value_name = "SPAN")]
        next_update: Span,
    },
    /// Make a credential by this node itself; peers let it in only where they allow that
    SelfSign {
        /// The name to be known by
        #[arg(long, value_name = "NAME")]
        subject: Name,
        /// How long it holds
        #[arg(long, default_value = "365d", value_name = "SPAN")]
        lifetime: Span,
    },
    /// Seal this node's key, or an issuer's, with a passphrase, a file or a systemd credential
    Protect(ProtectArgs),
    /// Make a credential this node's own, after verifying it
    Import {
        /// The credential
        file: PathBuf,
    },
    /// Change this node's keys, and with them its PeerId: under the same name, told by its old keys
    Rotate(RotateArgs),
    /// Show this node's credential, or one in a file
    Show {
        /// The credential [default: this node's own]
        file: Option<PathBuf>,
    },
    /// Verify a credential: 0 valid, 65 not
    Verify {
        /// The credential
        file: PathBuf,
        /// Believe this anchor alone [default: this node's trust entries]
        #[arg(long, value_name = "FILE")]
        anchor: Option<PathBuf>,
    },
}

/// Arguments of `identity rotate`.
#[derive(Debug, Args)]
pub struct RotateArgs {
    /// The request to write, for an issuer that no running node reaches
    #[arg(long, default_value = "rotation.cose", value_name = "FILE")]
    pub out: PathBuf,
    /// Give up the rotation that is under way, and erase the next keys
    #[arg(long)]
    pub abandon: bool,
}

/// Arguments of `identity protect`.
#[derive(Debug, Args)]
pub struct ProtectArgs {
    /// What opens it from now on: `none`, `passphrase`, `file:PATH` (made when it is not there;
    /// relative to the key's folder) or `systemd:NAME` [default: only say what opens it now]
    #[arg(long, value_name = "WHAT")]
    pub with: Option<Protection>,
    /// The key of the issuer in this directory [default: this node's key]
    #[arg(long, value_name = "DIR")]
    pub issuer: Option<PathBuf>,
}

/// `identity issuer …`
#[derive(Debug, Subcommand)]
pub enum IssuerCommand {
    /// Make an issuer's key and its anchor, to be handed to whoever shall trust it
    Init {
        /// The issuer's name
        name: Name,
        /// Where its key and anchor go
        #[arg(long, default_value = "issuer", value_name = "DIR")]
        dir: PathBuf,
    },
    /// Take over a delegation: from then on this issuer issues under it
    Import {
        /// The delegation, as `identity delegate` wrote it
        file: PathBuf,
        /// The anchor at which it ends
        #[arg(long, value_name = "FILE")]
        anchor: PathBuf,
        /// The issuer's directory
        #[arg(long, default_value = "issuer", value_name = "DIR")]
        dir: PathBuf,
    },
}

/// Arguments of `identity delegate`.
#[derive(Debug, Args)]
pub struct DelegateArgs {
    /// The other issuer's anchor: its name must be NAME.SOMETHING of this one's NAME
    pub anchor: PathBuf,
    /// The directory of the issuer that delegates
    #[arg(long, default_value = "issuer", value_name = "DIR")]
    pub issuer: PathBuf,
    /// A group it may put nodes in, or a pattern; may be repeated; none means none
    #[arg(long = "group", value_name = "PATTERN")]
    pub groups: Vec<GroupPattern>,
    /// Longest lifetime of a credential it issues
    #[arg(long, default_value = "90d", value_name = "SPAN")]
    pub max_lifetime: Span,
    /// How many further issuers may stand between it and a node
    #[arg(long, default_value_t = 0, value_name = "N",
          value_parser = clap::value_parser!(u8).range(..i64::from(MAX_DEPTH)))]
    pub depth: u8,
    /// How long the delegation holds [default: as long as possible, at most 365 days]
    #[arg(long, value_name = "SPAN")]
    pub lifetime: Option<Span>,
    /// The file to write, to be handed to the other issuer
    #[arg(long, default_value = "delegation.cose", value_name = "FILE")]
    pub out: PathBuf,
}

/// Arguments of `identity revoke`.
#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// The issuer's directory
    #[arg(long, default_value = "issuer", value_name = "DIR")]
    pub issuer: PathBuf,
    /// What to take back
    #[command(flatten)]
    pub what: RevokeWhat,
    /// How long the list holds
    #[arg(long, default_value = "8d", value_name = "SPAN")]
    pub next_update: Span,
}

/// What `identity revoke` takes back: one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct RevokeWhat {
    /// The credential, or the delegation, in this file
    #[arg(long, value_name = "FILE")]
    pub credential: Option<PathBuf>,
    /// What has this index in the status list
    #[arg(long, value_name = "N")]
    pub index: Option<u32>,
    /// All that was issued before this time, as 2026-11-24T12:00:00Z
    #[arg(long, value_name = "TIME")]
    pub issued_before: Option<Timestamp>,
}

/// Arguments of `identity issue`. Nothing but the subject is taken over from the request.
#[derive(Debug, Args)]
pub struct IssueArgs {
    /// The signing request
    pub request: PathBuf,
    /// The issuer's directory
    #[arg(long, default_value = "issuer", value_name = "DIR")]
    pub issuer: PathBuf,
    /// The subject [default: the one the request wishes]
    #[arg(long, value_name = "NAME")]
    pub subject: Option<Name>,
    /// A group to grant; may be repeated
    #[arg(long = "group", value_name = "NAME")]
    pub groups: Vec<Name>,
    /// An attribute to grant; may be repeated
    #[arg(long = "attribute", value_name = "KEY=VALUE", value_parser = key_value)]
    pub attributes: Vec<(String, String)>,
    /// How long it holds [default: 90 days, or as long as the issuer may]
    #[arg(long, value_name = "SPAN")]
    pub lifetime: Option<Span>,
    /// The file to write
    #[arg(long, default_value = "credential.cose", value_name = "FILE")]
    pub out: PathBuf,
}

/// `trust …`
#[derive(Debug, Subcommand)]
pub enum TrustCommand {
    /// Trust an issuer, or change what a trusted one may grant
    Add {
        /// The anchor the issuer handed out
        anchor: PathBuf,
        /// The thumbprint the issuer told by another way
        #[arg(long, value_name = "HEX")]
        thumbprint: Option<String>,
        /// Longest lifetime of a credential
        #[arg(long, value_name = "SPAN")]
        max_lifetime: Option<Span>,
        /// How many issuers may stand between it and a node; 0: it may not delegate
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(..=i64::from(MAX_DEPTH)))]
        max_depth: Option<u8>,
        /// A group it may grant, or a pattern; may be repeated
        #[arg(long = "group", value_name = "PATTERN")]
        groups: Vec<GroupPattern>,
    },
    /// The trusted issuers
    List,
    /// Trust an issuer no longer
    Remove {
        /// The issuer's name
        issuer: Name,
    },
}
