//! The grammar of `receipt …`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::types::PeerId;

/// `receipt …`
#[derive(Debug, Subcommand)]
pub enum ReceiptCommand {
    /// Verify a receipt's signature, and what it says against what you have: 0 good, 65 not
    Verify(Box<VerifyArgs>),
    /// Print what a receipt says, and whether its signature holds
    Show {
        /// The receipt
        file: PathBuf,
    },
}

/// Arguments of `receipt verify`. Needs no node and no configuration.
#[derive(Debug, Clone, Args)]
pub struct VerifyArgs {
    /// The receipt
    pub file: PathBuf,
    /// Who should have run the job, and signed
    #[arg(long, value_name = "PEER")]
    pub executor: Option<PeerId>,
    /// Who should have submitted it
    #[arg(long, value_name = "PEER")]
    pub submitter: Option<PeerId>,
    /// The module that should have run
    #[arg(long, value_name = "FILE")]
    pub module: Option<PathBuf>,
    /// What it should have read
    #[arg(long, value_name = "FILE")]
    pub stdin: Option<PathBuf>,
    /// What it should have written to stdout
    #[arg(long, value_name = "FILE")]
    pub stdout: Option<PathBuf>,
    /// What it should have written to stderr
    #[arg(long, value_name = "FILE")]
    pub stderr: Option<PathBuf>,
    /// The credential the executor should have shown
    #[arg(long, value_name = "FILE")]
    pub credential: Option<PathBuf>,
    /// Verify that credential by this issuer's anchor, as of the job's end
    #[arg(long, value_name = "FILE", requires = "credential")]
    pub anchor: Option<PathBuf>,
}
