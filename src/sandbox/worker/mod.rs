//! The worker process: runs one compilation or one job for the node that started it, and ends.

/// The whole process: serves what stdin asks for, answers on stdout.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
