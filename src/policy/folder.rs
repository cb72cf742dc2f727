//! Policies in a folder: which files are read, and how much of them.

use std::{
    fs,
    io::{self, Read},
    path::Path,
};

use super::{
    BUILT_IN_TESTS, PolicyError, PolicySet, TestResult,
    cases::run_tests,
    error::clean,
    load::{MAX_BYTES, MAX_FILES},
};

/// How often a folder is read until two readings agree: who copies a folder is done by then, or
/// writes all the time.
const READINGS: usize = 3;
/// Most entries of a folder that are looked at: policies lie in a folder of their own.
const MAX_ENTRIES: usize = 4_096;

/// A set and the tests that lie beside it.
#[derive(Debug, Clone)]
pub struct Stock {
    /// The policies.
    pub set: PolicySet,
    tests: Vec<(String, String)>,
}

impl Stock {
    /// The policies of a folder, or those that come with the program.
    ///
    /// # Errors
    /// [`PolicyError`], also for a folder without policies: it would deny everything, and is
    /// likelier the wrong one.
    pub fn load(dir: Option<&Path>) -> Result<Self, PolicyError> {
        let Some(dir) = dir else {
            let (name, text) = BUILT_IN_TESTS;
            return Ok(Self {
                set: PolicySet::built_in()?,
                tests: vec![(name.to_owned(), text.to_owned())],
            });
        };
        let (files, tests) = read_whole(dir)?;
        if files.is_empty() {
            let wrong = format!("{}: no file *.cedar", clean(&dir.display().to_string()));
            let remedy = "name the folder of the policies; to deny everything, write one forbid";
            return Err(PolicyError::one(None, wrong, remedy));
        }
        Ok(Self {
            set: PolicySet::load(&files)?,
            tests,
        })
    }

    /// Runs the tests.
    ///
    /// # Errors
    /// As [`run_tests`].
    pub fn test(&self) -> Result<Vec<TestResult>, PolicyError> {
        run_tests(&self.set, &self.tests)
    }
}

/// Names and texts of files, by name.
type Texts = Vec<(String, String)>;

/// The policies and the tests of a folder, all of the same moment as far as that can be told: it is
/// read file by file, and a set of which half was replaced meanwhile is nobody's set.
fn read_whole(dir: &Path) -> Result<(Texts, Texts), PolicyError> {
    settled(dir, || {
        Ok((read_dir(dir, ".cedar")?, read_dir(dir, ".test.toml")?))
    })
}

/// The first reading that is the same as the one after it.
fn settled<T: PartialEq>(
    dir: &Path,
    mut read: impl FnMut() -> Result<T, PolicyError>,
) -> Result<T, PolicyError> {
    let mut last = read()?;
    for _ in 0..READINGS {
        let again = read()?;
        if again == last {
            return Ok(again);
        }
        last = again;
    }
    Err(PolicyError::one(
        None,
        format!(
            "{}: it changes while it is read",
            clean(&dir.display().to_string())
        ),
        "write policies to another folder and rename it to this one",
    ))
}

/// Names and texts of the folder's files that end in `suffix` (`.cedar`), by name. Regular files
/// only: a link may lead anywhere.
///
/// # Errors
/// [`PolicyError`] when the folder or a file cannot be read, or holds more than the bounds allow.
pub fn read_dir(dir: &Path, suffix: &str) -> Result<Vec<(String, String)>, PolicyError> {
    let shown = clean(&dir.display().to_string());
    let unreadable = |error: &io::Error| {
        let wrong = format!("{shown}: {error}");
        PolicyError::one(None, wrong, "check the path and its permissions")
    };
    let mut files = Vec::new();
    let mut left = MAX_BYTES;
    for (count, entry) in fs::read_dir(dir).map_err(|e| unreadable(&e))?.enumerate() {
        if count >= MAX_ENTRIES {
            let remedy = "give policies a folder of their own";
            return Err(PolicyError::one(
                None,
                format!("{shown}: more than {MAX_ENTRIES} entries"),
                remedy,
            ));
        }
        let entry = entry.map_err(|e| unreadable(&e))?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if !name.ends_with(suffix) {
            continue;
        }
        // Of the entry itself, not of what a link leads to.
        let kind = entry.file_type().map_err(|e| unreadable(&e))?;
        if !kind.is_file() {
            return Err(PolicyError::one(
                None,
                format!("{shown}/{}: not a regular file", clean(&name)),
                "links and folders are not followed: put the file itself there",
            ));
        }
        let text = read(&entry.path(), left).map_err(|e| unreadable(&e))?;
        left = left.saturating_sub(text.len());
        files.push((name, text));
        if files.len() > MAX_FILES {
            let wrong = format!("{shown}: more than {MAX_FILES} files *{suffix}");
            return Err(PolicyError::one(None, wrong, "put policies together"));
        }
    }
    files.sort();
    Ok(files)
}

/// At most `left` bytes; a longer file is an error rather than a part.
fn read(path: &Path, left: usize) -> io::Result<String> {
    let most = u64::try_from(left).unwrap_or(u64::MAX);
    let mut text = String::new();
    let file = fs::File::open(path)?;
    file.take(most.saturating_add(1))
        .read_to_string(&mut text)?;
    if text.len() > left {
        return Err(io::Error::other(format!(
            "more than {MAX_BYTES} bytes of policies"
        )));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readings(texts: &[&'static str]) -> Result<&'static str, PolicyError> {
        let mut texts = texts.iter();
        settled(Path::new("own"), || Ok(*texts.next().unwrap()))
    }

    #[test]
    fn what_changes_while_it_is_read_is_not_taken() {
        assert_eq!(readings(&["a", "a"]).unwrap(), "a");
        assert_eq!(readings(&["a", "b", "b"]).unwrap(), "b", "it settled");
        let error = readings(&["a", "b", "c", "a"]).unwrap_err().to_string();
        assert!(error.contains("changes while it is read"), "{error}");
        assert!(error.contains("rename"), "{error}");
    }
}
