use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What kind of mistake a [`Problem`] is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProblemKind {
    /// The file cannot be read.
    File,
    /// Not TOML.
    Syntax,
    /// A table or key that does not exist.
    Unknown,
    /// Something necessary is not there.
    Missing,
    /// The value of one key is wrong.
    Value,
    /// Values that are right by themselves do not fit together.
    Conflict,
}

/// One thing wrong with a configuration, or one warning, and where it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// What kind of mistake this is.
    pub kind: ProblemKind,
    /// The file.
    pub file: Arc<Path>,
    /// Line, from 1; 0 if it concerns the file as a whole.
    pub line: usize,
    /// Column in characters, from 1; 0 if it concerns the file as a whole.
    pub column: usize,
    /// The key, such as `link[lan].address_pools[1]`; may be empty.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to write instead; may be empty.
    pub hint: String,
}

/// `file:line:column: key: what (hint)`
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " {}", self.what)?;
        if !self.hint.is_empty() {
            write!(f, " ({})", self.hint)?;
        }
        Ok(())
    }
}

/// Everything that is wrong with a configuration file.
#[derive(Clone, Debug)]
pub struct ConfigErrors {
    /// The file.
    pub file: PathBuf,
    /// The errors in the order of the file; at least one.
    pub errors: Vec<Problem>,
    /// The warnings in the order of the file.
    pub warnings: Vec<Problem>,
}

/// One line for each error, then how many there are.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for error in &self.errors {
            writeln!(f, "{error}")?;
        }
        let count = self.errors.len();
        let plural = if count == 1 { "" } else { "s" };
        write!(f, "{}: {count} error{plural}", self.file.display())
    }
}

impl std::error::Error for ConfigErrors {}

/// Collects problems while a file is read.
pub(super) struct Report<'a> {
    file: Arc<Path>,
    text: &'a str,
    line_starts: Vec<usize>,
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl<'a> Report<'a> {
    pub(super) fn new(file: &Path, text: &'a str) -> Self {
        let newlines = text.bytes().enumerate().filter(|(_, octet)| *octet == b'\n');
        let line_starts = std::iter::once(0).chain(newlines.map(|(i, _)| i + 1)).collect();
        Self { file: file.into(), text, line_starts, errors: Vec::new(), warnings: Vec::new() }
    }

    /// `at` is a range of octets of the text; `None` concerns the file as a whole.
    pub(super) fn error(
        &mut self,
        kind: ProblemKind,
        at: Option<Range<usize>>,
        key: impl Into<String>,
        what: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let problem = self.problem(kind, at, key.into(), what.into(), hint.into());
        self.errors.push(problem);
    }

    pub(super) fn warning(
        &mut self,
        kind: ProblemKind,
        at: Option<Range<usize>>,
        key: impl Into<String>,
        what: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let problem = self.problem(kind, at, key.into(), what.into(), hint.into());
        self.warnings.push(problem);
    }

    /// Line, from 1, of an octet of the text.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }

    /// The warnings, unless there are errors.
    pub(super) fn finish(mut self) -> Result<Vec<Problem>, ConfigErrors> {
        // What a file with bad syntax seems to say about its tables is not to be trusted: only
        // values that are wrong by themselves, on lines that do parse, are reported beside it.
        let broken: Vec<usize> = self
            .errors
            .iter()
            .filter(|error| error.kind == ProblemKind::Syntax)
            .map(|error| error.line)
            .collect();
        if !broken.is_empty() {
            self.errors.retain(|error| match error.kind {
                ProblemKind::File | ProblemKind::Syntax => true,
                ProblemKind::Value => !broken.contains(&error.line),
                ProblemKind::Unknown | ProblemKind::Missing | ProblemKind::Conflict => false,
            });
            self.warnings.clear();
        }
        self.errors.sort_by_key(|problem| (problem.line, problem.column));
        self.errors.dedup();
        self.warnings.sort_by_key(|problem| (problem.line, problem.column));
        if self.errors.is_empty() {
            return Ok(self.warnings);
        }
        let file = self.file.to_path_buf();
        Err(ConfigErrors { file, errors: self.errors, warnings: self.warnings })
    }

    fn problem(
        &self,
        kind: ProblemKind,
        at: Option<Range<usize>>,
        key: String,
        what: String,
        hint: String,
    ) -> Problem {
        let (line, column) = at.map_or((0, 0), |at| self.position(at.start));
        Problem { kind, file: Arc::clone(&self.file), line, column, key, what, hint }
    }

    fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.line(offset);
        let start = self.line_starts.get(line - 1).copied().unwrap_or(0);
        let before = self.text.as_bytes().get(start..offset).unwrap_or_default();
        // Octets that continue a character are not columns of their own.
        let column = before.iter().filter(|octet| **octet & 0xc0 != 0x80).count() + 1;
        (line, column)
    }
}
