//! Files to a policy set: reads the folder, checks what changed, puts the whole together.
//!
//! Keeps what it made of each file, so that after an edit only the changed files are parsed again.
//! Knows nothing about serving: what a rejected attempt means is decided in [`super`].

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::parallel;
use super::read::{
    FolderSnapshot, ProblemKind, ReadError, ReadProblem, ReadSettings, SourceFile, read_folder,
    read_folder_and_targets, source_file,
};
use super::watch_targets::WatchTargets;
use crate::policy::check::{
    Accepted, CheckedDocument, Guardrails, PreviousSet, assemble, check_document, check_text,
};
use crate::policy::document::Document;
use crate::policy::finding::{AcceptedWarnings, Code, Finding, Findings, MAX_FINDINGS, Position};
use crate::policy::index::AudienceIndex;
use crate::policy::manifest;

/// Reads and checks one policy again and again.
#[derive(Debug)]
pub struct Loader {
    paths: Vec<PathBuf>,
    source: Arc<str>,
    settings: ReadSettings,
    /// Names of files that may be manifests.
    manifests: HashSet<String>,
    inputs: Vec<Input>,
    /// Files of the folders that are not read, since something stands in for them.
    replaced: Vec<PathBuf>,
    /// Files that stand in for others.
    moved: Vec<PathBuf>,
    allowed: AcceptedWarnings,
    /// As of the newest walk.
    targets: WatchTargets,
    /// What the newest valid set was made of. A rejected attempt leaves nothing here, so that it costs
    /// nothing once it is over.
    valid: Valid,
}

/// A valid set, piece by piece.
#[derive(Debug, Default)]
struct Valid {
    snapshot: Option<FolderSnapshot>,
    guardrails: Guardrails,
    checked: HashMap<Arc<str>, ([u8; 32], Checked)>,
    index: Option<AudienceIndex>,
}

impl Valid {
    fn known(&self, file: &SourceFile) -> Option<&Checked> {
        self.checked
            .get(&file.path)
            .filter(|(hash, _)| *hash == file.content_hash)
            .map(|(_, documents)| documents)
    }

    fn set(&self) -> Option<PreviousSet<'_>> {
        let documents = self.checked.values().flat_map(|(_, documents)| documents.iter());
        Some(PreviousSet::new(self.index.as_ref()?, documents.collect()))
    }
}

/// What a text gave that is in no file.
type Input = Result<SourceFile, ReadProblem>;
/// What a file gave: one document, or those in a manifest.
type Checked = Arc<[CheckedDocument]>;

/// What one look at the files gave.
#[derive(Debug)]
pub struct Loaded {
    /// SHA-256 over all bytes that were read: equal exactly if the outcome must be equal.
    pub bytes: [u8; 32],
    /// Of the stamps of all files: another value means that something was written.
    pub stamps: u64,
    /// A valid set, or what is wrong.
    pub outcome: Result<Accepted, Findings>,
    /// The files as read, sorted by path.
    pub files: Vec<SourceFile>,
}

/// What one look gave, if it was not known already.
#[derive(Debug)]
pub struct Look {
    /// As in [`Loaded`].
    pub stamps: u64,
    /// Nothing if the bytes are known.
    pub loaded: Option<Loaded>,
}

/// Another look is needed if more files declare guardrails than a quick look at the text said.
const MAX_PASSES: usize = 3;

impl Loader {
    /// A loader for the named folders and files.
    #[must_use]
    pub fn new(paths: Vec<PathBuf>, settings: ReadSettings) -> Self {
        let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
        Self {
            paths,
            source: names.join(", ").into(),
            settings,
            manifests: HashSet::new(),
            inputs: Vec::new(),
            replaced: Vec::new(),
            moved: Vec::new(),
            allowed: AcceptedWarnings::NONE,
            targets: WatchTargets::default(),
            valid: Valid::default(),
        }
    }

