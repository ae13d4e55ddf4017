//! Files to a policy set: reads the folder, checks what changed, puts the whole together.
//!
//! Keeps what it made of each file, so that after an edit only the changed files are parsed again.
//! Knows nothing about serving: what a rejected attempt means is decided in [`super`].

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use super::read::{
    Picture, ProblemKind, ReadError, ReadProblem, ReadSettings, SourceFile, read_folder, source_file,
};
use crate::policy::check::{Accepted, CheckedDocument, Guardrails, assemble, check_document, warning};
use crate::policy::document::Document;
use crate::policy::finding::{Code, Finding, Position};
use crate::policy::manifest;

/// Reads and checks one policy again and again.
#[derive(Debug)]
pub struct Loader {
    paths: Vec<PathBuf>,
    source: Arc<str>,
    settings: ReadSettings,
    /// Names of files that may be manifests.
    manifests: HashSet<String>,
    /// Look for what is allowed and probably not meant.
    warns: bool,
    inputs: Vec<Input>,
    picture: Option<Picture>,
    guardrails: Guardrails,
    checked: HashMap<Arc<str>, ([u8; 32], Checked)>,
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
    /// A valid set, or every finding.
    pub outcome: Result<Accepted, Vec<Finding>>,
    /// The files as read, sorted by path.
    pub files: Vec<SourceFile>,
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
            warns: false,
            inputs: Vec::new(),
            picture: None,
            guardrails: Guardrails::default(),
            checked: HashMap::new(),
        }
    }

    /// Reads as authors of policies want it, not as a server does: each file that is named may be a
    /// ConfigMap manifest, for what it holds, and a valid set comes with every warning.
    #[must_use]
    pub fn for_authors(mut self) -> Self {
        self.manifests.extend(self.paths.iter().map(|path| path.to_string_lossy().into_owned()));
        self.manifests.insert(STANDARD_INPUT.to_owned());
        self.warns = true;
        self
    }

    /// Adds what came through standard input, as a file of the name [`STANDARD_INPUT`].
    #[must_use]
    pub fn with_input(mut self, bytes: Vec<u8>) -> Self {
        self.inputs.push(source_file(STANDARD_INPUT, bytes, &self.settings.limits));
        let sources = [&*self.source, STANDARD_INPUT].into_iter().filter(|source| !source.is_empty());
        self.source = sources.collect::<Vec<_>>().join(", ").into();
        self
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

    /// Reads and checks. Blocks; unchanged files are neither opened nor parsed again.
    ///
    /// # Errors
    /// [`ReadError`] if a named path cannot be read or nothing stood still. Everything wrong inside a
    /// folder is a finding instead.
    pub fn load(&mut self) -> Result<Loaded, ReadError> {
        let picture = self.read()?;
        Ok(self.take(picture))
    }

    /// Reads, and checks unless the bytes are known by their digest; `None` if they are.
    ///
    /// # Errors
    /// As for [`Loader::load`].
    pub fn load_unless(
        &mut self,
        known: impl FnOnce(&[u8; 32]) -> bool,
    ) -> Result<Option<Loaded>, ReadError> {
        let picture = self.read()?;
        if known(&picture.digest) {
            self.picture = Some(picture);
            return Ok(None);
        }
        Ok(Some(self.take(picture)))
    }

    fn read(&self) -> Result<Picture, ReadError> {
        read_folder(&self.paths, self.picture.as_ref(), &self.settings)
    }

    fn take(&mut self, picture: Picture) -> Loaded {
        let mut others: Vec<Finding> = picture.problems.iter().map(finding).collect();
        let mut files = picture.files.clone();
        // Inputs never change, so the digest of the files still says whether anything did.
        for input in &self.inputs {
            match input {
                Ok(file) => files.push(file.clone()),
                Err(problem) => others.push(finding(problem)),
            }
        }
        files.sort_by(|one, other| one.path.cmp(&other.path));
        let documents = self.check(&files);
        let all = documents.iter().flat_map(|checked| checked.iter());
        let mut outcome = assemble(&self.source, all, others);
        if let Ok(Accepted { set, warnings }) = &mut outcome
            && self.warns
        {
            let documents: Vec<Document> = files.iter().flat_map(|file| self.documents(file)).collect();
            warnings.extend(warning::warnings(set, &documents));
            warnings.sort_by(|one, other| (&one.file, one.position).cmp(&(&other.file, other.position)));
        }
        self.checked = files
            .iter()
            .zip(documents)
            .map(|(file, documents)| (Arc::clone(&file.path), (file.content_hash, documents)))
            .collect();
        let loaded = Loaded { bytes: picture.digest, outcome, files };
        self.picture = Some(picture);
        loaded
    }

    /// Checks every file under the guardrails of the set, in the order of the files.
    fn check(&mut self, files: &[SourceFile]) -> Vec<Checked> {
        let mut assumed = self.guessed_guardrails(files);
        for _ in 0..MAX_PASSES {
            if assumed != self.guardrails {
                self.checked.clear();
                self.guardrails = assumed;
            }
            let documents = self.check_changed(files);
            let all = documents.iter().flat_map(|checked| checked.iter());
            let declared = all.filter_map(|document| document.guardrails.as_ref()).next();
            assumed = declared.map(Guardrails::new).unwrap_or_default();
            if assumed == self.guardrails {
                return documents;
            }
        }
        // Not reached: the guardrails of a pass are those that the files declare, so two passes agree.
        self.check_changed(files)
    }

    /// The guardrails of the set, looked for where the word stands in the text. A key can be spelled
    /// with escapes, so this is a guess; [`Loader::check`] looks again when all files are read.
    fn guessed_guardrails(&self, files: &[SourceFile]) -> Guardrails {
        files
            .iter()
            .find_map(|file| match self.known(file) {
                Some(known) => known.iter().find_map(|document| document.guardrails.clone()),
                None if file.text.contains("guardrails") => {
                    self.documents(file).into_iter().find_map(|document| document.guardrails)
                }
                None => None,
            })
            .map(|document| Guardrails::new(&document))
            .unwrap_or_default()
    }

    /// What a file says: a policy file is one document, a manifest may hold any number.
    fn documents(&self, file: &SourceFile) -> Vec<Document> {
        let is_manifest = !self.manifests.is_empty() && self.manifests.contains(&*file.path);
        let inside = is_manifest.then(|| manifest::read(&file.path, &file.text)).flatten();
        inside.unwrap_or_else(|| vec![Document::read(&file.path, &file.text)])
    }

    fn known(&self, file: &SourceFile) -> Option<&Checked> {
        self.checked
            .get(&file.path)
            .filter(|(hash, _)| *hash == file.content_hash)
            .map(|(_, documents)| documents)
    }

    fn check_changed(&self, files: &[SourceFile]) -> Vec<Checked> {
        let one = |file: &SourceFile| match self.known(file) {
            Some(known) => Arc::clone(known),
            None => {
                let documents = self.documents(file);
                documents.iter().map(|document| check_document(document, &self.guardrails)).collect()
            }
        };
        let changed = files.iter().filter(|file| self.known(file).is_none()).count();
        let threads = thread::available_parallelism().map_or(1, usize::from).min(8);
        if changed < 16 || threads == 1 {
            return files.iter().map(one).collect();
        }
        let share = files.len().div_ceil(threads);
        thread::scope(|scope| {
            let workers: Vec<_> = files
                .chunks(share)
                .map(|chunk| (chunk, scope.spawn(move || chunk.iter().map(one).collect::<Vec<_>>())))
                .collect();
            // A thread that died (out of memory, say) leaves its share to this one.
            let finished = workers
                .into_iter()
                .map(|(chunk, worker)| worker.join().unwrap_or_else(|_| chunk.iter().map(one).collect()));
            finished.flatten().collect()
        })
    }
}

