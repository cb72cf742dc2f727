//! The grammar of `policy …`.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Subcommand, ValueEnum};

use super::key_value;
use crate::{
    identity::Tier,
    types::{PeerId, Topic},
};

/// `policy …`. None but `status` needs a running node.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Parse, validate and test policies: 0 when they may be used, 65 when not
    Check {
        /// The folder [default: `policy.dir` of the configuration, else the built-in policies]
        dir: Option<PathBuf>,
    },
    /// Run the tests that lie beside policies, and print each
    Test {
        /// The folder, as for `check`
        dir: Option<PathBuf>,
    },
    /// Say what would be decided of a request, by which policies, and what was missing
    Explain(Box<ExplainArgs>),
    /// Print the policies
    Show {
        /// The folder, as for `check`
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Print the schema: what policies may speak of
    Schema,
    /// The policies that the running node has in force
    Status,
}

/// Arguments of `policy explain`.
#[derive(Debug, Clone, Args)]
pub struct ExplainArgs {
    /// connect, publish, subscribe, run_job or administer
    #[arg(long)]
    pub action: String,
    /// The topic, to publish and to subscribe
    #[arg(long)]
    pub topic: Option<Topic>,
    /// What the peer's identity is worth
    #[arg(long, value_enum, default_value_t = TierArg::Member)]
    pub tier: TierArg,
    /// The peer; any one when it is not named
    #[arg(long)]
    pub peer: Option<PeerId>,
    /// The issuer of its credential
    #[arg(long, default_value = "", hide_default_value = true)]
    pub issuer: String,
    /// Its name there
    #[arg(long, default_value = "", hide_default_value = true)]
    pub subject: String,
    /// A group by its full name, acme/workers; more than once for more
    #[arg(long = "group", value_name = "GROUP")]
    pub groups: Vec<String>,
    /// An attribute of its credential; more than once for more
    #[arg(long = "attribute", value_name = "NAME=VALUE", value_parser = key_value)]
    pub attributes: Vec<(String, String)>,
    /// End of its credential, Unix seconds [default: an hour from --now]
    #[arg(long, value_name = "SECONDS")]
    pub cred_expires: Option<u64>,
    /// Its score in hundredths
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub trust: u8,
    /// How odd its conduct is
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub anomaly: u8,
    /// It is in quarantine
    #[arg(long)]
    pub quarantined: bool,
    /// It is on probation after a ban
    #[arg(long)]
    pub probation: bool,
    /// stacked, tls, quic, noise; "" for a peer that is not connected [default: stacked]
    #[arg(long)]
    pub transport: Option<String>,
    /// Whether the key exchange is proven hybrid [default: as the transport is]
    #[arg(long, value_name = "BOOL")]
    pub post_quantum: Option<bool>,
    /// It proved its ML-DSA key
    #[arg(long)]
    pub pq_auth: bool,
    /// The command it gives, for --action administer: peers, ban, config_reload
    #[arg(long, value_name = "NAME")]
    pub command: Option<String>,
    /// Its address
    #[arg(long)]
    pub ip: Option<IpAddr>,
    /// When, Unix seconds
    #[arg(long, value_name = "SECONDS")]
    pub now: Option<u64>,
    /// The folder of the policies, as for `check`
    #[arg(long)]
    pub dir: Option<PathBuf>,
}

/// The tiers that policies judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum TierArg {
    /// A credential of a trusted issuer
    Member,
    /// A credential that the node signed itself
    SelfSigned,
    /// A key and nothing more
    Unverified,
}

impl From<TierArg> for Tier {
    fn from(tier: TierArg) -> Self {
        match tier {
            TierArg::Member => Self::Member,
            TierArg::SelfSigned => Self::SelfSigned,
            TierArg::Unverified => Self::Unverified,
        }
    }
}