    /// Reads as authors of policies want it, not as a server does: each file that is named may be a
    /// ConfigMap manifest, for what it holds.
    #[must_use]
    pub fn for_authors(mut self) -> Self {
        self.manifests.extend(self.paths.iter().map(|path| path.to_string_lossy().into_owned()));
        self.manifests.insert(STANDARD_INPUT.to_owned());
        self
    }

    /// Leaves these warnings out of what is found.
    #[must_use]
    pub fn allowing(self, allowed: AcceptedWarnings) -> Self {
        Self { allowed, ..self }
    }

    /// Adds what came through standard input, as a file of the name [`STANDARD_INPUT`].
    #[must_use]
    pub fn with_input(mut self, bytes: Vec<u8>) -> Self {
        self.inputs.push(source_file(STANDARD_INPUT, bytes, &self.settings.limits));
        let sources = [&*self.source, STANDARD_INPUT].into_iter().filter(|source| !source.is_empty());
        self.source = sources.collect::<Vec<_>>().join(", ").into();
        self
    }

    /// Returns `true` if something came through standard input.
    #[must_use]
    pub fn has_input(&self) -> bool {
        !self.inputs.is_empty()
    }

    /// Reads a file in the place of one of the folders; `None` stands for what came through standard input.
    ///
    /// # Errors
    /// [`ReadError`] if the file cannot be read.
    pub fn with_replacement(mut self, old: PathBuf, new: Option<&Path>) -> Result<Self, ReadError> {
        if let Some(new) = new {
            let snapshot = read_folder(&[new.to_owned()], None, &self.settings)?;
            self.inputs.extend(snapshot.problems.into_iter().map(Err));
            self.inputs.extend(snapshot.files.into_iter().map(Ok));
            // Where it is in a folder itself it is not read twice.
            self.moved.push(new.to_owned());
        }
        self.replaced.push(old);
        Ok(self)
    }

    /// The named paths as text, for findings and status.
    #[must_use]
    pub fn source(&self) -> &Arc<str> {
        &self.source
    }

    /// The named paths.
    #[must_use]
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Reads and checks. Blocks; files that did not change since the newest valid set are neither opened nor
    /// parsed again.
    ///
    /// # Errors
    /// [`ReadError`] if a named path cannot be read or nothing stood still. Everything wrong inside a
    /// folder is a finding instead.
    pub fn load(&mut self) -> Result<Loaded, ReadError> {
        let snapshot = self.read()?;
        self.take(snapshot)
    }

    /// Reads, and checks unless the bytes are known by their digest.
    ///
    /// # Errors
    /// As for [`Loader::load`].
    pub fn load_unless(&mut self, known: impl FnOnce(&[u8; 32]) -> bool) -> Result<Look, ReadError> {
        let snapshot = self.read()?;
        let stamps = snapshot.stamps;
        if known(&snapshot.digest) {
            if self.valid.snapshot.as_ref().is_some_and(|valid| valid.digest == snapshot.digest) {
                // The same bytes, perhaps with other stamps.
                self.valid.snapshot = Some(snapshot);
            }
            return Ok(Look { stamps, loaded: None });
        }
        Ok(Look { stamps, loaded: Some(self.take(snapshot)?) })
    }

    /// Forgets the texts of the newest valid set, which are not needed to read the next one.
    pub fn forget_texts(&mut self) {
        if let Some(snapshot) = &mut self.valid.snapshot {
            snapshot.forget_texts();
        }
    }

    /// A file that something stands in for and that is not there, if there is one.
    ///
    /// # Errors
    /// As for [`Loader::load`].
    pub fn not_replaced(&mut self) -> Result<Option<PathBuf>, ReadError> {
        if self.replaced.is_empty() {
            return Ok(None);
        }
        let FolderSnapshot { files, problems, .. } = self.read()?;
        let paths = files.iter().map(|file| &file.path).chain(problems.iter().map(|problem| &problem.path));
        let paths: Vec<&Path> = paths.map(|path| Path::new(&**path)).collect();
        let is_there = |old: &&PathBuf| paths.iter().any(|path| is_same_file(path, old));
        Ok(self.replaced.iter().find(|old| !is_there(old)).cloned())
    }