/// The name of standard input among files.
pub const STANDARD_INPUT: &str = "-";

/// A problem of reading, as a finding.
#[must_use]
pub fn finding(problem: &ReadProblem) -> Finding {
    use crate::policy::finding::shown;
    let (code, suggestion) = match &problem.kind {
        ProblemKind::Unreadable { .. } => (Code::FileUnreadable, "check owner and mode of the file"),
        ProblemKind::DanglingLink { .. } => (Code::FileUnreadable, "remove the link or restore its target"),
        ProblemKind::NameNotUtf8 => (Code::FileUnreadable, "rename the file"),
        ProblemKind::NotRegular { .. } => {
            (Code::FileNotRegular, "give it a name that does not end in .yaml or .yml")
        }
        ProblemKind::TooLarge { .. } => (Code::FileTooLarge, "split the policy into several files"),
        ProblemKind::SetTooLarge { .. } | ProblemKind::TooManyFiles { .. } => {
            (Code::FileTooLarge, "split the policy over several servers")
        }
        ProblemKind::TooDeep { .. } => (Code::FileUnreadable, "nest the folders less deeply"),
        ProblemKind::NotUtf8 { .. } => (Code::FileNotUtf8, "save the file as UTF-8"),
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
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn loader(folder: &Path) -> Loader {
        Loader::new(vec![folder.to_owned()], ReadSettings::default())
    }

    fn write(folder: &Path, name: &str, text: &str) {
        fs::write(folder.join(name), text).unwrap();
    }

    #[test]
    fn an_edit_of_one_file_is_seen_and_the_others_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a.yaml", "audiences: {a: {scopesSupported: [x]}}");
        write(folder.path(), "b.yaml", "audiences: {b: {scopesSupported: [x]}}");
        let mut loader = loader(folder.path());
        let first = loader.load().unwrap();
        let before = first.outcome.unwrap().set;
        write(folder.path(), "b.yaml", "audiences: {b: {scopesSupported: [x, y]}}");
        let second = loader.load().unwrap();
        assert_ne!(first.bytes, second.bytes);
        let after = second.outcome.unwrap().set;
        assert!(Arc::ptr_eq(&before.audiences()[0], &after.audiences()[0]), "a.yaml is not compiled again");
        assert_eq!(after.audiences()[1].scopes_supported.as_str(), "x y");
    }

    #[test]
    fn new_guardrails_judge_unchanged_files_again() {
        let folder = tempfile::tempdir().unwrap();
        write(
            folder.path(),
            "a.yaml",
            "audiences: {a: {scopesSupported: [x, y], baselineClientScopes: [x]}}",
        );
        let mut loader = loader(folder.path());
        assert!(loader.load().unwrap().outcome.is_ok());
        write(folder.path(), "z.yaml", "guardrails: {forbiddenScopes: [x]}");
        let findings = loader.load().unwrap().outcome.unwrap_err();
        assert_eq!(
            findings.iter().map(|finding| finding.code).collect::<Vec<_>>(),
            [Code::BaselineScopeForbidden]
        );
        // The key spelled with an escape: the quick look at the text does not see it, the result does.
        write(folder.path(), "z.yaml", "\"guardrail\\x73\": {forbiddenScopes: [y]}");
        let set = loader.load().unwrap().outcome.unwrap().set;
        assert_eq!(set.audiences()[0].forbidden_scopes.as_str(), "y");
        fs::remove_file(folder.path().join("z.yaml")).unwrap();
        let set = loader.load().unwrap().outcome.unwrap().set;
        assert!(set.audiences()[0].forbidden_scopes.is_empty());
    }

    #[test]
    fn many_files_are_read_by_several_threads_with_the_same_result() {
        let folder = tempfile::tempdir().unwrap();
        for n in 0..50 {
            write(
                folder.path(),
                &format!("{n:02}.yaml"),
                &format!("audiences: {{a{n}: {{scopesSupported: [x]}}}}"),
            );
        }
        let set = loader(folder.path()).load().unwrap().outcome.unwrap().set;
        assert_eq!(set.audiences().len(), 50);
        write(folder.path(), "99.yaml", "audiences: {a7: {scopesSupported: [x]}}");
        let findings = loader(folder.path()).load().unwrap().outcome.unwrap_err();
        assert_eq!(findings[0].code, Code::DuplicateAudience);
    }

    const MANIFEST: &str = "kind: ConfigMap\ndata:\n  a.yaml: |\n    audiences: {a: {scopesSupported: [x]}}\n  \
                            g.yaml: |\n    guardrails: {forbiddenScopes: [y]}\n";

    #[test]
    fn a_named_manifest_is_read_and_one_in_a_folder_is_not() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "policy.yaml", MANIFEST);
        let named = || Loader::new(vec![folder.path().join("policy.yaml")], ReadSettings::default());
        let set = named().for_authors().load().unwrap().outcome.unwrap().set;
        assert_eq!(set.audiences()[0].forbidden_scopes.as_str(), "y");
        for mut loader in [named(), loader(folder.path()).for_authors()] {
            let findings = loader.load().unwrap().outcome.unwrap_err();
            assert!(findings.iter().any(|finding| finding.code == Code::UnknownKey), "{findings:?}");
        }
    }

    #[test]
    fn standard_input_is_one_more_file() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "b.yaml", "audiences: {b: {scopesSupported: [x, y]}}");
        let text = "guardrails: {forbiddenScopes: [y]}";
        let loaded = loader(folder.path()).with_input(text.into()).load().unwrap();
        assert_eq!(loaded.outcome.unwrap().set.audiences()[0].forbidden_scopes.as_str(), "y");
        assert_eq!(loaded.files.iter().map(|file| &*file.path).min(), Some(STANDARD_INPUT));
        let alone = |bytes: &[u8]| {
            let loader = Loader::new(Vec::new(), ReadSettings::default()).for_authors();
            loader.with_input(bytes.to_vec()).load().unwrap().outcome
        };
        assert_eq!(alone(MANIFEST.as_bytes()).unwrap().set.audiences().len(), 1);
        let findings = alone(b"a: b\nc: \xff").unwrap_err();
        let place = (&*findings[0].file, findings[0].position.line, findings[0].position.column);
        assert_eq!((findings[0].code, place), (Code::FileNotUtf8, (STANDARD_INPUT, 2, 4)));
        let findings = alone(&vec![b' '; (16 << 20) + 1]).unwrap_err();
        assert_eq!(findings[0].code, Code::FileTooLarge);
    }

    #[test]
    fn an_empty_folder_declares_no_audience() {
        let folder = tempfile::tempdir().unwrap();
        let findings = loader(folder.path()).load().unwrap().outcome.unwrap_err();
        assert_eq!(findings[0].code, Code::NoAudience);
    }
}
