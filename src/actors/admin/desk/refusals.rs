//! Why a command was not carried out, as the protocol says it.

use crate::{
    admin::protocol::{Failure, FailureCode},
    messages::{audit::AuditFault, swarm::PublishFault},
    supervision::{AskError, ControlError},
};

pub(in crate::actors::admin) fn no_answer(error: AskError) -> Failure {
    let code = match error {
        AskError::Down => FailureCode::Unavailable,
        AskError::Restarted | AskError::Timeout | AskError::Overloaded => FailureCode::Again,
    };
    Failure::new(
        code,
        format!("{error}; try again, or look at `quantraband actors`"),
    )
}

pub(in crate::actors::admin) fn not_published(fault: &PublishFault) -> Failure {
    let code = match fault {
        PublishFault::Denied(_) => FailureCode::Denied,
        PublishFault::TooLarge { .. } => FailureCode::TooLarge,
        PublishFault::Backpressure(_) | PublishFault::OverRate(_) => FailureCode::Again,
        PublishFault::Failed(_) | PublishFault::Unsure => FailureCode::Failed,
    };
    Failure::new(code, fault.to_string())
}

pub(super) fn not_recorded(fault: &AuditFault) -> Failure {
    let code = match fault {
        AuditFault::QueueFull | AuditFault::Stopped => FailureCode::Again,
        AuditFault::DiskFull | AuditFault::Io(_) => FailureCode::Io,
        AuditFault::NoKey => FailureCode::Failed,
    };
    Failure::new(code, fault.to_string())
}

pub(super) fn not_done(error: ControlError) -> Failure {
    let code = match error {
        ControlError::Down => FailureCode::Unavailable,
        ControlError::Busy => FailureCode::Again,
        ControlError::InjectionForbidden => FailureCode::Denied,
    };
    Failure::new(code, error.to_string())
}