    /// What is to be watched to learn that something changed, as of the last time that the files were read or could not be read.
    #[must_use]
    pub const fn watch_targets(&self) -> &WatchTargets {
        &self.targets
    }

    fn read(&mut self) -> Result<FolderSnapshot, ReadError> {
        read_folder_and_targets(&self.paths, self.valid.snapshot.as_ref(), &self.settings, &mut self.targets)
    }

    fn take(&mut self, mut snapshot: FolderSnapshot) -> Result<Loaded, ReadError> {
        let mut files = self.own_files(&snapshot);
        let mut checked = self.check(&files);
        if checked.is_none() {
            // Files have to be checked again whose texts are forgotten, for they are under other guardrails now.
            let settings = &self.settings;
            snapshot = read_folder_and_targets(&self.paths, None, settings, &mut self.targets)?;
            files = self.own_files(&snapshot);
            checked = self.check(&files);
        }
        let Some((guardrails, documents)) = checked else {
            return Err(ReadError::Unstable { attempts: 1, names: Vec::new() });
        };
        let problems = snapshot.problems.iter().filter(|problem| !self.is_left_out(&problem.path));
        let inputs = self.inputs.iter().filter_map(|input| input.as_ref().err());
        let others: Vec<Finding> = problems.chain(inputs).map(finding).collect();
        let all = documents.iter().flat_map(|checked| checked.iter());
        let outside: HashSet<&str> =
            files.iter().filter(|file| file.is_outside).map(|file| &*file.path).collect();
        let previous = self.valid.set();
        let mut outcome = assemble(&self.source, all, others, &outside, self.allowed, previous.as_ref());
        redact(&mut outcome, &outside);
        let (bytes, stamps) = (snapshot.digest, snapshot.stamps);
        if let Ok(accepted) = &outcome {
            let index = Some(accepted.set.index().clone());
            let checked = files
                .iter()
                .zip(documents)
                .map(|(file, documents)| (Arc::clone(&file.path), (file.content_hash, documents)))
                .collect();
            self.valid = Valid { snapshot: Some(snapshot), guardrails, checked, index };
        }
        Ok(Loaded { bytes, stamps, outcome, files })
    }

    /// Returns `true` for a file that something stands in for.
    fn is_left_out(&self, path: &str) -> bool {
        let mut out = self.replaced.iter().chain(&self.moved);
        out.any(|replaced| is_same_file(Path::new(path), replaced))
    }

    /// The files to check: those of the folders and the inputs, sorted by path.
    fn own_files(&self, snapshot: &FolderSnapshot) -> Vec<SourceFile> {
        let files = snapshot.files.iter().filter(|file| !self.is_left_out(&file.path));
        // Inputs never change, so the digest of the files still says whether anything did.
        let inputs = self.inputs.iter().filter_map(|input| input.as_ref().ok());
        let mut files: Vec<_> = files.chain(inputs).cloned().collect();
        files.sort_by(|one, other| one.path.cmp(&other.path));
        files
    }

    /// Checks every file under the guardrails of the set, in the order of the files; `None` if a text is needed that was
    /// forgotten.
    fn check(&self, files: &[SourceFile]) -> Option<(Guardrails, Vec<Checked>)> {
        let mut assumed = self.guessed_guardrails(files);
        let mut documents = self.check_changed(files, &assumed)?;
        for _ in 1..MAX_PASSES {
            let declared = files.iter().zip(&documents).find_map(|(file, documents)| {
                let guardrails = documents.iter().find_map(|document| document.guardrails.as_ref())?;
                Some(Guardrails::new(guardrails, file.is_outside))
            });
            let declared = declared.unwrap_or_default();
            if assumed == declared {
                break;
            }
            // The guardrails of a pass are those that the files declare, so a second one agrees.
            assumed = declared;
            drop(documents);
            documents = self.check_changed(files, &assumed)?;
        }
        Some((assumed, documents))
    }

