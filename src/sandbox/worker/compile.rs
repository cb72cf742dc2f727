//! One compilation.

use wasmtime::Engine;

use super::{
    inspect::inspect,
    protocol::{CompileOrder, FromWorker, MAX_ARTIFACT},
    voice::Voice,
};
use crate::sandbox::{JobFault, LimitName, Outcome};

/// Checks and compiles the module, and says how that went.
pub(crate) fn run(engine: &Engine, order: &CompileOrder, module: &[u8], voice: &Voice) -> ! {
    if voice.start(0).is_err() {
        voice.end(failed(JobFault::Executor), None);
    }
    if let Err(outcome) = inspect(module, order) {
        voice.end(outcome, None);
    }
    // The bytes passed the first look, so what is wrong now is wrong with the module: invalid,
    // of a proposal that is off, or with a function beyond what the compiler can hold.
    let Ok(artifact) = engine.precompile_module(module) else {
        voice.end(failed(JobFault::InvalidModule), None);
    };
    if artifact.len() > MAX_ARTIFACT {
        voice.end(
            Outcome::Stopped {
                limit: LimitName::CompileMemory,
            },
            None,
        );
    }
    match voice.say(&FromWorker::Artifact(artifact)) {
        Ok(()) => voice.end(Outcome::Exited { status: 0 }, None),
        Err(_) => voice.end(failed(JobFault::Executor), None),
    }
}

fn failed(fault: JobFault) -> Outcome {
    Outcome::Failed { fault }
}
