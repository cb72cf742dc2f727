//! How a command ends: one table from what went wrong to an exit code, as in sysexits.h.

use std::{fmt, io};

use super::{
    client::ClientError,
    devnet::DevnetError,
    enrol::{EnrolError, FailureClass},
};
use crate::{
    admin::protocol::{Failure, FailureCode},
    config::ConfigError,
    node::{DataDirError, StartError},
    store::StoreError,
    telemetry::LoggingError,
};

/// The exit codes of this program. `docs/reference/exit-codes.md` says the same in prose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok,
    /// The command line is wrong.
    Usage,
    /// Input is wrong: a file, a credential, a damaged log, a refused message.
    Data,
    /// No node runs, or a part of it is down.
    Unavailable,
    /// The program gave up: an actor spent its restart budget, the root is stuck.
    Software,
    /// A file exists already or cannot be made.
    CannotCreate,
    /// Reading or writing failed.
    Io,
    /// Not now: try again.
    TryAgain,
    /// Not allowed: file modes, or the access decision.
    NoPermission,
    /// The configuration is wrong or missing.
    Config,
    /// A limit stopped the guest.
    Limit,
    /// The job was cancelled, as a program is by Ctrl-C.
    Cancelled,
    /// The guest trapped, as a program that aborts.
    Trap,
    /// The guest ended by itself: its own exit status.
    Guest(u8),
}

impl Exit {
    /// All of them but the guest's, in order.
    pub const ALL: [Self; 13] = [
        Self::Ok,
        Self::Usage,
        Self::Data,
        Self::Unavailable,
        Self::Software,
        Self::CannotCreate,
        Self::Io,
        Self::TryAgain,
        Self::NoPermission,
        Self::Config,
        Self::Limit,
        Self::Cancelled,
        Self::Trap,
    ];

    /// The number.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Usage => 64,
            Self::Data => 65,
            Self::Unavailable => 69,
            Self::Software => 70,
            Self::CannotCreate => 73,
            Self::Io => 74,
            Self::TryAgain => 75,
            Self::NoPermission => 77,
            Self::Config => 78,
            Self::Limit => 99,
            Self::Cancelled => 130,
            Self::Trap => 134,
            Self::Guest(status) => status,
        }
    }

    /// A stable name for programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Usage => "usage",
            Self::Data => "data",
            Self::Unavailable => "unavailable",
            Self::Software => "software",
            Self::CannotCreate => "cannot_create",
            Self::Io => "io",
            Self::TryAgain => "try_again",
            Self::NoPermission => "no_permission",
            Self::Config => "config",
            Self::Limit => "limit",
            Self::Cancelled => "cancelled",
            Self::Trap => "trap",
            Self::Guest(_) => "guest",
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// Why a command failed: for people, and the exit code.
#[derive(Debug)]
pub struct CliError {
    /// The exit code.
    pub exit: Exit,
    /// What happened and what would help; empty when there is nothing to say.
    pub message: String,
}

impl CliError {
    /// A failure with this exit code.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
        }
    }

    /// The command line is wrong in a way that clap cannot see.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Reading or writing failed while doing `what`.
    #[must_use]
    pub fn io(what: &str, error: &io::Error) -> Self {
        Self::new(io_exit(error), format!("{what}: {error}"))
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CliError {}

/// The exit code of an I/O error.
#[must_use]
pub fn io_exit(error: &io::Error) -> Exit {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Exit::NoPermission,
        io::ErrorKind::AlreadyExists => Exit::CannotCreate,
        _ => Exit::Io,
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        Self::new(Exit::Config, error.to_string())
    }
}