    /// The guardrails of the set, looked for where the word stands in the text. A key can be spelled
    /// with escapes, so this is a guess; [`Loader::check`] looks again when all files are read.
    fn guessed_guardrails(&self, files: &[SourceFile]) -> Guardrails {
        let declared = files.iter().find_map(|file| {
            let guardrails = match self.valid.known(file) {
                Some(known) => known.iter().find_map(|document| document.guardrails.clone()),
                None if file.text.as_ref().is_some_and(|text| text.contains("guardrails")) => {
                    self.documents(file)?.into_iter().find_map(|document| document.guardrails().cloned())
                }
                None => None,
            };
            Some(Guardrails::new(&guardrails?, file.is_outside))
        });
        declared.unwrap_or_default()
    }

    /// What a file says: a policy file is one document, a manifest may hold any number. `None` if its text is forgotten.
    fn documents(&self, file: &SourceFile) -> Option<Vec<Document>> {
        let text = file.text.as_ref()?;
        Some(self.inside(file, text).unwrap_or_else(|| vec![Document::read(&file.path, text)]))
    }

    /// What is in a file that is a manifest.
    fn inside(&self, file: &SourceFile, text: &str) -> Option<Vec<Document>> {
        let is_manifest = !self.manifests.is_empty() && self.manifests.contains(&*file.path);
        is_manifest.then(|| manifest::read(&file.path, text)).flatten()
    }

    /// Checks the files that changed, and takes the others as they are if the guardrails are the same; `None` if one is to
    /// be checked whose text is forgotten.
    ///
    /// Of the findings at most [`MAX_FINDINGS`] errors and as many warnings are kept by each thread.
    fn check_changed(&self, files: &[SourceFile], guardrails: &Guardrails) -> Option<Vec<Checked>> {
        let is_same = *guardrails == self.valid.guardrails;
        let known = |file: &SourceFile| self.valid.known(file).filter(|_| is_same);
        let one = |file: &SourceFile, kept: &mut KeptCount| match known(file) {
            Some(known) => Some(Arc::clone(known)),
            None => {
                let text = file.text.as_ref()?;
                let mut checked = match self.inside(file, text) {
                    Some(documents) => {
                        let judge = |document| {
                            check_document(document, guardrails, self.allowed, kept.room_for_warnings())
                        };
                        documents.into_iter().map(judge).collect()
                    }
                    None => {
                        vec![check_text(&file.path, text, guardrails, self.allowed, kept.room_for_warnings())]
                    }
                };
                for document in &mut checked {
                    kept.limit(&mut document.findings);
                    kept.limit(&mut document.warnings);
                }
                Some(checked.into())
            }
        };
        if files.iter().any(|file| file.text.is_none() && known(file).is_none()) {
            return None;
        }
        // Trees are large: those of small files may be there at the same time, those of large ones not.
        let (mut small, mut large) = (Vec::new(), Vec::new());
        for at in files.iter().enumerate() {
            let length = at.1.text.as_ref().map_or(0, |text| text.len());
            if length <= MAX_PARALLEL_BYTES { small.push(at) } else { large.push(at) }
        }
        let changed = small.iter().filter(|(_, file)| known(file).is_none()).count();
        let run = |files: &[(usize, &SourceFile)]| -> Vec<(usize, Option<Checked>)> {
            let mut kept = KeptCount::default();
            files.iter().map(|(at, file)| (*at, one(file, &mut kept))).collect()
        };
        let mut checked = parallel::in_shares(&small, parallel::threads_for(changed), run);
        checked.extend(run(&large));
        checked.sort_by_key(|(at, _)| *at);
        checked.into_iter().map(|(_, documents)| documents).collect()
    }
}

/// Whether two paths name the same entry of a folder; links are followed but for the last part.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let folder = |path: &Path| match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new(".").canonicalize().ok(),
        Some(parent) => parent.canonicalize().ok(),
        None => None,
    };
    one.file_name() == other.file_name() && one.file_name().is_some() && folder(one) == folder(other)
}

