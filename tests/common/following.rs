//! A command that goes on, its output gathered in the background.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Output, Stdio},
    sync::{Arc, Mutex},
};

use super::{Node, eventually};

/// See the module.
pub(crate) struct Following {
    child: Option<Child>,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Node {
    /// Runs a command with `--follow` and gathers what it prints.
    pub(crate) fn follow(&self, args: &[&str]) -> Following {
        let mut child = self
            .full(args)
            .arg("--follow")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let from = BufReader::new(child.stdout.take().expect("piped"));
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let gathered = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in from.lines().map_while(Result::ok) {
                gathered.lock().expect("no panic").push(line);
            }
        });
        Following {
            child: Some(child),
            lines,
        }
    }
}

impl Following {
    /// Whether a line with this text came.
    pub(crate) fn has(&self, text: &str) -> bool {
        let lines = self.lines.lock().expect("no panic in the reader");
        lines.iter().any(|line| line.contains(text))
    }

    /// How it ended by itself.
    pub(crate) fn end(&mut self) -> Output {
        eventually("the command ends", || {
            let child = self.child.as_mut().expect("once");
            child.try_wait().expect("own child")
        });
        let child = self.child.take().expect("once");
        child.wait_with_output().expect("own child")
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