impl From<LoggingError> for CliError {
    fn from(error: LoggingError) -> Self {
        let exit = match error {
            LoggingError::Filter { .. } => Exit::Config,
            LoggingError::Twice(_) => Exit::Software,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<EnrolError> for CliError {
    fn from(error: EnrolError) -> Self {
        let exit = match error.class() {
            FailureClass::Data => Exit::Data,
            FailureClass::CannotCreate => Exit::CannotCreate,
            FailureClass::Io => Exit::Io,
            FailureClass::NoPermission => Exit::NoPermission,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<Failure> for CliError {
    fn from(failure: Failure) -> Self {
        let exit = match failure.code {
            FailureCode::Invalid | FailureCode::TooLarge => Exit::Data,
            FailureCode::UnknownActor | FailureCode::UnknownJob => Exit::Usage,
            FailureCode::Denied => Exit::NoPermission,
            FailureCode::Again => Exit::TryAgain,
            FailureCode::Unavailable => Exit::Unavailable,
            FailureCode::Io => Exit::Io,
            FailureCode::Failed => Exit::Software,
        };
        Self::new(exit, failure.message)
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        let exit = match &error {
            ClientError::NoNode { .. } => Exit::Unavailable,
            ClientError::Permission { .. } => Exit::NoPermission,
            ClientError::Deadline(_) | ClientError::Ended => Exit::TryAgain,
            ClientError::Connect { .. } | ClientError::Line(_) => Exit::Io,
            ClientError::Unexpected(_) => Exit::Software,
            ClientError::Refused(failure) => return failure.clone().into(),
        };
        Self::new(exit, error.to_string())
    }
}

impl From<DataDirError> for CliError {
    fn from(error: DataDirError) -> Self {
        let exit = match &error {
            DataDirError::Create { source, .. } | DataDirError::NotWritable { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Exit::NoPermission
            }
            DataDirError::Create { .. } | DataDirError::NotADirectory(_) => Exit::CannotCreate,
            DataDirError::NotWritable { .. } => Exit::Io,
            DataDirError::Exposed { .. } => Exit::NoPermission,
            DataDirError::InUse(_) => Exit::TryAgain,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<StartError> for CliError {
    fn from(error: StartError) -> Self {
        let exit = match error {
            StartError::DataDir(error) => return error.into(),
            StartError::Key(error) => return EnrolError::from(error).into(),
            StartError::Rotation(error) => return EnrolError::from(error).into(),
            StartError::Identity(error) => return EnrolError::from(error).into(),
            StartError::Issuer(_)
            | StartError::KeyLog
            | StartError::Policy(_)
            | StartError::Config(_) => Exit::Config,
            StartError::KeyMissing(_) => Exit::Data,
            StartError::Listen { .. } | StartError::Http { .. } => Exit::Unavailable,
            StartError::Socket { .. } => Exit::CannotCreate,
            StartError::Store(StoreError::Locked(_)) => Exit::TryAgain,
            StartError::LogDamaged(_) => Exit::Data,
            StartError::Store(_) | StartError::Log(_) | StartError::Signals(_) => Exit::Io,
            StartError::Actor { .. } => Exit::Software,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<DevnetError> for CliError {
    fn from(error: DevnetError) -> Self {
        let exit = match error {
            DevnetError::Size => Exit::Usage,
            DevnetError::Enrol(error) => return error.into(),
            DevnetError::DataDir(error) => return error.into(),
            DevnetError::Io { ref source, .. } => io_exit(source),
            DevnetError::Status(_) | DevnetError::Ended(..) | DevnetError::Disorderly(_) => {
                Exit::Software
            }
            DevnetError::Foreign(_) => Exit::CannotCreate,
            DevnetError::Output(_) => Exit::Io,
            DevnetError::NotConnected(..) => Exit::Unavailable,
        };
        Self::new(exit, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_lists_every_code_and_name() {
        let reference = include_str!("../../docs/reference/exit-codes.md");
        for exit in Exit::ALL {
            let row = format!("| {} | `{}` |", exit.code(), exit.name());
            assert!(
                reference.contains(&row),
                "docs/reference/exit-codes.md lacks {row}"
            );
        }
    }

    #[test]
    fn each_failure_of_the_node_has_its_code() {
        for (code, exit) in [
            (FailureCode::Invalid, 65),
            (FailureCode::TooLarge, 65),
            (FailureCode::UnknownActor, 64),
            (FailureCode::UnknownJob, 64),
            (FailureCode::Denied, 77),
            (FailureCode::Again, 75),
            (FailureCode::Unavailable, 69),
            (FailureCode::Io, 74),
            (FailureCode::Failed, 70),
        ] {
            let error = CliError::from(Failure::new(code, "x"));
            assert_eq!(error.exit.code(), exit, "{code:?}");
        }
        for (kind, exit) in [
            (io::ErrorKind::PermissionDenied, 77),
            (io::ErrorKind::AlreadyExists, 73),
            (io::ErrorKind::Other, 74),
        ] {
            assert_eq!(io_exit(&kind.into()).code(), exit);
        }
    }
}