/// Takes the text of files out of findings that links out of the policy directory lead to: it may be anybody's secret.
fn redact(outcome: &mut Result<Accepted, Findings>, outside: &HashSet<&str>) {
    if outside.is_empty() {
        return;
    }
    let findings = match outcome {
        Ok(accepted) => &mut accepted.warnings,
        Err(findings) => findings,
    };
    findings.update(|finding| {
        if outside.contains(&*finding.file) {
            let meaning = finding.code.meaning().trim().replace('\n', " ");
            let meaning = meaning.trim_end_matches('.');
            finding.message =
                format!("{meaning}; its text is not shown, since it is outside of the policy directory");
            finding.value.clear();
            finding.audience.clear();
            finding.suggestion.clear();
        }
    });
}

/// How many findings one thread has kept.
#[derive(Default)]
struct KeptCount {
    errors: usize,
    warnings: usize,
}

impl KeptCount {
    /// Where the warnings of the next document go: texts are only made of those that stay.
    fn room_for_warnings(&self) -> Findings {
        if self.warnings < MAX_FINDINGS { Findings::new() } else { Findings::counted() }
    }

    fn limit(&mut self, findings: &mut Findings) {
        let Self { errors, warnings } = self;
        findings.keep_at_most(MAX_FINDINGS - *errors, MAX_FINDINGS - *warnings);
        let kept = findings.iter().filter(|finding| finding.is_error()).count();
        *errors += kept;
        *warnings += findings.len() - kept;
    }
}

/// The largest file that is checked while others are: its tree has at most 48 times as many bytes, so the
/// trees of all threads stay within that of one large file.
const MAX_PARALLEL_BYTES: usize = 128 << 10;

/// The name of standard input among files.
pub const STANDARD_INPUT: &str = "-";

/// A problem of reading, as a finding.
#[must_use]
pub fn finding(problem: &ReadProblem) -> Finding {
    use crate::escape::shown;
    let (code, suggestion) = match &problem.kind {
        ProblemKind::Unreadable { .. } => (Code::FileUnreadable, "check owner and mode of the file"),
        ProblemKind::DanglingLink { .. } => (Code::FileUnreadable, "remove the link or restore its target"),
        ProblemKind::NameNotUtf8 => (Code::FileUnreadable, "rename the file"),
        ProblemKind::NotRegular { .. } => {
            (Code::FileNotRegular, "give it a name that does not end in .yaml or .yml")
        }
        ProblemKind::NotRead => (
            Code::FileNotRead,
            "rename it to end in `.yaml`, or keep it elsewhere if it is no part of the policy",
        ),
        ProblemKind::TooLarge { .. } => (Code::FileTooLarge, "split the policy into several files"),
        ProblemKind::SetTooLarge { .. } | ProblemKind::TooManyFiles { .. } => {
            (Code::FileTooLarge, "split the policy over several servers")
        }
        ProblemKind::TooDeep { .. } => (Code::FileUnreadable, "nest the folders less deeply"),
        ProblemKind::NotUtf8 { .. } => (Code::FileNotUtf8, "save the file as UTF-8"),
        ProblemKind::WrongSize { .. } => (Code::FileSizeMismatch, "copy what it holds into an ordinary file"),
        ProblemKind::LeadsOutside { .. } => (
            Code::LinkLeadsOutside,
            "move the target into the directory, or allow such links with --allow-outside-links",
        ),
        ProblemKind::DirectoryLoop { .. } => (Code::DirectoryLoop, "remove the symbolic link"),
    };
    let position = match problem.kind {
        ProblemKind::NotUtf8 { line, column, offset } => {
            let start = u32::try_from(offset).unwrap_or(u32::MAX);
            Position { line, column, start, end: start }
        }
        _ => Position::default(),
    };
    Finding {
        code,
        file: Arc::clone(&problem.path),
        position,
        audience: String::new(),
        value: String::new(),
        message: format!("`{}` {}", shown(&problem.path), problem.kind),
        suggestion: suggestion.to_owned(),
    }
}

#[cfg(test)]
mod tests;
